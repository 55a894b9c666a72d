"""Busy GPUs that nobody owned: an event when a node's unattributed time of one UTC day passes a limit. Pure.

Unattributed time is in the books like any (reference/metering.md 5.2: a row, never dropped, and an alarm). It stands
per node there, since an unattributed workload's scope is its node (ingest.decide.scope_of), and per hour of the
window's end, so that a day's sum follows from the books alone, and fsck derives the event again. Gaps do not count:
nobody saw the GPU busy.
"""

from collections.abc import Iterable

from flopmeter.collector.books import GroupKey, Slot, Sums
from flopmeter.collector.figures import Model, Tally, is_others
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable

from .events import USAGE_UNATTRIBUTED, NewEvent, figure_json, time_text

#: How the setting is called where its value is noted in the store.
LIMIT = "unattributed-minutes"
HOURS_A_DAY = 24
_HOUR_NS = 3_600_000_000_000
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
    return time_text(day * HOURS_A_DAY * _HOUR_NS)[:10]


def figures(
    rows: Iterable[tuple[GroupKey, Sums]], models: dict[int, Model], table: WTable
) -> tuple[int, Figure]:
    """(device time in ns, FLOP) of the groups that count."""
    tally, time_ns = Tally(), 0
    for key, sums in rows:
        if counts(key):
            time_ns += sums[0]
            tally.add(key, "", sums)
    return time_ns, tally.figures(models, table)[0]


def unattributed_event(
    node: str,
    day: int,
    found: tuple[int, Figure],
    limit_minutes: int,
    w_table: str,
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
) -> NewEvent:
    """`found`: the day's time and FLOP of `node` (cluster/node) with the record at `position`."""
    time_ns, flop = found
    hours = time_ns / (60 * _MINUTE_NS)
    return NewEvent(
        key=unattributed_key(node, day),
        type=USAGE_UNATTRIBUTED,
        subject=f"node/{node}",
        time_unix_ns=at_unix_ns,
        since_position=since_position,
        position=position,
        data={
            "message": f"GPUs of node {node} were busy on {day_text(day)} for {hours:.2f} GPU-h so far without a job that "
            f"owns it, over the limit of {limit_minutes / 60:.2f} GPU-h a node and day. It is in the books as "
            "unattributed, in no run. Look for processes outside the scheduler, an agent that may not ask it, or a job "
            "that must be assigned (docs/coverage.md).",
            "node": node,
            "day": day_text(day),
            "device_seconds": time_ns // _SECOND_NS,
            "limit_minutes": limit_minutes,
            "flop": figure_json(flop),
            "w_table": w_table,
        },
    )


def over(time_ns: int, limit_minutes: int) -> bool:
    """Whether a day's time is past the limit. A limit of 0 is none."""
    return 0 < limit_minutes * _MINUTE_NS < time_ns
