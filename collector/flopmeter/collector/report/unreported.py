"""What silent agents' GPUs may have done for a run since they were last heard: 0 to the most they can do. Pure.

    upper = SMs x highest clock x time x best rate        (reference/metering.md 6.1, 6.2)

It is priced inside the run's interval: absent is never zero. It is a matter of "now", not of the books: nothing
signed says it, so that no event rests on it, and it goes away when the agent comes back, into the exact difference
of counters where the GPU has counters that ran on, else into a recorded gap.

The time that is charged, for each entity that a job held in the agent's last window, begins at that window's end and
ends at the first of:

- now, or where the run ended as its other nodes saw it (they reported it later than this agent, and no longer do);
- for an agent that was stopped on purpose, or a recording that was replayed: where its other nodes last saw the run; if none saw it later, nothing;
- where another agent took the same entity over: its time is in the books from there on;
- where the operator says that the node went out of service (`--expect FILE`);
- 400 days after the agent was last heard: no record may bridge more, so nothing older can still be reported.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flopmeter.collector.books import NO_SUMS, GroupKey
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.ingest.decide import scope_of
from flopmeter.collector.spelling import time_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import Batch, Device, Inventory, WorkloadKind

from .fleet import AgentState

#: ingest.encode.MAX_BRIDGE_NS, said again here because that module is the protobuf edge (a test compares them).
LONGEST_BRIDGE_NS = 400 * 86_400 * 1_000_000_000
#: A run that any agent reported within this long is running: ten windows of the default length.
RUNNING_WITHIN_NS = 600_000_000_000
MAX_NODES_NAMED = 5
HOUR_NS = 3_600_000_000_000
_UNOWNED = (WorkloadKind.IDLE, WorkloadKind.UNATTRIBUTED)
JobKey = tuple[str, int, str]  # scope, kind, job: which run it belongs to is the books' to say


class Owed(NamedTuple):
    """One entity of an agent that is not heard any more, and that a job held when it last was."""

    node: str
    device: Device
    since_unix_ns: int  # end of the agent's last window
    over: bool  # the agent said that it stops, or was a recording that was played
    taken_over_unix_ns: int | None  # from when on another agent meters the entity
    gone_unix_ns: int | None  # when the operator says that the node went out of service


@dataclass(frozen=True, slots=True)
class Unreported:
    """What a run is charged for silent agents."""

    tally: Tally  # gaps, priced like any
    duration_ns: int  # device time
    nodes: tuple[str, ...]
    since_unix_ns: int  # the earliest
    unpriced: tuple[
        str, ...
    ]  # device models of unknown SM count: their time is counted, their work cannot be bounded

    @property
    def said(self) -> str:
        """In words, for the reasons of a run's width."""
        named = ", ".join(self.nodes[:MAX_NODES_NAMED])
        more = f" and {len(self.nodes) - MAX_NODES_NAMED} more" if len(self.nodes) > MAX_NODES_NAMED else ""
        first = ", the first" if len(self.nodes) > 1 else ""
        return (
            f"silent agents: {self.duration_ns / HOUR_NS:,.2f} GPU-h of {named}{more}{first} since "
            f"{time_text(self.since_unix_ns)[:16].replace('T', ' ')} UTC, priced from 0 to the most the GPUs can do, until "
            "the agents report"
        )


NOTHING = Unreported(Tally(), 0, (), 0, ())


def owed(
    agents: Iterable[AgentState],
    taken_over: Mapping[tuple[str, str], int],
    gone: Mapping[str, int],
) -> dict[JobKey, list[Owed]]:
    """Per job: what each agent of `agents` (all of them late) last saw it hold.

    `taken_over`: (agent id, entity) -> since when another agent meters it. `gone`: node -> out of service since.
    Whoever held the entity within the agent's last window may hold it still: who came last is not known there, and a
    shared entity may be busy for any of its holders. So each is charged with all of it.
    """
    found: dict[JobKey, list[Owed]] = {}
    for agent in agents:
        batch, inventory = agent.batch, agent.inventory
        if batch is None or inventory is None:
            continue
        cut = {d.parent for d in inventory.devices if d.parent}  # its SMs are metered in its MIG instances
        for job, index in sorted(_held(batch, inventory)):
            device = inventory.devices[index]
            if device.entity in cut:
                continue
            found.setdefault(job, []).append(
                Owed(
                    agent.node,
                    device,
                    agent.window_end_unix_ns,
                    agent.over,
                    taken_over.get((agent.agent_id, device.entity)),
                    gone.get(agent.node),
                )
            )
    return found


def _held(batch: Batch, inventory: Inventory) -> set[tuple[JobKey, int]]:
    held = set()
    for row in batch.usage:
        workload = batch.workloads[row.workload_index]
        if workload.kind not in _UNOWNED:  # theirs is no run
            held.add(((scope_of(workload, inventory), int(workload.kind), workload.job), row.entity_index))
    return held


def until_unix_ns(o: Owed, run_last_unix_ns: int, now_unix_ns: int) -> int:
    """Where the time ends that `o` is charged for; never before it begins. `run_last_unix_ns`: of all its nodes."""
    if run_last_unix_ns > o.since_unix_ns:  # another node saw the run later than this agent was heard
        running = run_last_unix_ns >= now_unix_ns - RUNNING_WITHIN_NS
        end = now_unix_ns if running and not o.over else run_last_unix_ns
    else:
        end = o.since_unix_ns if o.over else now_unix_ns
    ends = (end, o.taken_over_unix_ns, o.gone_unix_ns, o.since_unix_ns + LONGEST_BRIDGE_NS)
    return max(o.since_unix_ns, min(e for e in ends if e is not None))


def unreported(
    held: Sequence[Owed], run_last_unix_ns: int, now_unix_ns: int, models: Mapping[int, Model]
) -> Unreported:
    """What `held` of one run comes to. An entity that two of its jobs held is charged once."""
    numbers = {model: number for number, model in models.items()}
    tally, duration_ns, nodes, since, unpriced = Tally(), 0, set(), [], set()
    for _, o in sorted({(o.node, o.device.entity): o for o in held}.items()):
        time_ns = until_unix_ns(o, run_last_unix_ns, now_unix_ns) - o.since_unix_ns
        number = numbers.get(Model(o.device.name, o.device.compute_capability))
        if time_ns <= 0 or number is None:
            continue
        key = GroupKey(0, number, int(EvidenceClass.GAP), 0, 0, 0)
        tally.add(key, "", [time_ns, most_cycles(o.device, time_ns), *NO_SUMS[2:]])
        duration_ns += time_ns
        nodes.add(o.node)
        since.append(o.since_unix_ns)
        if not o.device.sm_count:
            unpriced.add(o.device.name)
    return Unreported(
        tally, duration_ns, tuple(sorted(nodes)), min(since, default=0), tuple(sorted(unpriced))
    )


def most_cycles(device: Device, time_ns: int) -> int:
    """The most SM-cycles that can have elapsed: SMs x highest clock x time, rounded up.

    The driver's maximum clock is believed as agents believe it: before compute capability 10
    (reference/metering.md 1.5).
    """
    major = device.compute_capability.partition(".")[0]
    believed = major.isascii() and major.isdigit() and int(major) < 10 and device.max_sm_clock_mhz > 0
    mhz = min(device.max_sm_clock_mhz, MAX_SM_CLOCK_MHZ) if believed else MAX_SM_CLOCK_MHZ
    return -(-device.sm_count * mhz * time_ns // 1_000)
