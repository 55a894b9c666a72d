"""Figures as filings ask for them: two significant figures, an order of magnitude, a range of months. Pure and exact.

Sources: C(2025) 5045 ("two significant figures", e.g. 2.3x10^25) and the Model Documentation Form of the Code of
Practice, as reference/regulations.md section 4 reads them. Rounding is of the exact decimal value, to the nearest, and
half to even: 2.25 becomes 2.2, 2.35 becomes 2.4. No float takes part.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction

#: Said wherever a rounded figure stands.
RULE = "rounded to two significant figures, to the nearest, a half to the even digit"
_TEN = Fraction(10)
#: Beyond this a number is written with a power of ten.
_PLAIN_FROM, _PLAIN_TO = -3, 4


@dataclass(frozen=True, slots=True)
class TwoFigures:
    """`digits` x 10^(exponent - 1), where digits is 10 … 99; 0 x 10^0 for nothing."""

    digits: int
    exponent: int

    @property
    def value(self) -> Fraction:
        """The rounded number itself, exactly."""
        return self.digits * _TEN ** (self.exponent - 1)

    @property
    def text(self) -> str:
        """2.3×10^25, as the guidelines write it; small numbers plainly: 16, 0.23, 2300."""
        if not self.digits:
            return "0"
        if _PLAIN_FROM <= self.exponent < _PLAIN_TO:
            return _plain(self.digits, self.exponent - 1)
        return f"{self.digits // 10}.{self.digits % 10}×10^{self.exponent}"


def two_figures(value: int | Fraction) -> TwoFigures:
    """`value` to two significant figures. Raises ValueError below 0: nothing that is filed is negative."""
    exact = Fraction(value)
    if exact < 0:
        raise ValueError(f"two_figures: expected a number from 0 on, got {value}")
    if not exact:
        return TwoFigures(0, 0)
    exponent = magnitude(exact)
    digits = round(exact / _TEN ** (exponent - 1))  # of a Fraction: to the nearest, a half to even
    return TwoFigures(10, exponent + 1) if digits == 100 else TwoFigures(digits, exponent)


def magnitude(value: int | Fraction) -> int:
    """The order of magnitude: the k of 10^k <= value < 10^(k+1). Raises ValueError for 0 and below."""
    exact = Fraction(value)
    if exact <= 0:
        raise ValueError(f"magnitude: expected a number above 0, got {value}")
    # Digits of the two parts say it within one.
    k = len(str(exact.numerator)) - len(str(exact.denominator))
    return k if _TEN**k <= exact else k - 1


def magnitude_text(value: int | Fraction) -> str:
    """From 10^24 to below 10^25: which says no more than the order of magnitude, and says it unmistakably."""
    if not value:
        return "0"
    k = magnitude(value)
    return f"from 10^{k} to below 10^{k + 1}"


#: (at most so many calendar months, as the form calls it); exactly 3 and 6 are still in the range that they end.
_RANGES = ((3, "1 to 3 months"), (6, "3 to 6 months"))


def months_range(begun_unix_ns: int, ended_unix_ns: int) -> str:
    """Which range of the form a time span is in: less than 1, 1 to 3, 3 to 6, more than 6 calendar months (UTC)."""
    begun, ended = _utc(begun_unix_ns), _utc(ended_unix_ns)
    if ended < _months_on(begun, 1):
        return "less than 1 month"
    return next((text for n, text in _RANGES if ended <= _months_on(begun, n)), "more than 6 months")


def _utc(unix_ns: int) -> datetime:
    return datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)


def _months_on(at: datetime, months: int) -> datetime:
    """The same day and hour so many months later; of a day that the month lacks its last one."""
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    for day in range(at.day, at.day - 4, -1):
        try:
            return at.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")


def decimal_text(value: Fraction, places: int = 1) -> str:
    """For people: a fixed number of decimals, half to even."""
    scaled = round(value * 10**places)
    return _plain(scaled, -places)


def _plain(digits: int, exponent: int) -> str:
    """Digits x 10^exponent without a power of ten."""
    if exponent >= 0:
        return str(digits * 10**exponent)
    text = str(digits).rjust(1 - exponent, "0")
    return f"{text[:exponent]}.{text[exponent:]}"
