"""Named texts of one entry, each taken once and checked, so that what is left over is unknown. Pure.

An option, a CSV cell and a TOML value all arrive as text (`as_text`): one set of rules reads them, exact
numbers stay exact, and an entry written down as JSON reads back as the same entry.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import TypeAlias

from flopmeter.collector.errors import EstimateError
from flopmeter.contract.limits import MAX_LABEL_CHARS

from . import numbers

#: An entry as it is written down: texts, and lists of entries.
Entry: TypeAlias = Mapping[str, "str | Sequence[Entry]"]
_HINT = "see docs/estimate.md"
#: What a good value looks like, by key; 8e9 (parameters) for the rest.
_SUCH_AS = {
    "units": "512",
    "hours": "300",
    "seconds": "3600",
    "device_hours": "370000",
    "tokens": "15e12",
    "layers": "32",
    "hidden": "4096",
    "context": "8192",
    "passes": "2e6",
    "flop_per_pass": "3.1e17",
}
#: Periods of one estimate, kinds of one period: an event holds them all.
MAX_TABLES = 1_000
#: As `where`: the entry was given as options, and a key is named as its option is.
OPTIONS = "--"


class Fields:
    """Takes keys out of one entry. `where` says which one, for messages, given the key at fault."""

    def __init__(self, entry: Entry, where: Callable[[str], str]) -> None:
        self._entry = entry
        self._where = where
        self._left = set(entry)

    def name(self, key: str) -> str:
        where = self._where(key)
        if not key.isprintable() or len(key) > MAX_LABEL_CHARS:
            key = repr(key[:MAX_LABEL_CHARS])
        return "--" + key.replace("_", "-") if where == OPTIONS else f"{where}key {key}"

    def fault(self, key: str, expected: str, got: object = None) -> EstimateError:
        shown = "nothing" if got is None else repr(got)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return EstimateError(f"{self.name(key)}: expected {expected}, got {shown}", _HINT)

    def has(self, key: str) -> bool:
        return key in self._entry

    def text(self, key: str, expected: str = "text") -> str:
        """A text that must be there."""
        self._left.discard(key)
        value = self._entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(key, expected, value)
        text = value.strip()
        if len(text) > MAX_LABEL_CHARS or not text.isprintable():  # it goes into events, and onto terminals
            raise self.fault(key, f"at most {MAX_LABEL_CHARS} printable characters", text)
        return text

    def optional(self, key: str) -> str:
        return self.text(key) if self.has(key) else ""

    def entries(self, key: str) -> list[Entry]:
        """A list of tables that must be there and hold something."""
        self._left.discard(key)
        value = self._entry.get(key)
        if isinstance(value, str) or not value or not all(isinstance(v, Mapping) for v in value):
            raise self.fault(key, "one or more tables", value)
        if len(value) > MAX_TABLES:
            raise self.fault(key, f"at most {MAX_TABLES} tables", f"{len(value)} tables")
        return list(value)

    def one_of(self, key: str, allowed: Sequence[str], default: str = "") -> str:
        if not self.has(key) and default:
            return default
        expected = "one of " + ", ".join(allowed)
        value = self.text(key, expected)
        if value not in allowed:
            raise self.fault(key, expected, value)
        return value

    def number(self, key: str) -> Fraction:
        text = self.text(key, "a number above 0")
        return numbers.number(self.name(key), text, hint=_HINT, such_as=_SUCH_AS.get(key, "8e9"))

    def whole(self, key: str) -> int:
        text = self.text(key, "a whole number above 0")
        return numbers.whole(self.name(key), text, hint=_HINT, such_as=_SUCH_AS.get(key, "8e9"))

    def share(self, key: str) -> Fraction:
        return numbers.share(self.name(key), self.text(key, "a share, such as 0.4 or 40%"))

    def instant(self, key: str) -> int:
        return numbers.instant(self.name(key), self.text(key, "a time, such as 2026-11-20T00:00:00Z"))

    def done(self) -> None:
        """Refuse what nobody asked for."""
        if self._left:
            key = min(self._left)
            raise EstimateError(
                f"{self.name(key)}: expected no such key",
                "unknown keys are refused, so that a misspelt one is not ignored; see docs/estimate.md",
            )


def as_text(value: object, where: Callable[[str], str]) -> "str | list[Entry]":
    """A TOML or JSON value as an entry holds it. Floats must have been parsed as text. Raises EstimateError."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list) and all(isinstance(v, dict) for v in value):
        return [as_entry(v, where) for v in value]
    raise EstimateError(
        f"expected text, a number, a time with its offset or tables, got {value!s:.60}", _HINT
    )


def as_entry(table: Mapping[str, object], where: Callable[[str], str]) -> Entry:
    """A TOML or JSON table as texts. Raises EstimateError naming place and key."""
    entry: dict[str, str | Sequence[Entry]] = {}
    for key, value in table.items():
        try:
            entry[key] = as_text(value, where)
        except EstimateError as e:
            raise EstimateError(f"{where(key)}key {key}: {e}", e.hint) from e
    return entry
