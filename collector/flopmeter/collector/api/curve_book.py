"""One run's sums, added up from its first hour on, so that any part of its curve costs the same. Pure.

Per price key (figures.PriceKey) the exact sums of all slots up to the end of each day that holds any; of some days, the
fine ones, up to the end of each hour too. A price is linear within a key, so that the figure at an hour is a price of as
many keys as there are; prices are kept, since what is past does not change.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import add, sub
from typing import NamedTuple

from flopmeter.collector.books import Sums
from flopmeter.collector.figures import PriceKey, is_others
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.usage import GapReason

from .curve_gaps import Hour, Missing, missing_of

#: (FLOP, integer operations) of sums under one key.
Price = Callable[[PriceKey, tuple[int, ...]], tuple[Figure, Figure]]
#: (hour, back, gap reason, key, sums) of a row of the books.
Row = tuple[int, int, int, PriceKey, Sums]
Prefix = Mapping[PriceKey, tuple[int, ...]]

_GAP, _OTHERS = int(EvidenceClass.GAP), -1
_MOST_PRICES = 4_096
DAY = 24


class Day(NamedTuple):
    """What of a day is not in the sums by key."""

    day: int
    first: int  # hour that holds anything
    last: int
    rows: int  # of the store
    missing: tuple[Missing, ...]


class Split(NamedTuple):
    """Hours, as a book has them."""

    whole: list[tuple[int, int]]  # days, both ends with it
    part: dict[int, set[int]]  # by day


class _Fine:
    """A day's hours, each with the sums of all slots of that day up to it."""

    __slots__ = ("hours", "of", "sums", "upto")

    def __init__(self) -> None:
        self.hours: list[int] = []
        self.of: list[Hour] = []
        self.upto: list[dict[PriceKey, tuple[int, ...]]] = []
        self.sums = 0  # how many that are

    def append(self, of: Hour, added: Mapping[PriceKey, Sums]) -> None:
        whole = dict(self.upto[-1]) if self.upto else {}
        for key, sums in added.items():
            old = whole.get(key)
            whole[key] = tuple(sums) if old is None else tuple(map(add, old, sums))
        self.hours.append(of.hour)
        self.of.append(of)
        self.upto.append(whole)
        self.sums += len(whole)

    def cut(self, hour: int) -> None:
        at = bisect_left(self.hours, hour)
        self.sums -= sum(map(len, self.upto[at:]))
        del self.hours[at:], self.of[at:], self.upto[at:]


class _Column:
    """One price key's sums, up to each day that has any of it."""

    __slots__ = ("days", "sums")

    def __init__(self) -> None:
        self.days: list[int] = []
        self.sums: list[tuple[int, ...]] = []


class CurveBook:
    """Told of a run's rows by hours; `cut` forgets those from an hour on, which are then told again.

    The last day is always fine, so that what comes next makes nothing but its own hour told again.
    """

    def __init__(self) -> None:
        self._columns: dict[PriceKey, _Column] = {}
        self._days: list[int] = []
        self._of: list[Day] = []
        self._fine: dict[int, _Fine] = {}
        self._priced: dict[int, tuple[Figure, Figure]] = {}
        self._priced_by: object = None

    @property
    def size(self) -> int:
        """Sums by key that are kept."""
        return sum(len(c.days) for c in self._columns.values()) + self.fine_size

    @property
    def fine_size(self) -> int:
        return sum(f.sums for f in self._fine.values())

    @property
    def ends(self) -> tuple[int, int] | None:
        """The first and the last hour that hold anything."""
        return (self._of[0].first, self._of[-1].last) if self._of else None

    # ---- told -----------------------------------------------------------------------------------------------

    def cut(self, hour: int) -> int:
        """Forget that hour and all behind it. From which hour on it is to be told: where the day is not fine, all of it."""
        day = hour // DAY
        fine = self._fine.get(day)
        begin = hour if fine is not None else day * DAY
        if not self._days or self._days[-1] < day:
            return begin
        self._forget(day)
        self._priced = {h: p for h, p in self._priced.items() if h < begin}
        if fine is not None:
            fine.cut(hour)
            if fine.hours:
                self._close(day, fine)
        return begin

    def extend(self, rows: Iterable[Row]) -> int:
        """Add rows of hours behind all that it has, in whatever order. How many. Their days are fine."""
        count = 0
        for day, hours in groupby(_by_hour(rows), key=lambda h: h[0].hour // DAY):
            fine = self._fine.get(day) or _Fine()
            if self._days and self._days[-1] == day:
                self._forget(day)
            for of, added in hours:
                count += of.rows
                fine.append(of, added)
            self._close(day, fine)
        return count

    def refine(self, rows: Iterable[Row]) -> int:
        """Make days fine that are told already: all rows of each. How many."""
        count = 0
        for day, hours in groupby(_by_hour(rows), key=lambda h: h[0].hour // DAY):
            fine = self._fine[day] = _Fine()
            for of, added in hours:
                count += of.rows
                fine.append(of, added)
        return count

    def coarsen(self, most: int = 0) -> None:
        """Of fine days keep the newest, of as many sums as `most`; the last always."""
        kept: dict[int, _Fine] = {}
        for day in sorted(self._fine, reverse=True):
            most -= self._fine[day].sums
            if kept and most < 0:
                break
            kept[day] = self._fine[day]
        self._fine = kept

    def _close(self, day: int, fine: _Fine) -> None:
        before = self._of[-1].last if self._of else None
        rows = sum(of.rows for of in fine.of)
        self._days.append(day)
        self._of.append(Day(day, fine.hours[0], fine.hours[-1], rows, missing_of(fine.of, before)))
        self._fine[day] = fine
        for key, sums in fine.upto[-1].items():
            column = self._columns.setdefault(key, _Column())
            column.sums.append(tuple(map(add, column.sums[-1], sums)) if column.sums else sums)
            column.days.append(day)

    def _forget(self, day: int) -> None:
        at = bisect_left(self._days, day)
        for late in self._days[at:]:
            self._fine.pop(late, None)
        del self._days[at:], self._of[at:]
        for column in self._columns.values():
            at = bisect_left(column.days, day)
            del column.days[at:], column.sums[at:]

    # ---- asked ----------------------------------------------------------------------------------------------

    def days(self, first: int, last: int) -> list[Day]:
        """Those that hold anything of the hours from `first` to `last`, both with it."""
        a, b = bisect_left(self._days, first // DAY), bisect_right(self._days, last // DAY)
        return [d for d in self._of[a:b] if d.first <= last and d.last >= first]

    def is_fine(self, day: int) -> bool:
        return day in self._fine

    def hours(self, first: int, last: int) -> list[int]:
        """Those that hold anything, both ends with it. The days are fine."""
        return [h for d in self.days(first, last) for h in self._fine[d.day].hours if first <= h <= last]

    def missing(self, first: int, last: int) -> Iterator[Missing]:
        """In order of time. Where `first` or `last` are within a day, that is a fine one."""
        for d in self.days(first, last):
            if first <= d.first and d.last <= last:
                yield from d.missing
                continue
            fine = self._fine[d.day]
            a, b = bisect_left(fine.hours, first), bisect_right(fine.hours, last)
            before = fine.hours[a - 1] if a else self._last_before(d.day)
            yield from missing_of(fine.of[a:b], before)

    def at(self, hour: int, price: Price, by: object = None) -> tuple[Figure, Figure]:
        """(FLOP, integer operations) of all slots up to and with that hour, priced whole. Where it is within a day, that
        is a fine one. `by`: what prices are made by; those of another are forgotten.
        """
        if by is not self._priced_by or len(self._priced) > _MOST_PRICES:
            self._priced, self._priced_by = {}, by
        found = self._priced.get(hour)
        if found is None:
            flop, ops = ZERO, ZERO
            for key, sums in self._upto(hour).items():
                f, i = price(key, sums)
                flop += f
                ops += i
            found = self._priced[hour] = flop, ops
        return found

    def split(self, hours: Iterable[int]) -> Split:
        """Those hours as stretches of whole days, and as parts of others."""
        wanted, found = set(hours), Split([], {})
        before: int | None = None
        for of in self._of:
            if wanted.issuperset(range(of.first, of.last + 1)):
                if found.whole and found.whole[-1][1] == before:
                    found.whole[-1] = (found.whole[-1][0], of.day)
                else:
                    found.whole.append((of.day, of.day))
            elif part := wanted.intersection(range(of.first, of.last + 1)):
                found.part[of.day] = part
            before = of.day
        return found

    def sums_of(self, hours: Split) -> dict[PriceKey, Sums]:
        """What those hours hold, each once. The days that they are parts of are fine ones."""
        stretches = [(self._by_days(last), self._by_days(first - 1)) for first, last in hours.whole]
        for day, wanted in hours.part.items():
            fine = self._fine[day]
            stretches += [
                (fine.upto[i], fine.upto[i - 1] if i else {}) for i, h in enumerate(fine.hours) if h in wanted
            ]
        found: dict[PriceKey, Sums] = {}
        for after, before in stretches:
            for key, sums in after.items():
                less = before.get(key)
                added = sums if less is None else map(sub, sums, less)
                into = found.get(key)
                found[key] = list(added) if into is None else list(map(add, into, added))
        return found

    def _last_before(self, day: int) -> int | None:
        at = bisect_left(self._days, day)
        return self._of[at - 1].last if at else None

    def _upto(self, hour: int) -> Prefix:
        """The sums of all slots up to and with that hour."""
        day = hour // DAY
        at = bisect_right(self._days, day) - 1
        if at < 0:
            return {}
        of = self._of[at]
        if of.last <= hour:
            return self._by_days(of.day)
        whole = self._by_days(of.day - 1)
        fine = self._fine[of.day]
        i = bisect_right(fine.hours, hour) - 1
        for key, sums in fine.upto[i].items() if i >= 0 else ():
            old = whole.get(key)
            whole[key] = sums if old is None else tuple(map(add, old, sums))
        return whole

    def _by_days(self, day: int) -> dict[PriceKey, tuple[int, ...]]:
        found = {}
        for key, column in self._columns.items():
            i = bisect_right(column.days, day) - 1
            if i >= 0:
                found[key] = column.sums[i]
        return found


def _by_hour(rows: Iterable[Row]) -> Iterator[tuple[Hour, dict[PriceKey, Sums]]]:
    """The hours in order, each with its sums."""
    sums_of: dict[int, dict[PriceKey, Sums]] = {}
    gaps: dict[int, dict[int, int]] = {}
    wholes: dict[int, int] = {}
    backs: dict[int, int] = {}
    counts: dict[int, int] = {}
    kinds: dict[PriceKey, int] = {}
    for hour, back, reason, key, sums in rows:
        into = sums_of.get(hour)
        if into is None:
            into = sums_of[hour] = {}
            counts[hour] = 0
        counts[hour] += 1
        old = into.get(key)
        into[key] = sums if old is None else list(map(add, old, sums))
        if back > backs.get(hour, 0):
            backs[hour] = back
        kind = kinds.get(key)
        if kind is None:
            kind = kinds[key] = _OTHERS if is_others(key.measured) else key.evidence_class
        if kind != _OTHERS:
            wholes[hour] = wholes.get(hour, 0) + sums[0]
            if kind == _GAP:
                of = gaps.setdefault(hour, {})
                of[reason] = of.get(reason, 0) + sums[0]
    for hour in sorted(sums_of):
        said = tuple((GapReason(r), ns) for r, ns in gaps.get(hour, {}).items())
        yield Hour(hour, wholes.get(hour, 0), said, backs.get(hour, 0), counts[hour]), sums_of[hour]


def thinned(hours: list[int], most: int) -> list[int]:
    """At most `most` of them, evenly, the first and the last always."""
    count = len(hours)
    return hours if count <= most else [hours[i * (count - 1) // (most - 1)] for i in range(most)]
