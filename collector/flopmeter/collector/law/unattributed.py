"""Busy GPUs that nobody owned: an event when a node's unattributed time of one UTC day passes a limit. Pure.

Unattributed time is in the books like any (reference/metering.md 5.2: a row, never dropped, and an alarm). It stands
per node there, since an unattributed workload's scope is its node (ingest.decide.scope_of), and per slot, so that a
day's sum follows from the books alone, and fsck derives the event again. Gaps do not count: nobody saw the GPU busy.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flopmeter.collector.books import HOUR_NS, GroupKey, HourKey, Slot, Sums
from flopmeter.collector.figures import Model, Tally, is_others
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.w_table import WTable

from .events import USAGE_UNATTRIBUTED, NewEvent

#: How the setting is called where its value is noted in the store.
LIMIT = "unattributed-minutes"
HOURS_A_DAY = 24
_SECOND_NS = 1_000_000_000
_MINUTE_NS = 60 * _SECOND_NS


def counts(key: GroupKey) -> bool:
    """Whether a group of an unattributed workload is time in which the GPU was seen busy."""
    return key.evidence_class != EvidenceClass.GAP and not is_others(key.measured)


def day_of(slot: Slot) -> int:
    """Days since 1970 of a slot of the books: what bridges several is told of on the last."""
    return slot.hour // HOURS_A_DAY


def node_of(scope: str, job: str) -> str:
    """What an unattributed workload is called: cluster/node. Agents name no job with it; one that does stands apart."""
    return f"{scope}/{job}" if job else scope


def unattributed_key(node: str, day: int) -> str:
    """Once per node and UTC day."""
    return f"unattributed:{day_text(day)}:{node}"


def day_text(day: int) -> str:
    return time_text(day * HOURS_A_DAY * HOUR_NS)[:10]


class Busy(NamedTuple):
    """A node's unattributed time of one day."""

    time_ns: int = 0
    earlier_ns: int = (
        0  # of it, in bridges that began on an earlier day: how much of that was then is not known
    )
    flop: Figure = ZERO


def figures(rows: Iterable[tuple[HourKey, Sums]], models: Mapping[int, Model], table: WTable) -> Busy:
    """What the groups that count come to; `rows` of one day."""
    tally, time_ns, earlier_ns = Tally(), 0, 0
    for (slot, key), sums in rows:
        if counts(key):
            time_ns += sums[0]
            earlier_ns += sums[0] if slot.first // HOURS_A_DAY < day_of(slot) else 0
            tally.add(key, "", sums)
    return Busy(time_ns, earlier_ns, tally.figures(models, table)[0])


def unattributed_event(
    node: str,
    day: int,
    found: Busy,
    limit_minutes: int,
    w_table: str,
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
) -> NewEvent:
    """`found`: the day's time and FLOP of `node` (cluster/node) with the record at `position`."""
    hours = found.time_ns / HOUR_NS
    bridged = ""
    if found.earlier_ns:
        bridged = f", {found.earlier_ns / HOUR_NS:.2f} of it in windows that began on an earlier day,"
    return NewEvent(
        key=unattributed_key(node, day),
        type=USAGE_UNATTRIBUTED,
        subject=f"node/{node}",
        time_unix_ns=at_unix_ns,
        since_position=since_position,
        position=position,
        data={
            "message": f"GPUs of node {node} were busy on {day_text(day)} for {hours:.2f} GPU-h so far{bridged} without a job that "
            f"owns it, over the limit of {limit_minutes / 60:.2f} GPU-h a node and day. It is in the books as "
            "unattributed, in no run. Look for processes outside the scheduler, an agent that may not ask it, or a job "
            "that must be assigned (docs/coverage.md).",
            "node": node,
            "day": day_text(day),
            "device_seconds": found.time_ns // _SECOND_NS,
            **({"earlier_device_seconds": found.earlier_ns // _SECOND_NS} if found.earlier_ns else {}),
            "limit_minutes": limit_minutes,
            "flop": figure_json(found.flop),
            "w_table": w_table,
        },
    )


def over(time_ns: int, limit_minutes: int) -> bool:
    """Whether a day's time is past the limit. A limit of 0 is none."""
    return 0 < limit_minutes * _MINUTE_NS < time_ns
