"""The demo's cluster as a script: who held which node when, and how busy it was. Pure, exact integers.

Everything the meter will read follows from this file, so what the books must say at the end can be computed
from it without a meter (`Scenario.hmma_cycles`); a test holds the two against each other to the last cycle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind

HOUR_NS = 3_600_000_000_000
DAY_HOURS = 24

#: NVIDIA H100 SXM (reference/metering.md 3.3): 132 SMs, up to 1980 MHz.
MODEL = "NVIDIA H100 80GB HBM3"
COMPUTE_CAPABILITY = "9.0"
SMS = 132
CLOCK_MHZ = 1_980
GPUS_PER_NODE = 8
IDLE_WATTS = 78
GPU_STEP_PPM = 700  # half of how far the GPUs of a node lie apart in load

PRETRAIN = "atlas-70b"
FINETUNE = "atlas-70b-chat"


@dataclass(frozen=True, slots=True)
class Span:
    """One workload on all GPUs of a node, from hour `start` to hour `end` of the history."""

    start: int
    end: int
    workload: Workload = IDLE
    hmma_ppm: int = 0  # share of the SM-cycles in which the HMMA pipe is active
    watts: int = IDLE_WATTS  # per GPU


@dataclass(frozen=True, slots=True)
class Node:
    """One node's story. Spans are in order, do not overlap and leave no hour out."""

    name: str
    spans: tuple[Span, ...]
    dies: int = -1  # the agent's last reading; -1 = lives on
    reboots: tuple[int, ...] = ()  # last reading before; the next hour's is the first of the new boot
    agent_restarts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """A cluster and its history of `hours`, with one reading per GPU an hour."""

    cluster: str
    hours: int
    nodes: tuple[Node, ...]
    gpus_per_node: int = GPUS_PER_NODE

    @property
    def gpus(self) -> int:
        return len(self.nodes) * self.gpus_per_node

    @property
    def readings(self) -> int:
        """How many readings the history holds: what progress is shown against."""
        return sum((self.last_hour(n) + 1) * self.gpus_per_node for n in self.nodes)

    def last_hour(self, node: Node) -> int:
        return node.dies if node.dies >= 0 else self.hours

    @cached_property
    def elapsed_per_hour(self) -> int:
        """SM-cycles of one GPU in one hour."""
        return elapsed_cycles(HOUR_NS)

    def metered_hours(self, node: Node, span: Span) -> int:
        """Hours of `span` that counters can account for: the hour of a reboot is a gap."""
        end = min(span.end, self.last_hour(node))
        lost = sum(1 for at in node.reboots if span.start <= at < end)
        return max(0, end - span.start - lost)

    def hmma_cycles(self, run: str) -> int:
        """What the books must hold for `run`, to the cycle."""
        return sum(
            self.metered_hours(node, span) * self.elapsed_per_hour * self.hmma_ppm(span, gpu) // 1_000_000
            for node in self.nodes
            for span in node.spans
            if span.workload.run == run
            for gpu in range(self.gpus_per_node)
        )

    def hmma_ppm(self, span: Span, gpu: int) -> int:
        """The GPUs of a node are not equally busy: they lie evenly around the span's share."""
        return span.hmma_ppm and span.hmma_ppm + GPU_STEP_PPM * (2 * gpu + 1 - self.gpus_per_node)


def elapsed_cycles(ns: int) -> int:
    """SM-cycles of one GPU in `ns`: the clock is steady, so that totals can be known in advance."""
    return CLOCK_MHZ * SMS * ns // 1_000


def default(days: int = 30, nodes: int = 24) -> Scenario:
    """The demo's story, scaled to `days` (at least 2) and `nodes` (at least 5).

    All but two nodes pre-train; of the last two, one idles, fine-tunes, idles and fine-tunes again, and one
    does work that nobody labelled. Pipes are busier than real training keeps them (0.81 of all cycles, where
    0.3 to 0.5 is usual): 176 H100 need that for the lower bound, which must assume TF32 by mma.sync at 0.6 of
    its rate (reference/metering.md 4.3), to pass 10^23 FLOP within 30 days.
    """
    hours = days * DAY_HOURS

    def at(share: float) -> int:
        return round(hours * share)

    pretrain = _pretraining(at)
    training = nodes - 2
    script = [
        Node(
            name=f"node-{i + 1:02}",
            spans=_filled(pretrain, hours),
            dies=at(0.80) if i == training - 1 else -1,
            reboots=(at(0.58),) if i == training // 2 else (),
            agent_restarts=(at(0.17), at(0.71)) if i == 1 else (),
        )
        for i in range(training)
    ]
    chat = Workload(WorkloadKind.SLURM, job="90417", step="0", run=FINETUNE, user="amara", dtype="bf16")
    tuning = (
        Span(at(0.30), at(0.62), chat, 310_000, 540),
        Span(at(0.90), hours, _restarted(chat, "90533", 0), 340_000, 560),
    )
    script.append(Node(f"node-{nodes - 1:02}", _filled(tuning, hours)))
    nameless = Workload(WorkloadKind.SLURM, job="88121", step="0", user="guest")
    unlabelled = (
        Span(at(0.05), at(0.55), nameless, 220_000, 470),
        Span(at(0.60), hours, UNATTRIBUTED, 180_000, 430),
    )
    script.append(Node(f"node-{nodes:02}", _filled(unlabelled, hours)))
    return Scenario("demo", hours, tuple(script))


def _pretraining(at: Callable[[float], int]) -> tuple[Span, ...]:
    """Three jobs of one run: a requeue after a crash, and a new job after a maintenance window."""
    first = Workload(WorkloadKind.SLURM, job="88001", step="0", run=PRETRAIN, user="amara", dtype="bf16")
    again = _restarted(first, "88001", 1)
    after = _restarted(first, "88213", 0)
    return (
        Span(at(0.008), at(0.21), first, 796_000, 650),
        Span(at(0.215), at(0.40), again, 812_000, 665),
        Span(at(0.42), at(1.0), after, 808_000, 660),
    )


def _restarted(workload: Workload, job: str, restart: int) -> Workload:
    return Workload(
        workload.kind, job, workload.step, workload.run, workload.user, workload.dtype, restart=restart
    )


def _filled(spans: tuple[Span, ...], hours: int) -> tuple[Span, ...]:
    """`spans` with idle in between, from hour 0 to `hours`."""
    out: list[Span] = []
    at = 0
    for span in spans:
        if span.start > at:
            out.append(Span(at, span.start))
        out.append(span)
        at = span.end
    if at < hours:
        out.append(Span(at, hours))
    return tuple(out)
