"""The demo's cluster as a script: who held which node when, and how busy it was. Pure, exact integers.

Everything the meter will read follows from a script (story.py has the demo's), so what the books must say at the end
can be computed from it without a meter (`Scenario.hmma_cycles`); a test holds the two against each other to the last
cycle.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from flopmeter.contract.usage import IDLE, Uncovered, Workload

HOUR_NS = 3_600_000_000_000
DAY_HOURS = 24

#: NVIDIA H100 SXM (reference/metering.md 3.3): 132 SMs, up to 1980 MHz. An H200 has the same chip and more memory.
MODEL = "NVIDIA H100 80GB HBM3"
MODEL_MORE_MEMORY = "NVIDIA H200"
COMPUTE_CAPABILITY = "9.0"
SMS = 132
CLOCK_MHZ = 1_980
GPUS_PER_NODE = 8
IDLE_WATTS = 78
GPU_STEP_PPM = 700  # half of how far the GPUs of a node lie apart in load
#: FLOP of an SM in a cycle with its tensor pipe active, dense, at 16 bits (reference/metering.md 3.2).
FLOP_PER_HMMA_CYCLE = 4_096


@dataclass(frozen=True, slots=True)
class Span:
    """One workload on all GPUs of a node, from hour `start` to hour `end` of the history."""

    start: int
    end: int
    workload: Workload = IDLE
    hmma_ppm: int = 0  # share of the SM-cycles in which the HMMA pipe is active
    watts: int = IDLE_WATTS  # per GPU
    declares: str = (
        ""  # the purpose that its training code declares, with how far it is; "" = it declares nothing
    )
    again_hours: int = 0  # it begins at a checkpoint so far back: that much is computed again


@dataclass(frozen=True, slots=True)
class Claimed:
    """By what the training code on a node reckons how far its run is (docs/declare.md)."""

    parameters: int
    model_ppm: int  # share of the executed FLOP that 6 x parameters x tokens accounts for


@dataclass(frozen=True, slots=True)
class Node:
    """One node's story. Spans are in order, do not overlap and leave no hour out."""

    name: str
    spans: tuple[Span, ...]
    dies: int = -1  # the agent's last reading; -1 = lives on
    reboots: tuple[int, ...] = ()  # last reading before; the next hour's is the first of the new boot
    agent_restarts: tuple[int, ...] = ()
    away: tuple[int, int] = (-1, -1)  # no agent between these two readings; counters bridge the time
    lost: tuple[int, int] = (-1, -1)  # a GPU, and its last good reading
    model: str = MODEL
    counts: bool = True  # False: its driver is too old for cycle counters, and tells percentages
    claimed: Claimed | None = None
    uncovered: tuple[Uncovered, ...] = ()

    def reads(self, hour: int) -> bool:
        """Whether there is an agent to read at that hour."""
        return (self.dies < 0 or hour <= self.dies) and not self.away[0] < hour < self.away[1]

    def starts(self, hour: int) -> bool:
        """Whether the agent that reads at `hour` is not the one that read before."""
        return hour in (0, self.away[1]) or hour - 1 in (*self.reboots, *self.agent_restarts)

    def is_lost(self, gpu: int, hour: int) -> bool:
        """Whether the GPU has fallen off the bus before the reading at `hour`."""
        return gpu == self.lost[0] and hour > self.lost[1]


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
        """How many readings the history holds: what progress is shown against. Two of the present end it."""
        rounds = sum(
            sum(n.reads(h) for h in range(self.hours + 1)) + 2 * n.reads(self.hours) for n in self.nodes
        )
        return rounds * self.gpus_per_node

    def last_hour(self, node: Node) -> int:
        return node.dies if node.dies >= 0 else self.hours

    @cached_property
    def elapsed_per_hour(self) -> int:
        """SM-cycles of one GPU in one hour."""
        return elapsed_cycles(HOUR_NS)

    def metered_hours(self, node: Node, span: Span, gpu: int) -> int:
        """Hours of `span` that the GPU's counters can account for: the hour of a reboot is a gap."""
        end = min(span.end, self.last_hour(node), node.lost[1] if gpu == node.lost[0] else span.end)
        lost = sum(1 for at in node.reboots if span.start <= at < end)
        return max(0, end - span.start - lost)

    def hmma_cycles(self, run: str, beyond_ns: int = 0) -> int:
        """What the books must hold for `run`, to the cycle, `beyond_ns` after the history's last full hour."""
        return sum(
            (
                self.metered_hours(node, span, gpu) * self.elapsed_per_hour
                + (elapsed_cycles(beyond_ns) if self._goes_on(node, span, gpu) else 0)
            )
            * self.hmma_ppm(span, gpu)
            // 1_000_000
            for node in self.nodes
            for span in node.spans
            if span.workload.run == run
            for gpu in range(self.gpus_per_node)
        )

    def declared(self, run: str) -> tuple[int, ...]:
        """HMMA cycles behind the weights of `run` by each hour, as its training code knows: those of its own steps, from
        the checkpoint that it was at. So it falls at a restart, and a node that is gone adds nothing.
        """
        if run not in self._declared:
            steps = [0] * (self.hours + 1)
            for node in self.nodes:
                for span in (s for s in node.spans if s.workload.run == run and s.declares):
                    an_hour = self.elapsed_per_hour * span.hmma_ppm * self.gpus_per_node // 1_000_000
                    for hour in range(span.start + 1, min(span.end, self.last_hour(node)) + 1):
                        steps[hour] += an_hour
                    if span.again_hours:
                        steps[span.start + 1] -= span.again_hours * an_hour
            self._declared[run] = tuple(accumulate(steps))
        return self._declared[run]

    @cached_property
    def _declared(self) -> dict[str, tuple[int, ...]]:
        return {}

    def _goes_on(self, node: Node, span: Span, gpu: int) -> bool:
        return span is node.spans[-1] and node.reads(self.hours) and not node.is_lost(gpu, self.hours)

    def hmma_ppm(self, span: Span, gpu: int) -> int:
        """The GPUs of a node are not equally busy: they lie evenly around the span's share."""
        return span.hmma_ppm and span.hmma_ppm + GPU_STEP_PPM * (2 * gpu + 1 - self.gpus_per_node)


def elapsed_cycles(ns: int) -> int:
    """SM-cycles of one GPU in `ns`: the clock is steady, so that totals can be known in advance."""
    return CLOCK_MHZ * SMS * ns // 1_000
