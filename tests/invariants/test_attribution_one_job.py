"""A job whose names are learned bit by bit is one workload from its first cycle, and nothing of it was ever shared."""

import pytest
from metering import SECOND, SMS, Gpu, duration, meter, own, rows, taken

from flopmeter.agent.metering.meter import Sealed
from flopmeter.agent.reading import Process
from flopmeter.agent.workloads.allocations import Allocations
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.agent.workloads.kubelet.holders import Hold
from flopmeter.agent.workloads.kubelet.metadata import PodMeta
from flopmeter.agent.workloads.kubelet.names import Names
from flopmeter.contract.identity import Identity
from flopmeter.contract.usage import IDLE, Measured, Workload, WorkloadKind

UID = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"
BUSY = {249: 900, 250: 500, 252: 500}
POD = ("ns", "a")


class Finder:
    def find(self, pid: int, start_ticks: int) -> Workload | None:
        if pid == 6:  # names a run of its own in its environment
            seen = (Identity("env:FLOPMETER_RUN", "mine"),)
            return Workload(WorkloadKind.POD, job=UID, run="mine", identities=seen)
        return Workload(WorkloadKind.POD, job=UID) if pid == 7 else None


class Kubelet:
    """The real names of pods, told what a list and the API server say when the test wants it."""

    def __init__(self) -> None:
        self.names = Names()
        self.now: Allocations | None = None

    def listed(self) -> None:
        self.names.listed({"GPU-0": (Hold(POD, "main"),)})
        self._publish()

    def labelled(self) -> None:
        self.names.told(PodMeta(POD, UID, (), "llama-70b"))
        self._publish()

    def gone(self) -> None:
        self.names.listed({})
        self._publish()

    def latest(self) -> Allocations | None:
        return self.now

    def describe(self, workload: Workload) -> Workload:
        return self.names.describe(workload)

    def met(self, entity: str, workload: Workload) -> None:
        if self.names.met(entity, workload.job):
            self._publish()

    def close(self) -> None:
        pass

    def _publish(self) -> None:
        self.now = Allocations(1, self.names.holders())


#: Second -> what happens then; processes of the pod are there from the third to the seventh.
STORIES = {
    "listed before it starts": {0: "listed", 5: "labelled"},
    "listed after it started": {4: "listed", 6: "labelled"},
    "labelled before it starts": {0: "listed", 1: "labelled"},
    "never labelled": {0: "listed"},
    "labelled after it ended": {2: "listed", 8: "labelled"},
    "gone before it is sealed": {1: "listed", 5: "labelled", 8: "gone"},
}


def lived(story: dict[int, str], there: dict[int, tuple[int, ...]]) -> list[Sealed]:
    kubelet, gpu = Kubelet(), Gpu()
    agent = meter(attributor=Attributor(Finder(), [kubelet]), window=3600 * SECOND)
    sealed = []
    for second in range(-7, 10):  # seven to learn the counters' scale
        if second > -7:
            gpu.run(SECOND, BUSY if 3 <= second <= 7 else {})
        if second in story:
            getattr(kubelet, story[second])()
        processes = tuple(Process(pid, pid) for pid in there.get(second, ()))
        sealed += agent.observe(
            gpu.reading(100 * SECOND + second * SECOND, workload=None, processes=processes)
        )
    last = agent.flush(final=True)
    assert last is not None
    return [*sealed, last]


@pytest.mark.parametrize("told_apart", [True, False])
@pytest.mark.parametrize("story", STORIES)
def test_a_pod_is_one_workload_whatever_is_learned_when(story: str, told_apart: bool) -> None:
    """`told_apart` False: the agent has a PID namespace of its own, and no process can be told."""
    events = STORIES[story]
    sealed = lived(events, dict.fromkeys(range(3, 8), (7 if told_apart else 8,)))
    jobs = {w for w, u in rows(sealed) if w.kind is WorkloadKind.POD}
    assert len(jobs) == 1
    (job,) = jobs
    assert job.run == ("llama-70b" if "labelled" in events.values() else "")
    assert job.step == "main"
    assert dict(job.identities)["k8s.pod"] == "a"
    if told_apart or job.run:
        assert job.job == dict(job.identities)["k8s.pod_uid"] == UID
    shared = [w for w, u in rows(sealed) if u.measured & (Measured.APPORTIONED | Measured.OTHERS)]
    assert shared == [] or (not told_apart and story == "listed after it started")
    worked = 5 * 1_700_000_000 * SMS // 2
    mine = sum(u.hmma_cycles for w, u in rows(sealed) if w == job)
    assert mine == worked or (not told_apart and story == "listed after it started")
    assert own(sealed, "hmma_cycles") == worked
    assert duration(sealed) == 16 * SECOND
    taken(sealed)


@pytest.mark.parametrize("story", STORIES)
def test_a_label_that_comes_late_goes_before_a_variable_from_the_first_cycle_on(story: str) -> None:
    events = STORIES[story]
    sealed = lived(events, dict.fromkeys(range(3, 8), (6,)))
    (job,) = {w for w, u in rows(sealed) if w.kind is WorkloadKind.POD}
    assert job.run == ("llama-70b" if "labelled" in events.values() else "mine")
    assert dict(job.identities)["env:FLOPMETER_RUN"] == "mine"
    assert not [u for _, u in rows(sealed) if u.measured & (Measured.APPORTIONED | Measured.OTHERS)]
    taken(sealed)


def test_given_for_an_hour_and_never_used_is_the_jobs_and_not_idle() -> None:
    sealed = lived({-6: "listed"}, {})
    by_kind = {w.kind: sum(u.duration_ns for x, u in rows(sealed) if x == w) for w, _ in rows(sealed)}
    assert by_kind[WorkloadKind.POD] == 16 * SECOND - by_kind.get(IDLE.kind, 0)
    assert by_kind.get(IDLE.kind, 0) <= SECOND
