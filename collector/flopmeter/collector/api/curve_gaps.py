"""What is missing in a run's curve: hours not all observed, hours without any record, records that bridge hours. Pure.

Told by the day and kept by the day, so that a year's costs what its days do, not what its hours do.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.spelling import time_text

from .curve_book import CurveBook

MOST_GAPS = 200
_SECOND_NS = 1_000_000_000
_BRIDGE_HOURS = 2  # a window of an hour lies over the edge of one, which is no bridge to speak of
GAP, NOTHING, BRIDGE = "gap", "nothing", "bridge"


class Missing(NamedTuple):
    """A stretch of hours, both ends with it."""

    first: int
    last: int
    kind: str
    reasons: Mapping[str, int]  # ns of device time, of a gap


def gaps(book: CurveBook, since: int, until: int) -> list[dict[str, Any]]:
    """`gaps` of a curve from one hour to another: the longest where there are many, in order of time."""
    found = list(_joined(_told(book, since, until)))
    kept = sorted(found, key=lambda g: (g.first - g.last, g.first))[:MOST_GAPS]
    return [
        {
            "from": time_text(g.first * HOUR_NS),
            "to": time_text((g.last + 1) * HOUR_NS),
            "kind": g.kind,
            "device_seconds": sum(g.reasons.values()) / _SECOND_NS,
            "reasons": {name: ns / _SECOND_NS for name, ns in g.reasons.items()},
        }
        for g in sorted(kept, key=lambda g: (g.first, g.last, g.kind))
    ]


def _told(book: CurveBook, since: int, until: int) -> Iterator[Missing]:
    for day in range(since // 24, until // 24 + 1):
        first, last = day * 24, day * 24 + 23
        if first <= since or last > until:
            yield from _of_hours(book, max(first, since), min(last, until), begins=first <= since)
            continue
        if day not in book.by_day:
            book.by_day[day] = list(_joined(_of_hours(book, first, last, begins=False)))
        yield from book.by_day[day]


def _of_hours(book: CurveBook, first: int, last: int, *, begins: bool) -> Iterator[Missing]:
    """`begins`: what was before the first hour is not asked for."""
    before = None if begins else book.before(first)
    for hour, of in book.between(first, last):
        if before is not None and hour - of.back > before + 1:
            yield Missing(before + 1, hour - of.back - 1, NOTHING, {})
        before = hour
        if of.back >= _BRIDGE_HOURS:
            yield Missing(hour - of.back, hour, BRIDGE, {})
        if of.gaps_ns:
            yield Missing(hour - of.back, hour, GAP, {reason.label: ns for reason, ns in of.gaps_ns})


def _joined(found: Iterable[Missing]) -> Iterator[Missing]:
    """Gaps for the same reasons, one behind the other, as one."""
    last: Missing | None = None
    for g in found:
        if (
            last is not None
            and (last.kind, g.kind) == (GAP, GAP)
            and g.first <= last.last + 1
            and last.reasons.keys() == g.reasons.keys()
        ):
            last = Missing(
                last.first, g.last, GAP, {name: last.reasons[name] + g.reasons[name] for name in g.reasons}
            )
            continue
        if last is not None:
            yield last
        last = g
    if last is not None:
        yield last
