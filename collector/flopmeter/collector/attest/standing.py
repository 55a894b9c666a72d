"""Where a run stands under each law, with the event that says so. Pure.

`crossed` when even the lower bound meets the line, `below` when not even the upper does, else undetermined; on exact
integers, before anything is rounded (reference/attestation.md 1.4). Whatever is not `below` must have been told in the
log: an attestation that has no event to name is not made.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flopmeter.collector.law.events import AGENT_SILENT, PLAN_EXCEEDS, THRESHOLD_FORECAST
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import Verdict, meets, verdict
from flopmeter.collector.law.thresholds import threshold_key
from flopmeter.contract.flop import Figure

from .errors import AttestRefused
from .gather import Event
from .values import unix_ns_of


@dataclass(frozen=True, slots=True)
class Crossing:
    """One regime's answer. Times are Unix ns."""

    status: Verdict
    first_crossed_unix_ns: int | None
    known_unix_ns: int | None  # when it was known that the line will be met
    event: int | None  # number of the event that says so; None: below
    event_index: int | None  # its place in the evidence log
    due_unix_ns: int | None


@dataclass(frozen=True, slots=True)
class Told:
    """What the collector has said of a run."""

    run: str
    events: Sequence[Event]
    due: Mapping[str, int]  # regime -> the first thing due for it
    silent: Sequence[str]  # agents, hex, that hold some of the run and fell silent
    log_index: Mapping[int, int]  # of events


def crossing(r: Regime, counted: Figure, of_records: Figure, told: Told) -> Crossing:
    """`counted`: with what silent agents may have done; `of_records`: without, which is what events are raised by."""
    status = verdict(counted, r)
    own = [e for e in told.events if e.subject == told.run]
    known = [
        e.unix_ns
        for e in own
        if e.type in (THRESHOLD_FORECAST, PLAN_EXCEEDS) and json.loads(e.data).get("regime") == r.id
    ]
    event = None if status is Verdict.BELOW else _event(r, counted, of_records, told)
    crossed = _since(event) if event is not None and status is Verdict.CROSSED else None
    return Crossing(
        status,
        crossed,
        min(known, default=crossed),
        None if event is None else event.number,
        None if event is None else told.log_index[event.number],
        told.due.get(r.id),
    )


def _since(event: Event) -> int:
    """When the line was met: where records came late, before anybody could tell."""
    met = json.loads(event.data).get("met_since")
    return event.unix_ns if met is None else min(event.unix_ns, unix_ns_of(met))


def _event(r: Regime, counted: Figure, of_records: Figure, told: Told) -> Event:
    status = verdict(counted, r)
    estimate = Verdict.CROSSED if meets(counted.point, r) else Verdict.BELOW
    key = threshold_key(r, told.run, status, estimate)
    found = [e for e in told.events if e.key == key]
    if not found and verdict(of_records, r) is Verdict.BELOW:
        # The records alone are below; what makes it undetermined is that somebody fell silent, which is an event, too.
        found = [
            e for e in told.events if e.type == AGENT_SILENT and any(a in e.subject for a in told.silent)
        ]
    found = [e for e in found if e.number in told.log_index]
    if not found:
        raise AttestRefused(
            f"run {told.run}: expected an event in the log that says that {r.id} is {status.value}, found none",
            "start the collector on this store with the same --regimes, so that it judges the run; or see what is wrong "
            "with `flopmeter collector fsck`",
        )
    return found[-1]
