"""Law files are TOML, read key by key: exact numbers, no unknown key, and every fault is told, with its line. Pure.

A fault does not end the reading: it is noted, something harmless stands in for the value, and `whole` raises what was
noted when the file has been read to its end.
"""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from fractions import Fraction
from typing import Self, TypeVar

from flopmeter.collector.errors import Fault, RegimeError

from .toml_lines import Path, Place, places

_T = TypeVar("_T")
#: Longest number accepted: 10^40 FLOP is far past anything that could be trained.
MAX_DIGITS = 40
#: Largest file accepted: the largest shipped one is a hundredth of it.
MAX_BYTES = 1 << 20
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")
_SEE = "see docs/regimes.md"
_NO_FLOATS = "a float is not exact: 1e25 is not 10^25 in binary; write { base = 10, exponent = 25 }"


def whole(name: str, raw: bytes, make: "Callable[[Keys], _T]") -> _T:
    """What `make` makes of one file's keys. `name` is what messages call it. Raises RegimeError with every fault."""
    file = _File(name)
    keys = _read(file, raw)
    try:
        made = make(keys)
    except RegimeError as e:
        if not file.faults:  # of another file than this one
            raise
        raise RegimeError.of(_in_order(file.faults)) from e
    if file.faults:
        raise RegimeError.of(_in_order(file.faults))
    return made


def _in_order(faults: list[Fault]) -> list[Fault]:
    return sorted(dict.fromkeys(faults), key=lambda f: (f.line or 0, f.column or 0))


def _read(file: "_File", raw: bytes) -> "Keys":
    if len(raw) > MAX_BYTES:
        raise RegimeError.of(
            [Fault(file.name, None, None, "", f"a file of at most {MAX_BYTES} bytes", f"{len(raw)}", _SEE)]
        )
    try:
        text = raw.decode()
        data = tomllib.loads(text, parse_float=_Float)
    except tomllib.TOMLDecodeError as e:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(e))
        line, column = (int(at[1]), int(at[2])) if at else (None, None)
        said = str(e) if at is None else str(e)[: at.start()].strip()
        raise RegimeError.of([Fault(file.name, line, column, "", "a TOML file", said, _SEE)]) from e
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        raise RegimeError.of([Fault(file.name, line, None, "", "UTF-8 text", str(e), _SEE)]) from e
    except RecursionError as e:
        raise RegimeError.of([Fault(file.name, None, None, "", "a TOML file", str(e), _SEE)]) from e
    file.text = text
    return Keys(file, data)


@dataclass(slots=True)
class _File:
    """What all tables of one file share."""

    name: str
    text: str = ""
    faults: list[Fault] = field(default_factory=list)
    found: dict[Path, Place] | None = None

    def place(self, path: Path) -> Place | None:
        if self.found is None:  # asked for once something is wrong
            self.found = places(self.text)
        return self.found.get(path)


class _Float(float):
    """A TOML float that still knows how it was written, for the message that refuses it."""

    def __new__(cls, text: str) -> Self:
        self = super().__new__(cls, text)
        self.text = text
        return self

    text: str

    def __repr__(self) -> str:
        return self.text


class Keys:
    """Takes keys out of one table of a file, checking each, so that what is left over is unknown."""

    def __init__(
        self, file: _File, data: Mapping[str, object], path: Path = (), *, absent: bool = False
    ) -> None:
        """`absent`: the table is not there, which was told; what would stand in it is not worth a fault each."""
        self._file = file
        self._absent = absent
        self._path = path
        self.data = data
        self._left = set(data)
        self._asked: set[str] = set()
        self._faulty: set[str] = set()

    def fault(self, key: str, expected: str, got: object, todo: str = _SEE) -> RegimeError:
        """Note a fault of `key`. To be raised only where nothing can be made of the rest."""
        return self._fault(key, expected, _shown(got), todo)

    def _fault(self, key: str, expected: str, got: str, todo: str) -> RegimeError:
        path = (*self._path, key)
        place = self._file.place(path) or (self._file.place(self._path) if self._path else None)
        line, column = place or (None, None)
        found = Fault(self._file.name, line, column, _named(path), expected, got, todo)
        if not self._absent:
            self._file.faults.append(found)
        self._faulty.add(key)
        return RegimeError.of([found])

    def good(self, *keys: str) -> bool:
        """Whether nothing is wrong with those, so that they can be held against each other."""
        return not self._faulty.intersection(keys)

    def has(self, key: str) -> bool:
        """Whether an optional key is there."""
        self._asked.add(key)
        return key in self.data

    def ignore(self, *keys: str) -> None:
        """Nothing can be said of these: another key that decides what they mean is wrong."""
        self._left.difference_update(keys)

    def _take(self, key: str, expected: str) -> object:
        """The value; None, and a fault, where there is none."""
        self._asked.add(key)
        if key not in self.data:
            todo = _SEE
            near = _near(key, self._left)
            if near:
                todo = f"is {near!r} meant to be it?"
            self._fault(key, expected, "nothing", todo)
            return None
        self._left.discard(key)
        return self.data[key]

    def _no(self, key: str, expected: str, value: object, todo: str = _SEE) -> None:
        if key in self.data:
            floats = isinstance(value, float) or (
                isinstance(value, dict) and any(isinstance(v, float) for v in value.values())
            )
            self.fault(key, expected, value, _NO_FLOATS if floats and todo == _SEE else todo)

    def text(self, key: str) -> str:
        value = self._take(key, "text")
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
        self._no(key, "text", value)
        return "?"

    def texts(self, key: str) -> tuple[str, ...]:
        expected = "a list of texts (may be empty)"
        value = self._take(key, expected)
        if isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value):
            return tuple(" ".join(v.split()) for v in value)
        self._no(key, expected, value)
        return ()

    def id(self, key: str = "id") -> str:
        value = self.text(key)
        if not _ID.match(value) and self.good(key):
            self.fault(key, "lower-case words joined by '-'", value)
        return value

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        expected = "one of " + ", ".join(map(repr, allowed))
        value = self._take(key, expected)
        if isinstance(value, str) and value in allowed:
            return value
        near = _near(value, allowed) if isinstance(value, str) else None
        self._no(key, expected, value, f"did you mean {near!r}?" if near else _SEE)
        return allowed[0]

    def yes(self, key: str) -> bool:
        value = self._take(key, "true or false")
        if isinstance(value, bool):
            return value
        self._no(key, "true or false", value)
        return False

    def day(self, key: str) -> date:
        value = self._take(key, "a date (2027-01-01)")
        if isinstance(value, date) and not isinstance(value, datetime):
            return value
        self._no(key, "a date (2027-01-01)", value)
        return date.min

    def count(self, key: str, most: int) -> int:
        expected = f"a whole number from 1 to {most}"
        value = self._take(key, expected)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most:
            return value
        self._no(key, expected, value)
        return 1

    def threshold(self, key: str) -> int:
        expected = 'a decimal string ("10000000000000000000000000") or { base = 10, exponent = 25 }'
        value = self._take(key, expected)
        if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]*", value):
            if len(value) <= MAX_DIGITS:
                return int(value)
        elif isinstance(value, dict) and value.keys() == {"base", "exponent"}:
            base, exponent = value["base"], value["exponent"]
            exact = all(isinstance(v, int) and not isinstance(v, bool) for v in (base, exponent))
            if exact and 2 <= base <= 10 and 0 <= exponent <= 4 * MAX_DIGITS:
                power: int = base**exponent
                if len(str(power)) <= MAX_DIGITS:
                    return power
        self._no(key, f"{expected}, of at most {MAX_DIGITS} digits", value)
        return 1

    def share(self, key: str) -> Fraction:
        """A part above 0 and at most the whole, as two whole numbers: 0.33 is not a third."""
        expected = "{ numerator = 1, denominator = 3 }, above 0 and at most 1"
        value = self._take(key, expected)
        part = _part(value)
        if part is not None:
            return part
        self._no(key, expected, value, "a share is two whole numbers: 0.33 is not a third")
        return Fraction(1)

    def shares(self, key: str) -> tuple[Fraction, ...]:
        """Several such parts, ascending; may be none."""
        expected = "a list of { numerator = 10, denominator = 13 }, each above 0 and at most 1"
        value = self._take(key, expected)
        if isinstance(value, list):
            parts = [_part(v) for v in value]
            found = {part for part in parts if part is not None}
            if None not in parts:
                return tuple(sorted(found))
        self._no(key, expected, value, "a share is two whole numbers: 0.77 is not 10/13")
        return ()

    def table(self, key: str) -> "Keys":
        value = self._take(key, "a table")
        if isinstance(value, dict):
            return Keys(self._file, value, (*self._path, key))
        self._no(key, "a table", value)
        return Keys(self._file, {}, (*self._path, key), absent=True)

    def tables(self, key: str) -> "list[Keys]":
        """An array of tables; none where the key is absent."""
        if not self.has(key):
            return []
        expected = f"tables ([[{key}]])"
        value = self._take(key, expected)
        if isinstance(value, list) and all(isinstance(v, dict) for v in value):
            return [Keys(self._file, v, (*self._path, key, n)) for n, v in enumerate(value)]
        self._no(key, expected, value)
        return []

    def none_left(self) -> None:
        for key in sorted(self._left):
            near = _near(key, self._asked - (set(self.data) - self._left))
            todo = "unknown keys are refused, so that a misspelt one is not ignored; " + (
                f"did you mean {near!r}?" if near else _SEE
            )
            self.fault(key, "no such key", self.data[key], todo)


def _part(value: object) -> Fraction | None:
    if isinstance(value, dict) and value.keys() == {"numerator", "denominator"}:
        n, d = value["numerator"], value["denominator"]
        exact = all(isinstance(v, int) and not isinstance(v, bool) for v in (n, d))
        if exact and 0 < n <= d <= 10**9:
            return Fraction(n, d)
    return None


def _near(word: object, known: "tuple[str, ...] | set[str]") -> str | None:
    import difflib  # only where something is wrong: a start without is a hundredth of a second shorter

    found = difflib.get_close_matches(str(word), sorted(known), n=1)
    return found[0] if found else None


def _named(path: Path) -> str:
    """deadlines[0].after_days"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
