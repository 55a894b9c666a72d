"""What is missing in a run's curve: hours not all observed, hours without any record, records that bridge hours. Pure.

Told and kept by the day, so that a year's costs what its days do, not what its hours do.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.spelling import time_text
from flopmeter.contract.usage import GapReason

MOST_GAPS = 200
_SECOND_NS = 1_000_000_000
_DIGITS = 10**6
_BRIDGE_HOURS = 2  # a window of an hour lies over the edge of one, which is no bridge to speak of
GAP, NOTHING, BRIDGE = "gap", "nothing", "bridge"


class Hour(NamedTuple):
    """What of an hour is not in the sums by key."""

    hour: int
    whole_ns: int  # of device time
    gaps_ns: tuple[tuple[GapReason, int], ...]  # of that
    back: int  # how many hours the longest of its slots began before
    rows: int  # of the store that it is made of


class Missing(NamedTuple):
    """A stretch of hours, both ends with it."""

    first: int
    last: int
    kind: str
    reasons: Mapping[str, int]  # ns of device time, of a gap
    whole_ns: int = 0  # of device time in these hours, of a gap


def gaps_json(found: Iterable[Missing]) -> list[dict[str, Any]]:
    """`gaps` of a curve, of what is told in order of time: the longest where there are many, in order of time."""
    kept = sorted(_joined(found), key=lambda g: (g.first - g.last, g.first))[:MOST_GAPS]
    return [
        {
            "from": time_text(g.first * HOUR_NS),
            "to": time_text((g.last + 1) * HOUR_NS),
            "kind": g.kind,
            "device_seconds": sum(g.reasons.values()) / _SECOND_NS,
            "reasons": {name: ns / _SECOND_NS for name, ns in g.reasons.items()},
            "share": sum(g.reasons.values()) * _DIGITS // g.whole_ns / _DIGITS if g.whole_ns else None,
        }
        for g in sorted(kept, key=lambda g: (g.first, g.last, g.kind))
    ]


def missing_of(hours: Iterable[Hour], before: int | None) -> tuple[Missing, ...]:
    """What is missing in those hours and right before them. `before`: the last hour before them that holds anything."""
    return tuple(_joined(_told(hours, before)))


def _told(hours: Iterable[Hour], before: int | None) -> Iterator[Missing]:
    for of in hours:
        first = of.hour - of.back
        if before is not None and first > before + 1:
            yield Missing(before + 1, first - 1, NOTHING, {})
        before = of.hour
        if of.back >= _BRIDGE_HOURS:
            yield Missing(first, of.hour, BRIDGE, {})
        if of.gaps_ns:
            reasons = {reason.label: ns for reason, ns in of.gaps_ns}
            yield Missing(first, of.hour, GAP, reasons, of.whole_ns)


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
            reasons = {name: last.reasons[name] + g.reasons[name] for name in g.reasons}
            last = Missing(last.first, g.last, GAP, reasons, last.whole_ns + g.whole_ns)
            continue
        if last is not None:
            yield last
        last = g
    if last is not None:
        yield last
