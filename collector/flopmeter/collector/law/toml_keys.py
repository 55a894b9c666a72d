"""Law files are TOML, read key by key: exact numbers, no unknown key, every fault names file and key. Pure."""

import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Self

from flopmeter.collector.errors import RegimeError

#: Longest number accepted: 10^40 FLOP is far past anything that could be trained.
MAX_DIGITS = 40
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\Z")


def read(name: str, raw: bytes) -> "Keys":
    """The keys of one file. `name` is what messages call it. Raises RegimeError."""
    try:
        data = tomllib.loads(raw.decode(), parse_float=_Float)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as e:
        raise RegimeError(f"{name}: expected a TOML file, got {e}", "see docs/regimes.md") from e
    return Keys(name, data)


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

    def __init__(self, name: str, data: Mapping[str, object], prefix: str = "") -> None:
        self.name = name
        self.data = data
        self.prefix = prefix
        self.left = set(data)

    def fault(self, key: str, expected: str, got: object) -> RegimeError:
        return RegimeError(
            f"{self.name}: key {self.prefix}{key}: expected {expected}, got {_shown(got)}",
            "see docs/regimes.md",
        )

    def _take(self, key: str, expected: str) -> object:
        if key not in self.data:
            raise RegimeError(
                f"{self.name}: key {self.prefix}{key}: expected {expected}, got nothing",
                "see docs/regimes.md",
            )
        self.left.discard(key)
        return self.data[key]

    def text(self, key: str) -> str:
        value = self._take(key, "text")
        if not isinstance(value, str) or not value.strip():
            raise self.fault(key, "text", value)
        return " ".join(value.split())

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key, "a list of texts (may be empty)")
        if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
            raise self.fault(key, "a list of texts (may be empty)", value)
        return tuple(" ".join(v.split()) for v in value)

    def id(self) -> str:
        value = self.text("id")
        if not _ID.match(value):
            raise self.fault("id", "lower-case words joined by '-'", value)
        return value

    def one_of(self, key: str, allowed: tuple[str, ...]) -> str:
        expected = "one of " + ", ".join(map(repr, allowed))
        value = self._take(key, expected)
        if not isinstance(value, str) or value not in allowed:
            raise self.fault(key, expected, value)
        return value

    def yes(self, key: str) -> bool:
        value = self._take(key, "true or false")
        if not isinstance(value, bool):
            raise self.fault(key, "true or false", value)
        return value

    def day(self, key: str) -> date:
        value = self._take(key, "a date (2027-01-01)")
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.fault(key, "a date (2027-01-01)", value)
        return value

    def count(self, key: str, most: int) -> int:
        expected = f"a whole number from 1 to {most}"
        value = self._take(key, expected)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise self.fault(key, expected, value)
        return value

    def threshold(self, key: str) -> int:
        expected = 'a decimal string ("10000000000000000000000000") or { base = 10, exponent = 25 }'
        value = self._take(key, expected)
        if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]*", value):
            if len(value) <= MAX_DIGITS:
                return int(value)
        elif isinstance(value, dict) and value.keys() == {"base", "exponent"}:
            base, exponent = value["base"], value["exponent"]
            whole = all(isinstance(v, int) and not isinstance(v, bool) for v in (base, exponent))
            if whole and 2 <= base <= 10 and 0 <= exponent <= 4 * MAX_DIGITS:
                power: int = base**exponent
                if len(str(power)) <= MAX_DIGITS:
                    return power
        raise self.fault(key, expected + f", of at most {MAX_DIGITS} digits", value)

    def share(self, key: str) -> Fraction:
        """A part above 0 and at most the whole, as two whole numbers: 0.33 is not a third."""
        expected = "{ numerator = 1, denominator = 3 }, above 0 and at most 1"
        value = self._take(key, expected)
        if isinstance(value, dict) and value.keys() == {"numerator", "denominator"}:
            n, d = value["numerator"], value["denominator"]
            whole = all(isinstance(v, int) and not isinstance(v, bool) for v in (n, d))
            if whole and 0 < n <= d <= 10**9:
                return Fraction(n, d)
        raise self.fault(key, expected, value)

    def shares(self, key: str) -> tuple[Fraction, ...]:
        """Several such parts, ascending; may be none."""
        expected = "a list of { numerator = 10, denominator = 13 }, each above 0 and at most 1"
        value = self._take(key, expected)
        if not isinstance(value, list):
            raise self.fault(key, expected, value)
        each = Keys(self.name, {str(n): v for n, v in enumerate(value)}, f"{self.prefix}{key}.")
        return tuple(sorted({each.share(n) for n in each.data}))

    def table(self, key: str) -> "Keys":
        value = self._take(key, "a table")
        if not isinstance(value, dict):
            raise self.fault(key, "a table", value)
        return Keys(self.name, value, f"{self.prefix}{key}.")

    def tables(self, key: str) -> "list[Keys]":
        """An array of tables; none where the key is absent."""
        if key not in self.data:
            return []
        value = self._take(key, f"tables ([[{key}]])")
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.fault(key, f"tables ([[{key}]])", value)
        return [Keys(self.name, v, f"{self.prefix}{key}[{n}].") for n, v in enumerate(value)]

    def none_left(self) -> None:
        if self.left:
            key = min(self.left)
            raise RegimeError(
                f"{self.name}: key {self.prefix}{key}: expected no such key, got {_shown(self.data[key])}",
                "unknown keys are refused, so that a misspelt one is not ignored; see docs/regimes.md",
            )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
