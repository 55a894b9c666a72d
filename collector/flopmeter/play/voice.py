"""What the training code on a simulated node declares of itself: its own words, as datagrams (docs/declare.md).

The agent hears them as it hears any: by whose process they come from, refused where they say what cannot be.
"""

import json

from flopmeter.agent.workloads.claims import Claims
from flopmeter.contract.usage import Workload

from .node import SimNode
from .scenario import FLOP_PER_HMMA_CYCLE, HOUR_NS, Claimed

_FLOP_PER_PARAMETER_AND_TOKEN = 6  # docs/estimate.md
_FIRST_PID = 4_000  # a job's first process: one number a job


class Voice:
    """Of the process that speaks for the run: rank 0. Where datagrams come from, and who their senders are."""

    def __init__(self, sim: SimNode) -> None:
        self._sim = sim
        self._ns = 0
        self.claims = Claims(self, self)

    def speak(self, ns: int) -> None:
        """It is `ns` since the history began: say how far the run is, and let the agent hear it."""
        self._ns = ns
        self.claims.listen(self._sim.boot_ns(ns), self._sim.unix_ns(ns))

    def take(self, most: int) -> list[tuple[int, bytes]]:
        """See claims.Datagrams: one, where this node's job has something to say."""
        number, span = self._sim.span(self._ns)
        claimed = self._sim.node.claimed
        if claimed is None or not span.declares:
            return []
        tokens = tokens_by(self._sim, claimed, self._ns)
        if not tokens:
            return []
        said = {
            "v": 1,
            "run": span.workload.run,
            "dtype": span.workload.dtype,
            "purpose": span.declares,
            "tokens": tokens,
            "parameters": claimed.parameters,
        }
        return [(_FIRST_PID + number, json.dumps(said).encode())][:most]

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        """See processes.WorkloadFinder: the job that a process is of."""
        held = self._sim.node.spans[pid - _FIRST_PID].workload
        return Workload(held.kind, held.job, held.step)

    def close(self) -> None: ...


def tokens_by(sim: SimNode, claimed: Claimed, ns: int) -> int:
    """Tokens of the whole run by then: what was computed again after a restart is not counted twice."""
    work = sim.scenario.declared(sim.span(ns)[1].workload.run)
    hour = min(ns // HOUR_NS, len(work) - 2)  # after the history it goes on as in its last hour
    beyond_ns = ns - hour * HOUR_NS
    cycles = work[hour] + (work[hour + 1] - work[hour]) * beyond_ns // HOUR_NS
    flop = cycles * FLOP_PER_HMMA_CYCLE * claimed.model_ppm // 1_000_000
    return max(0, flop // (_FLOP_PER_PARAMETER_AND_TOKEN * claimed.parameters))
