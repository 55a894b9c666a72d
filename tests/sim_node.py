"""A simulated node as a recording, for tests of the agent's path: exact counters, known sums."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from flopmeter.agent.reading import Happening, NodeFacts, Reading
from flopmeter.agent.sources.sim import SimSource
from flopmeter.agent.sources.sim_script import SimDevice, SimJob, SimScript
from flopmeter.contract.usage import Workload, WorkloadKind

SECOND = 1_000_000_000
START_BOOT_NS = 1_000 * SECOND
START_UNIX_NS = 1_790_000_000 * SECOND
JOB = Workload(WorkloadKind.SLURM, job="1001", step="0", run="run-a", user="u", dtype="bf16")


def script(gpus: int = 2, gpm: str = "both") -> SimScript:
    return SimScript(
        devices=(SimDevice(),) * gpus,
        jobs=(SimJob(JOB, 0, 1 << 62, tensor_util=0.46),),
        gpm=gpm,  # type: ignore[arg-type]
    )


@dataclass
class SimRecording:
    """`ticks` seconds of a simulated node, one reading of each GPU a second."""

    ticks: int
    gpus: int = 2
    gpm: str = "both"
    skip: range = range(0)  # ticks at which nobody reads

    def facts(self) -> NodeFacts:
        return replace(self.source().facts(), source="trace")

    def source(self) -> SimSource:
        from fakes import FakeClock

        return SimSource(script(self.gpus, self.gpm), FakeClock(START_BOOT_NS, START_UNIX_NS))

    def items(self) -> Iterator[Reading | Happening]:
        source = self.source()
        entities = [d.entity for d in source.facts().devices]
        for tick in range(self.ticks):
            for i, entity in enumerate(entities):
                if tick not in self.skip:
                    t = tick * SECOND + i * 1_000_000
                    yield source.reading_at(entity, START_BOOT_NS + t, START_UNIX_NS + t)

    def close(self) -> None: ...
