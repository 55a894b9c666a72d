"""Exact quantities from what people write: whole and decimal numbers, FLOP/s, shares, instants. Pure.

Everything becomes a Fraction or an int: `1e25` is not 10^25 in binary, and what is added up is added exactly.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from flopmeter.collector.errors import EstimateError

#: A comma parts thousands and nothing else: what some write 1,5 is no 15.
_NUMBER = re.compile(r"((\d+(_\d+)*|[1-9]\d{0,2}(,\d{3})+)(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\Z", re.ASCII)
_RATE = re.compile(r"(?P<number>\S+?)\s*(?P<prefix>[GTPE]?)(?:FLOP/s|FLOPS|FLOPs|flops)?\Z")
_PREFIX = {"": 1, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
#: No number of an estimate has more digits: 10^40 FLOP is far past anything that could be computed.
MAX_DIGITS = 40
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def number(what: str, text: str, *, hint: str = "", such_as: str = "8e9") -> Fraction:
    """A number above 0, exact: 8e9, 8_030_000_000, 0.4. Raises EstimateError naming `what`, with an example of it."""
    shown = text if len(text) <= 60 else text[:57] + "..."
    bare = text.strip()
    if len(bare) <= MAX_DIGITS + 20 and _NUMBER.match(bare):
        value = _exact(bare)
        if value is not None and 0 < value < 10**MAX_DIGITS:
            return value
    raise EstimateError(f"{what}: expected a number above 0, such as {such_as}, got {shown!r}", hint)


def _exact(text: str) -> Fraction | None:
    try:
        _, _, exponent = text.lower().partition("e")
        if exponent and abs(int(exponent)) > MAX_DIGITS:
            return None
        return Fraction(text.replace("_", "").replace(",", ""))
    except ValueError:  # 1e+-3
        return None


def whole(what: str, text: str, *, hint: str = "", such_as: str = "8e9") -> int:
    """A whole number above 0; 8.03e9 is one. Raises EstimateError."""
    value = number(what, text, hint=hint, such_as=such_as)
    if value.denominator != 1:
        raise EstimateError(f"{what}: expected a whole number, got {text!r}", hint)
    return value.numerator


def rate(what: str, text: str) -> Fraction:
    """FLOP per second: 989e12, 989T, 989 TFLOP/s. Raises EstimateError."""
    hint = "write FLOP/s with its unit: 989e12, 989T or '989 TFLOP/s'"
    found = _RATE.match(text.strip())
    if found is None:
        raise EstimateError(f"{what}: expected FLOP/s, got {text!r}", hint)
    value = number(what, found["number"], hint=hint, such_as="989e12") * _PREFIX[found["prefix"]]
    if value < 10**9:
        raise EstimateError(
            f"{what}: expected a peak in FLOP/s, got {text!r}, under 10^9: is a unit missing?", hint
        )
    return value


def share(what: str, text: str) -> Fraction:
    """A share above 0: 0.4 or 40%. Whether it may pass 1 is the caller's rule. Raises EstimateError."""
    bare = text.strip()
    hint = "write 0.4 or 40%"
    if bare.endswith("%"):
        return number(what, bare[:-1].strip(), hint=hint, such_as="40") / 100
    return number(what, bare, hint=hint, such_as="0.4")


def instant(what: str, text: str) -> int:
    """An instant as unix ns, with its offset from UTC said. Raises EstimateError."""
    hint = "write 2026-11-20T00:00:00Z; the offset must be there, since hours count"
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError as e:
        raise EstimateError(f"{what}: expected a date and time, got {text!r}", hint) from e
    if when.tzinfo is None:
        raise EstimateError(f"{what}: expected a time with its offset from UTC, got {text!r}", hint)
    try:
        return (when.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1) * 1000
    except OverflowError as e:
        raise EstimateError(f"{what}: expected a time that exists in UTC, got {text!r}", hint) from e


def rounded(value: Fraction) -> int:
    """The nearest whole number, halves up."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def figures(value: int, digits: int, way: Callable[[Fraction], int] = rounded) -> str:
    """`value` to so many significant figures: 2.3×10^25 (reference/regulations.md 4). `way`: math.floor of a lower bound,
    math.ceil of an upper one; else halves up.
    """
    if value <= 0:
        return "0"
    exponent = len(str(value)) - 1
    cut = exponent + 1 - digits
    lead = way(Fraction(value, 10**cut)) if cut > 0 else value * 10**-cut
    if len(str(lead)) > digits:  # 9.96 became 10.0
        lead //= 10
        exponent += 1
    text = str(lead)
    return f"{text[0]}.{text[1:]}×10^{exponent}" if digits > 1 else f"{text}×10^{exponent}"


def figures_value(value: int, digits: int) -> int:
    """The number that `figures` prints."""
    cut = len(str(value)) - digits
    return rounded(Fraction(value, 10**cut)) * 10**cut if cut > 0 else value
