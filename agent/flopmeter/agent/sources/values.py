"""Which numbers a driver can have meant: blanks, NaN and the impossible become "not read", never zero.

A number that fails is a failed read of that value alone (docs/trace-format.md, reference/metering.md 2.2).
A value that is no number at all raises TypeError: then the input is not what it says it is.
"""

from collections.abc import Mapping

from flopmeter.agent.reading import MAX_PERCENT
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ

#: DCGM's int64 blanks start here: blank, not found, not supported, not permissioned (metering.md 2.2).
INT64_BLANK = 9_223_372_036_854_775_792
#: DCGM's float blank and the three that follow it. Compared exactly: real cycle totals pass 1.4e14.
FIRST_BLANK = 140_737_488_355_328
FP64_BLANKS = frozenset(FIRST_BLANK + i for i in range(4))
#: DCGM's int32 blanks, which exporters print for fields such as memory (dcgm_structs.h: 0x7ffffff0 …).
INT32_BLANKS = frozenset(0x7FFF_FFF0 + i for i in range(4))
#: NVML's NVML_VALUE_NOT_AVAILABLE in 32 bits: -1 without its sign.
UINT32_BLANK = 0xFFFF_FFFF
#: Far above any GPU (1.4 kW), as interval.MAX_DEVICE_WATTS.
MOST_MW = 10_000_000


def counter(value: object) -> int | None:
    """A since-boot counter or an amount: a whole number from 0; a double is cut to its whole part."""
    if type(value) is int or type(value) is float:
        # NaN fails both comparisons, infinity the second.
        if 0 <= value < INT64_BLANK and value not in FP64_BLANKS:
            return int(value)
        return None
    if value is None:
        return None
    raise TypeError(f"expected a number, got {type(value).__name__}")


def percent(value: object) -> float | None:
    """A percentage from 0 to 100.5 (rounding of the driver), else None."""
    if type(value) is int or type(value) is float:
        return float(value) if 0 <= value <= MAX_PERCENT else None
    if value is None:
        return None
    raise TypeError(f"expected a number, got {type(value).__name__}")


def clock_mhz(value: object) -> float | None:
    """A running SM clock. 0 is refused: cycles priced with it would make work look like idleness."""
    if type(value) is int or type(value) is float:
        return float(value) if 0 < value <= MAX_SM_CLOCK_MHZ else None
    if value is None:
        return None
    raise TypeError(f"expected a number, got {type(value).__name__}")


def power_mw(value: object) -> int | None:
    """A power draw that a GPU can have; NVML's and DCGM's blanks are far above it."""
    draw = counter(value)
    return draw if draw is not None and draw <= MOST_MW else None


def counters(values: Mapping[int, float]) -> dict[int, int]:
    """Those of `values` that are counters, whole; what is not read is not there."""
    if values:
        numbers = values.values()
        # One look at all of them: NaN makes the sum NaN, and infinity is past the blanks.
        total = sum(numbers)
        most = max(numbers)
        if (
            total == total  # noqa: PLR0124
            and min(numbers) >= 0
            and (most < FIRST_BLANK or (most < INT64_BLANK and FP64_BLANKS.isdisjoint(numbers)))
        ):
            return dict(zip(values, map(int, numbers), strict=True))
    return {i: count for i, v in values.items() if (count := counter(v)) is not None}


def percents(values: dict[int, float]) -> dict[int, float]:
    """Those of `values` that are percentages."""
    if values:
        numbers = values.values()
        total = sum(numbers)
        if total == total and min(numbers) >= 0 and max(numbers) <= MAX_PERCENT:  # noqa: PLR0124
            return values
    return {i: share for i, v in values.items() if (share := percent(v)) is not None}


def amounts(values: Mapping[int, float]) -> dict[int, float]:
    """Those of `values` that are rates: finite, from 0."""
    return {i: v for i, v in values.items() if 0 <= v < INT64_BLANK and v not in FP64_BLANKS}
