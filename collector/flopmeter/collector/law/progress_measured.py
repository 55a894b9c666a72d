"""The counters over the hours that claims cover, and the event where the two cannot both be true. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopmeter.collector.books import HourKey, Sums
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.w_table import WTable

from .events import METHOD_DISAGREES, NewEvent
from .progress import ClaimHour, ClaimKey, Compared, Side, Until, compared, progress_key, side_of

#: An event rests on so many hours at most, the latest that are over: what a commit must read stays small.
COMPARED_HOURS = 24
#: … and on none that is younger: records of other nodes may still be on their way.
GRACE_HOURS = 1
_HOUR_NS = 3_600_000_000_000
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Beside:
    """One run's claims beside its counters."""

    claims: Compared
    measured: Figure  # FLOP executed in the same hours
    model_ns: Mapping[int, int]  # device time in them, by model_no

    @property
    def device_ns(self) -> int:
        return sum(self.model_ns.values())


def beside(
    rows: Mapping[ClaimKey, ClaimHour],
    hours: Iterable[tuple[HourKey, str, Sums]],
    models: Mapping[int, Model],
    table: WTable,
) -> Beside:
    """`hours`: the run's books by hour, with each workload's declared dtype; the sums of a key are added."""
    kept = list(hours)
    until = {
        (key.workload_no, key.hour): until_of(
            key.hour, ((k, d, s) for k, d, s in kept if k.group.workload_no == key.workload_no), models, table
        )
        for key, row in rows.items()
        if row.opening_flop
    }
    claims = compared(rows, until)
    wanted = set(claims.hours)
    # Claims stand in the hour of their window's end, whatever it bridges; so here.
    tally = Tally()
    for (slot, key), dtype, sums in kept:
        if slot.hour in wanted:
            tally.add(key, dtype, sums)
    return beside_of(claims, tally, models, table)


def beside_of(claims: Compared, tally: Tally, models: Mapping[int, Model], table: WTable) -> Beside:
    """`tally`: the run's books over the hours of `claims`."""
    model_ns: dict[int, int] = {}
    flop = ZERO
    for group in tally.priced(models, table):
        model_ns[group.key.model_no] = model_ns.get(group.key.model_no, 0) + group.sums[0]
        flop += group.flop
    return Beside(claims, flop, model_ns)


def until_of(
    hour: int, hours: Iterable[tuple[HourKey, str, Sums]], models: Mapping[int, Model], table: WTable
) -> Until:
    """What the counters say of a workload, whose books by hour these are, up to that hour's end."""
    tally, first = Tally(), hour
    for (slot, group), dtype, sums in hours:
        if slot.hour <= hour:
            tally.add(group, dtype, sums)
            first = min(first, slot.hour)
    return Until(first, tally.figures(models, table)[0].upper)


def span_before(newest_hour: int) -> range:
    """The hours that an event may rest on when a claim of `newest_hour` comes."""
    end = newest_hour - GRACE_HOURS
    return range(end - COMPARED_HOURS, end)


def disagreement(found: Beside, margin_percent: int) -> Side | None:
    """None also where nothing can be compared: no priced claim, or nothing metered."""
    if found.claims.empty or not found.device_ns or not margin_percent:
        return None
    return side_of(found.measured, found.claims.declared_flop, margin_percent)


def progress_event(
    run: str,
    side: Side,
    found: Beside,
    margin_percent: int,
    w_table: str,
    *,
    span: range,
    at_unix_ns: int,
    position: int,
) -> NewEvent:
    """What `run` claims and what the counters say over the hours of `span` that have claims."""
    return NewEvent(
        key=progress_key(run, side),
        type=METHOD_DISAGREES,
        subject=run,
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": f"Run {run}: {_SAID[side]} No figure that the counters allow is within {margin_percent} % of what "
            "the training code claims for the same hours. Look for " + _LOOK_FOR[side],
            "run": run,
            "method": "progress",
            "side": side.value,
            "margin_percent": margin_percent,
            "from": time_text(span.start * _HOUR_NS),
            "to": time_text(span.stop * _HOUR_NS),
            "measured": figure_json(found.measured),
            "device_seconds": found.device_ns // _SECOND_NS,
            **claims_json(found.claims),
            "w_table": w_table,
        },
    )


_SAID = {
    Side.MORE: "the counters saw more work than the training code claims.",
    Side.LESS: "the training code claims more work than the counters can have seen.",
}
_LOOK_FOR = {
    Side.MORE: "recomputation, other work in the same run, or claims that speak for a part of its processes only.",
    Side.LESS: "tokens or parameters that are counted twice, jobs or nodes that are missing from the run, or agents whose "
    "records have not come.",
}


def claims_json(claims: Compared) -> dict[str, Any]:
    """What claims come to, as events and reports say it."""
    return {
        "declared_flop": str(claims.declared_flop),
        "tokens": str(claims.tokens),
        "parameters": str(claims.parameters),
        "ranks": claims.ranks,
        "hours": len(claims.hours),
        "hours_without_formula": claims.unpriced_hours,
        "restarts_at_a_checkpoint": claims.falls,
        "opening_left_out": claims.opening_left_out,
    }
