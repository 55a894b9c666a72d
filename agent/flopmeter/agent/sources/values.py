"""Which numbers a driver can have meant: blanks, NaN and the impossible become "not read", never zero.

A number that fails is a failed read of that value alone (docs/trace-format.md, reference/metering.md 2.2).
A value that is no number at all raises TypeError: then the input is not what it says it is.
"""

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


Doubles = tuple[float, ...]


def counters(ids: tuple[int, ...], values: Doubles) -> dict[int, int]:
    """Those of a driver's doubles that are counters, whole, by id; what is not read is not there."""
    if _between(values, INT64_BLANK):
        whole = tuple(map(int, values))
        if max(whole) < FIRST_BLANK or FP64_BLANKS.isdisjoint(whole):
            return dict(zip(ids, whole, strict=True))
    pairs = zip(ids, values, strict=True)
    return {i: count for i, v in pairs if (count := counter(v)) is not None}


def percents(ids: tuple[int, ...], values: Doubles) -> dict[int, float]:
    """Those of a driver's doubles that are percentages, by id."""
    pairs = zip(ids, values, strict=True)
    if _between(values, MAX_PERCENT):
        return dict(pairs)
    return {i: share for i, v in pairs if (share := percent(v)) is not None}


def amounts(ids: tuple[int, ...], values: Doubles) -> dict[int, float]:
    """Those of a driver's doubles that are rates, by id: finite, from 0."""
    pairs = zip(ids, values, strict=True)
    if _between(values, FIRST_BLANK - 1):
        return dict(pairs)
    return {i: v for i, v in pairs if 0 <= v < INT64_BLANK and v not in FP64_BLANKS}


def _between(values: Doubles, most: float) -> bool:
    """All of them from 0 to `most`: one look instead of one at each. A NaN makes the sum NaN."""
    return bool(values) and sum(values) >= 0 and min(values) >= 0 and max(values) <= most
