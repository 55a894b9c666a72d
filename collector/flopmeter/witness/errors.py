"""The witness's error family. Each carries a hint: what whoever runs it can do about it."""


class WitnessError(Exception):
    """Something the witness cannot do. `str()` says what was expected and got; `hint` what to do."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(WitnessError):
    """A flag is missing, out of range, or names a key that is none."""

    exit_code = 2


class KeyFileError(WitnessError):
    """The key file cannot be read, is damaged, or must not be used as it lies there."""


class StateError(WitnessError):
    """The state cannot be opened, read or committed to: nothing is cosigned."""
