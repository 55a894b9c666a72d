"""A run's course as it is drawn: cumulative totals by hour, lines, purposes, gaps, what is ahead. Pure.

Hours are added up from what `runs show --json` prints by hour. What silent agents still owe is in the run's total and in no
hour: a curve ends below it by that much, and whoever draws it says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from flopmeter.collector.books import GroupKey, Slot, Sums
from flopmeter.contract.evidence_class import EvidenceClass

from .plots import Course, Line, Point, Span, Stand

_HOUR_S = 3600
_UNTAGGED_PART = 5  # grey, whatever else there is
_MAX_NAMED = 3  # regimes that a line's label names

Hours = Sequence[tuple[Slot, str, GroupKey, Sums]]


def course_of(
    run: Mapping[str, Any],
    hours: Hours,
    purposes: Iterable[Mapping[str, Any]],
    forecast: Mapping[str, Any] | None,
) -> Course | None:
    """`run`: `runs show --json` with its hours; `purposes`: of the report. None: nothing is in any hour."""
    points = points_of(run["hourly"], _second(run["last_seen"]))
    if not points:
        return None
    return Course(
        run["run"],
        points,
        ahead=_ahead(points[-1], forecast),
        confidence_percent=0 if forecast is None else forecast["confidence_percent"],
        lines=lines_of(run["thresholds"]),
        purposes=_purposes(purposes),
        gaps=(*_gaps(hours), *_silent(run["unreported"], points[-1].unix_s)),
        blanks=_blanks(hours),
    )


def points_of(hourly: Iterable[Mapping[str, Any]], last_s: int) -> tuple[Point, ...]:
    """Totals at the edges of slots, level where nothing is recorded. What bridges hours is drawn as if it had been even.

    An hour that is not over ends with `last_s`, when the run was last seen.
    """
    found: list[Point] = []
    totals = [0, 0, 0]
    for slot in hourly:
        end = _second(slot["hour"]) + _HOUR_S
        begin = end - _HOUR_S * int(slot["hours"])
        end = max(begin + 1, min(end, last_s))
        if not found or begin > found[-1].unix_s:
            found.append(Point(begin, *totals))
        totals = [n + int(slot["flop"][k]) for n, k in zip(totals, ("lower", "point", "upper"), strict=True)]
        if end <= found[-1].unix_s:  # a bridge that ends where an hour did
            found[-1] = Point(found[-1].unix_s, *totals)
        else:
            found.append(Point(end, *totals))
    return tuple(found)


def _ahead(last: Point, forecast: Mapping[str, Any] | None) -> Point | None:
    """What the forecast adds, on top of what was executed."""
    series = [] if forecast is None else [s for s in forecast["series"] if s["projected"] is not None]
    if forecast is None or not series:
        return None
    main = max(series, key=lambda s: int(s["total"]["point"]))
    grown = [max(0, int(main["projected"][k]) - int(main["total"][k])) for k in ("lower", "point", "upper")]
    until = _second(forecast["until"])
    if until <= last.unix_s:
        return None
    return Point(until, last.lower + grown[0], last.point + grown[1], last.upper + grown[2])


def lines_of(thresholds: Iterable[Mapping[str, Any]]) -> tuple[Line, ...]:
    """One line for each number, the lowest first, with the regimes that draw it; those in force first."""
    found: dict[int, tuple[list[str], list[str]]] = {}
    for t in thresholds:
        found.setdefault(int(t["threshold_flop"]), ([], []))[not t["in_force"]].append(t["regime"])
    return tuple(
        Line(
            flop,
            "; ".join(
                text
                for text in (_named(binding), f"not in force: {_named(others)}" if others else "")
                if text
            ),
            bool(binding),
        )
        for flop, (binding, others) in sorted(found.items())
    )


def _named(regimes: Sequence[str]) -> str:
    more = len(regimes) - _MAX_NAMED
    return ", ".join(regimes[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def stands_of(report: Mapping[str, Any]) -> tuple[Stand, ...]:
    """What each regime counts, against its line."""
    return tuple(
        Stand(
            t["regime"],
            lower=int(flop["lower"]),
            point=int(flop["point"]),
            upper=int(flop["upper"]),
            line=int(t["threshold_flop"]),
            verdict=t["verdict"],
            in_force=t["in_force"],
        )
        for t in report["thresholds"]
        for flop in (report["countable"][t["regime"]]["flop"],)
    )


def _purposes(purposes: Iterable[Mapping[str, Any]]) -> tuple[Span, ...]:
    """Spans by what was said of them; none where nothing was said."""
    found = list(purposes)
    if all(p["purpose"] == "untagged" for p in found):
        return ()
    spans = []
    for place, p in enumerate(found):
        part = _UNTAGGED_PART if p["purpose"] == "untagged" else place % _UNTAGGED_PART
        spans += [Span(_second(begin), _second(end), p["purpose"], part) for begin, end in p["spans"]]
    return tuple(sorted(spans, key=lambda s: (s.begin_s, s.end_s)))


def _gaps(hours: Hours) -> Iterable[Span]:
    """Hours in which some of the device time was not read."""
    unread = {slot for slot, _, key, sums in hours if key.evidence_class == EvidenceClass.GAP and sums[0]}
    for begin, end in _joined((slot.first, slot.hour + 1) for slot in unread):
        yield Span(begin * _HOUR_S, end * _HOUR_S, "some device time not read")


def _silent(unreported: Mapping[str, Any], last_s: int) -> Iterable[Span]:
    if unreported["since"] is not None and unreported["device_seconds"]:
        begin = _second(unreported["since"])
        nodes = len(unreported["nodes"])
        label = f"{nodes} silent agent{'' if nodes == 1 else 's'}"
        yield Span(begin, max(begin + 1, last_s), label)


def _blanks(hours: Hours) -> tuple[Span, ...]:
    """Between the first hour and the last: those of which nothing is recorded, or nothing that could be read."""
    read = {slot for slot, _, key, _ in hours if key.evidence_class != EvidenceClass.GAP}
    every = {slot for slot, _, _, _ in hours}
    if not every:
        return ()
    covered = _joined((slot.first, slot.hour + 1) for slot in read)
    first, last = min(s.first for s in every), max(s.hour for s in every) + 1
    edges = [first, *(edge for span in covered for edge in span), last]
    return tuple(
        Span(begin * _HOUR_S, end * _HOUR_S, "nothing recorded")
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
        if begin < end
    )


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that touch or overlap as one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((begin, end))
    return found


def _second(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())
