"""Where each key of a TOML text stands, for messages: tomllib tells of no lines but those of syntax errors. Pure.

It reads text that tomllib has read, so that it need not judge it: what it does not expect ends the search, and the keys
behind it have no line.
"""

import contextlib
import tomllib
from typing import NamedTuple

#: A key's way from the top: names, and the number of an element of an array.
Path = tuple[str | int, ...]
_BLANK = " \t"
_ENDS_VALUE = ",]}#\r\n"


class Place(NamedTuple):
    """Where a key (or an element of an array) begins; both count from 1."""

    line: int
    column: int


class _Lost(Exception):  # noqa: N818 - no error of anybody's: nothing more is to be found
    pass


def places(text: str) -> dict[Path, Place]:
    """Each key of `text`, each table by its header, each element of an array."""
    scan = _Scan(text.replace("\r\n", "\n"))
    with contextlib.suppress(_Lost, RecursionError):
        scan.document()
    return scan.found


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, Place] = {}
        self._tables: dict[Path, int] = {}  # arrays of tables, and how many each has
        self._line, self._line_at = 1, 0  # the last line asked for, and where it begins

    def document(self) -> None:
        table: Path = ()
        while True:
            self._skip(lines=True)
            if self.at >= len(self.text):
                return
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        begun, double = self.at, self.text.startswith("[[", self.at)
        self.at += 1 + double
        names = self._names()
        self._expect("]]" if double else "]")
        path: Path = ()
        for n, name in enumerate(names):
            path += (name,)
            if path in self._tables and not (double and n == len(names) - 1):
                path += (self._tables[path] - 1,)
            if n < len(names) - 1:
                self._note(path, begun)
        if double:
            self._note(path, begun)
            number = self._tables.get(path, 0)
            self._tables[path] = number + 1
            path += (number,)
        self.found[path] = self._place(
            begun
        )  # a table that another's header named in passing has its own here
        return path

    def _pair(self, table: Path) -> None:
        begun = self.at
        names = self._names()
        path = table
        for name in names:
            path += (name,)
            self._note(path, begun)
        self._expect("=")
        self._value(path)

    def _names(self) -> list[str]:
        names = []
        while True:
            self._skip(lines=False)
            names.append(self._name())
            self._skip(lines=False)
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def _name(self) -> str:
        begun = self.at
        if self.text[begun : begun + 1] in ('"', "'"):
            self._string()
            return str(tomllib.loads(f"x = {self.text[begun : self.at]}")["x"])
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "-_"):
            self.at += 1
        if self.at == begun:
            raise _Lost
        return self.text[begun : self.at]

    def _value(self, path: Path) -> None:
        self._skip(lines=False)
        first = self.text[self.at : self.at + 1]
        if first in ('"', "'"):
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline(path)
        else:
            begun = self.at
            while self.at < len(self.text) and self.text[self.at] not in _ENDS_VALUE:
                self.at += 1
            if self.at == begun:
                raise _Lost

    def _string(self) -> None:
        quote = self.text[self.at]
        end = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(end)
        while not self.text.startswith(end, self.at):
            if self.at >= len(self.text):
                raise _Lost
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(end)
        while len(end) == 3 and self.text.startswith(
            quote, self.at
        ):  # up to two quotes before the last three
            self.at += 1

    def _array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while True:
            self._skip(lines=True)
            if self.text.startswith("]", self.at):
                self.at += 1
                return
            self.found[(*path, number)] = self._place(self.at)
            self._value((*path, number))
            number += 1
            self._skip(lines=True)
            if not self.text.startswith("]", self.at):
                self._expect(",")

    def _inline(self, path: Path) -> None:
        self.at += 1
        while True:
            self._skip(lines=True)
            if self.text.startswith("}", self.at):
                self.at += 1
                return
            self._pair(path)
            self._skip(lines=True)
            if not self.text.startswith("}", self.at):
                self._expect(",")

    def _expect(self, what: str) -> None:
        self._skip(lines=False)
        if not self.text.startswith(what, self.at):
            raise _Lost
        self.at += len(what)

    def _skip(self, *, lines: bool) -> None:
        """Blanks; with `lines`, ends of lines and comments too."""
        text = self.text
        while self.at < len(text):
            c = text[self.at]
            if c in _BLANK or (lines and c == "\n"):
                self.at += 1
            elif lines and c == "#":
                end = text.find("\n", self.at)
                self.at = len(text) if end < 0 else end
            else:
                return

    def _note(self, path: Path, at: int) -> None:
        if path not in self.found:
            self.found[path] = self._place(at)

    def _place(self, at: int) -> Place:
        if at < self._line_at:
            self._line, self._line_at = 1, 0
        self._line += self.text.count("\n", self._line_at, at)
        self._line_at = self.text.rfind("\n", 0, at) + 1
        return Place(self._line, at - self._line_at + 1)
