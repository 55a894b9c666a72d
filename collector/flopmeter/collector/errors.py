"""The collector's error family. Each carries a hint: what an operator can do about it."""

from collections.abc import Sequence
from typing import NamedTuple, Self


class CollectorError(Exception):
    """Something the collector cannot do. `str()` says what was expected and got; `hint` what to do."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class StoreError(CollectorError):
    """The store cannot be opened, read or committed to."""


class BackupRefused(CollectorError):  # noqa: N818
    """No backup was made: something has its name, or the copy is not one of good books."""

    exit_code = 1


class StoreChangedError(StoreError):
    """The store was written to while it was read as one that nobody has open: what was read may be half of each."""


class Fault(NamedTuple):
    """One thing that is wrong with a file that a person wrote."""

    file: str
    line: int | None  # both count from 1; None: it is nowhere in the file
    column: int | None
    key: str  # "" = the file as a whole
    expected: str
    got: str
    todo: str

    def __str__(self) -> str:
        at = "".join(f":{n}" for n in (self.line, self.column) if n is not None)
        key = f"key {self.key}: " if self.key else ""
        return f"{self.file}{at}: {key}expected {self.expected}, got {self.got}"


class RegimeError(CollectorError):
    """A regime file or a counting profile is not one; the message has a line for each fault."""

    exit_code = 1
    faults: tuple[Fault, ...] = ()

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> Self:
        """All of `faults` (one at least) as one error."""
        error = cls("\n".join(map(str, faults)), "; ".join(dict.fromkeys(f.todo for f in faults)))
        error.faults = tuple(faults)
        return error


class SettingsError(CollectorError):
    """A setting is unknown or out of range."""

    exit_code = 2


class EstimateError(CollectorError):
    """An input of an estimate is refused: missing, out of range, or not what the formula asks for."""

    exit_code = 2


class RegistryError(CollectorError):
    """A person's entry is not one: a field is missing, of the wrong type, or no text that may stand in the books."""

    exit_code = 2


class EntryRefused(RegistryError):  # noqa: N818
    """A well-formed entry that must not be made now: what it names is unknown, or another entry stands against it."""

    exit_code = 1


class DutyError(CollectorError):
    """An answer to an event or a deadline is not one: who, why, or which is missing or no text for the books."""

    exit_code = 2


class DutyRefused(DutyError):  # noqa: N818
    """A well-formed answer that cannot be given now: what it is about is not there, or stands otherwise."""

    exit_code = 1


class SinkError(CollectorError):
    """Events could not be delivered; they stay in the outbox."""


class FilingError(CollectorError):
    """A draft cannot be made of what was asked for."""

    exit_code = 2


class ExportError(CollectorError):
    """An export cannot be written as it was asked for; no half of a file has its name."""


class RetentionError(CollectorError):
    """A word on keeping is not one: a day, a number, who or why is missing or no text for the books."""

    exit_code = 2


class RetentionRefused(RetentionError):  # noqa: N818
    """Well-formed and refused: it must be kept, or what it names does not stand."""

    exit_code = 1


class KeyFileError(CollectorError):
    """A key of the collector cannot be read, or must not be used as it lies there."""


class LogError(CollectorError):
    """The evidence log cannot give what was asked of it, or nothing can be signed now."""


class LogForkedError(LogError):
    """What is stored contradicts itself, or a head that was signed: nothing is signed on it."""

    exit_code = 1
