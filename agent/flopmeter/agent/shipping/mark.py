"""A number in a file that says how far something has come: a hint, whole or not there, and perhaps old."""

from pathlib import Path

from flopmeter.agent.files import note_number, read_number


class Mark:
    """The number, and what of it stands in the file. None: there was never one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.value = self.written = read_number(path) if path.exists() else None

    def set(self, value: int, *, every: int = 1) -> None:
        """The number is `value`; noted if it went back, or as soon as it is `every` further than the file says."""
        self.value = value
        written = self.written
        if written is None or value < written or value - written >= every:
            self.write()

    def write(self) -> None:
        """Note it, if it is another than the file says."""
        if self.value is not None and self.value != self.written and note_number(self._path, self.value):
            self.written = self.value
