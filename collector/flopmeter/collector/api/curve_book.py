"""One run's sums, added up from its first hour on, so that any part of its curve costs the same. Pure.

Per price key (figures.PriceKey) the exact sums of all slots up to each of its hours. A price is linear within a key, so
that the figure at an hour is a price of as many keys as there are; prices are kept, since what is past does not change.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flopmeter.collector.books import GroupKey, Slot, Sums
from flopmeter.collector.figures import PriceKey, is_others
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.usage import GapReason

#: (FLOP, integer operations) of sums under one key.
Price = Callable[[PriceKey, tuple[int, ...]], tuple[Figure, Figure]]
_GAP = int(EvidenceClass.GAP)


class Hour(NamedTuple):
    """What of an hour is not in the sums by key. Times are device time."""

    whole_ns: int
    gaps_ns: tuple[tuple[GapReason, int], ...]
    back: int  # how many hours the longest of its slots began before


class _Column:
    """One price key."""

    __slots__ = ("hours", "priced", "sums")

    def __init__(self) -> None:
        self.hours: list[int] = []
        self.sums: list[tuple[int, ...]] = []  # of all up to that hour
        self.priced: dict[int, tuple[Figure, Figure]] = {}  # by index

    def cut(self, hour: int) -> None:
        at = bisect_left(self.hours, hour)
        del self.hours[at:], self.sums[at:]
        self.priced = {i: p for i, p in self.priced.items() if i < at}


class CurveBook:
    """Told of a run's rows, hour by hour; `cut` forgets those from an hour on, which are then told again."""

    def __init__(self) -> None:
        self._columns: dict[PriceKey, _Column] = {}
        self.hours: list[int] = []
        self._of: list[Hour] = []
        #: What is told of whole days (curve_gaps.py), until an hour of one changes.
        self.by_day: dict[int, Any] = {}

    @property
    def size(self) -> int:
        """Rows that are kept."""
        return sum(len(c.hours) for c in self._columns.values())

    def cut(self, hour: int) -> None:
        """Forget that hour and all behind it."""
        for column in self._columns.values():
            column.cut(hour)
        at = bisect_left(self.hours, hour)
        del self.hours[at:], self._of[at:]
        for day in [d for d in self.by_day if d >= hour // 24]:
            del self.by_day[day]

    def extend(self, rows: Iterable[tuple[Slot, str, GroupKey, Sums]]) -> int:
        """Add rows (slot, declared dtype, key, sums) of hours behind all that it has, in whatever order. How many."""
        by_hour: dict[int, dict[PriceKey, Sums]] = {}
        said: dict[int, tuple[int, dict[GapReason, int], int]] = {}
        count = 0
        for slot, dtype, key, sums in rows:
            count += 1
            price_key = PriceKey(key.model_no, key.evidence_class, key.measured, key.spread_ppm, dtype)
            into = by_hour.setdefault(slot.hour, {})
            old = into.get(price_key)
            into[price_key] = list(sums) if old is None else [a + b for a, b in zip(old, sums, strict=True)]
            whole, gaps, back = said.get(slot.hour, (0, {}, 0))
            if key.evidence_class == _GAP and not is_others(key.measured):
                reason = GapReason(key.gap_reason)
                gaps[reason] = gaps.get(reason, 0) + sums[0]
            said[slot.hour] = whole + sums[0], gaps, max(back, slot.back)
        for hour in sorted(by_hour):
            whole, gaps, back = said[hour]
            self.hours.append(hour)
            self.by_day.pop(hour // 24, None)
            self._of.append(Hour(whole, tuple(gaps.items()), back))
            for price_key, added in by_hour[hour].items():
                column = self._columns.setdefault(price_key, _Column())
                last = column.sums[-1] if column.sums else (0,) * len(added)
                column.hours.append(hour)
                column.sums.append(tuple(a + b for a, b in zip(last, added, strict=True)))
        return count

    def at(self, hour: int, price: Price) -> tuple[Figure, Figure]:
        """(FLOP, integer operations) of all slots up to and with that hour, priced whole."""
        flop, ops = ZERO, ZERO
        for key, column in self._columns.items():
            i = bisect_right(column.hours, hour) - 1
            if i < 0:
                continue
            priced = column.priced.get(i)
            if priced is None:
                priced = column.priced[i] = price(key, column.sums[i])
            flop += priced[0]
            ops += priced[1]
        return flop, ops

    def before(self, hour: int) -> int | None:
        """The last hour before that one that holds anything."""
        at = bisect_left(self.hours, hour)
        return self.hours[at - 1] if at else None

    def between(self, first: int, last: int) -> Iterable[tuple[int, Hour]]:
        """The hours of that stretch that hold anything, both ends with it."""
        a, b = bisect_left(self.hours, first), bisect_right(self.hours, last)
        return zip(self.hours[a:b], self._of[a:b], strict=True)


def chosen(hours: list[int], first: int, last: int, most: int) -> list[int]:
    """At most `most` of the hours from `first` to `last`, evenly, the first and the last of them always."""
    a, b = bisect_left(hours, first), bisect_right(hours, last)
    count = b - a
    if count <= most:
        return hours[a:b]
    return [hours[a + i * (count - 1) // (most - 1)] for i in range(most)]
