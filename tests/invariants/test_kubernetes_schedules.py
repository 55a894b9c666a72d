"""Pods that come, go, linger, come again under their names: whose cycles they were, to the last one.

A node with two GPUs, its kubelet, its API server and its cgroups live through a random schedule: pods are given a GPU,
wait, work, end, linger in the list, are deleted, and made anew under the same name; lists fail, labels come late or
never. The agent sees it through the real list decoder, names, attributor and meter. What must hold: each device adds up
to its counters; each pod's work is booked to that pod's UID and to no other's, nothing of it apportioned; without
processes each pod's work is booked to its name; and what was said of one pod is never said of another.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from fake_kubelet import gpu_pod, listing
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from metering import FIELDS, SECOND, SMS, Gpu, device, duration, facts, meter, own, rows, taken

from fakes import FakeClock
from flopmeter.agent.errors import KubernetesError
from flopmeter.agent.metering.meter import Sealed
from flopmeter.agent.reading import Process
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.agent.workloads.kubelet.metadata import PodMeta
from flopmeter.agent.workloads.kubelet.source import KubeletSource
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Measured, Workload, WorkloadKind

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GPUS = ("GPU-0", "GPU-1")
NAMES = (("one", "a"), ("two", "a"), ("one", "b"))
START = 50 * SECOND


@dataclass
class Pod:
    name: tuple[str, str]
    uid: str
    phase: str = "waits"  # works, ended
    worked: int = 0  # HMMA cycles, of one SM


@dataclass
class Node:
    """What is true, and the agent that looks at it. `client` and `api` are the node's own answers."""

    sees_processes: bool
    asks_api: bool
    clock: FakeClock = field(default_factory=lambda: FakeClock(boot_ns=START))
    gpus: list[Gpu] = field(default_factory=lambda: [Gpu(name) for name in GPUS])
    on: list[list[Pod]] = field(
        default_factory=lambda: [[], []]
    )  # of each GPU: who is listed with it, last is newest
    ever: list[Pod] = field(default_factory=list)
    deleted: set[tuple[str, str]] = field(default_factory=set)  # in this second
    away: bool = False
    told: bool = False
    sealed: list[Sealed] = field(default_factory=list)

    def __post_init__(self) -> None:
        node = facts(*(device(n) for n in range(len(GPUS))))
        api = self if self.asks_api else None
        self.source = KubeletSource(self, lambda: node, self.clock, rng=Random(1), api=api, minors=dict)  # type: ignore[arg-type]
        self.agent = meter(node, attributor=Attributor(self, [self.source]), window=7 * SECOND)
        self.read([(), ()])
        for _ in range(8):  # the counters' scale becomes known, and nobody is there
            self.tick({}, {})

    # What the agent asks.

    def list_pods(self) -> bytes:
        if self.away:
            raise KubernetesError("away")
        return listing(
            *(gpu_pod(*pod.name, gpu) for gpu, pods in zip(GPUS, self.on, strict=True) for pod in pods)
        )

    def allocatable(self) -> None:
        return None

    def close(self) -> None: ...

    def pod(self, name: tuple[str, str]) -> PodMeta | None:
        """The API server's answer."""
        for pods in self.on:
            for pod in pods:
                if pod.name == name:
                    return PodMeta(
                        name,
                        pod.uid,
                        (("label:flopmeter.dev/run", f"run-of-{pod.uid}"),),
                        f"run-of-{pod.uid}",
                    )
        return None

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        """The cgroup's answer."""
        return Workload(WorkloadKind.POD, job=self.ever[pid - 1].uid)

    # What happens.

    def start(self, gpu: int, name: tuple[str, str]) -> None:
        """The kubelet gives the GPU out: its pod, if any, has ended. An old pod of that name is deleted first."""
        if self.on[gpu] and self.on[gpu][-1].phase != "ended":
            return
        for pods in self.on:
            if any(pod.name == name and pod.phase != "ended" for pod in pods):
                return
        self.delete(lambda pod: pod.name == name)
        if name in self.deleted and not self.sees_processes:
            return  # seconds pass before its successor is there; faster than a list only its cgroup would tell
        pod = Pod(name, f"{len(self.ever):08x}-aaaa-4bbb-8ccc-000000000000")
        self.ever.append(pod)
        self.on[gpu].append(pod)

    def delete(self, which: Callable[[Pod], bool]) -> None:
        for pods in self.on:
            self.deleted |= {pod.name for pod in pods if which(pod)}
            pods[:] = [pod for pod in pods if not which(pod)]

    def do(self, gpu: int, what: str) -> None:
        newest = self.on[gpu][-1] if self.on[gpu] else None
        if what.startswith("start"):
            self.start(gpu, NAMES[int(what[-1])])
        elif what == "work" and newest is not None and newest.phase == "waits":
            newest.phase = "works"
        elif what == "end" and newest is not None:
            newest.phase = "ended"
        elif what == "delete":
            mine = self.on[gpu]
            self.delete(lambda pod: pod.phase == "ended" and pod in mine)

    def tick(self, *shares: dict[int, int]) -> None:
        """A second: who works, works through it and stands there at its end."""
        self.clock.advance(SECOND)
        self.deleted.clear()
        there: list[list[Process]] = []
        for gpu, pods, share in zip(self.gpus, self.on, shares, strict=True):
            works = [pod for pod in pods if pod.phase == "works"]
            before = gpu.counters[252]
            gpu.run(SECOND, share | {250: share.get(252, 0)} if works else {})
            for pod in works:
                pod.worked += gpu.counters[252] - before
            there.append([Process(self.ever.index(pod) + 1, 7) for pod in works])
        self.source.poll()
        if self.asks_api and self.told:
            self.source.ask()
        self.read(there)

    def read(self, there: Sequence[Sequence[Process]]) -> None:
        for gpu, processes in zip(self.gpus, there, strict=True):
            seen = tuple(processes) if self.sees_processes else None
            self.sealed += self.agent.observe(gpu.reading(self.clock.boot, workload=None, processes=seen))

    def end(self) -> None:
        self.tick({}, {})
        last = self.agent.flush(final=True)
        self.sealed += [last] if last else []


events = st.sampled_from(["start 0", "start 1", "start 2", "work", "work", "end", "delete", "none"])
share = st.fixed_dictionaries({249: st.integers(1, 1000), 252: st.integers(1, 500)})
step = st.tuples(
    st.tuples(events, events),
    st.tuples(share, share),
    st.sampled_from(["listed"] * 5 + ["away", "api", "minutes"]),
)
BUSY = {249: 900, 252: 500}


def live(schedule: list, *, sees_processes: bool, asks_api: bool, fails: bool = True) -> Node:  # type: ignore[type-arg]
    node = Node(sees_processes, asks_api)
    for happens, shares, then in schedule:
        for gpu, what in enumerate(happens):
            node.do(gpu, what)
        node.away = fails and then == "away"
        node.told = node.told or then == "api"
        node.tick(*shares)
    node.end()
    return node


def conserved(node: Node) -> None:
    for gpu in node.gpus:
        for key, name in FIELDS.items():
            assert own(node.sealed, name, gpu.entity) == (gpu.counters[key] - 10**15) * SMS, name
        assert duration(node.sealed, gpu.entity) == node.clock.boot - START
    taken(node.sealed)


def booked(node: Node) -> dict[str, int]:
    """HMMA cycles by job, and nothing of it apportioned."""
    found: Counter[str] = Counter()
    for workload, usage in rows(node.sealed):
        assert not usage.measured & (Measured.APPORTIONED | Measured.OTHERS), workload
        found[workload.job] += usage.hmma_cycles
        if workload not in (IDLE, UNATTRIBUTED):
            assert workload.kind is WorkloadKind.POD
    return {job: cycles for job, cycles in found.items() if cycles}


_RESTART = [(("end", "none"), (BUSY, BUSY), "listed"), (("delete", "none"), (BUSY, BUSY), "listed")]
_LIFE = [(("start 0", "none"), (BUSY, BUSY), "listed"), (("work", "none"), (BUSY, BUSY), "listed")]


@SLOW
@given(schedule=st.lists(step, max_size=40), asks_api=st.booleans())
@example(schedule=[*_LIFE, *_RESTART, *_LIFE, *_RESTART, *_LIFE], asks_api=False)
@example(
    schedule=[*_LIFE, (("end", "start 0"), (BUSY, BUSY), "away"), (("none", "work"), (BUSY, BUSY), "api")],
    asks_api=True,
)
@example(
    schedule=[
        *_LIFE,
        _RESTART[0],
        (("start 1", "none"), (BUSY, BUSY), "listed"),
        (("work", "none"), (BUSY, BUSY), "listed"),
    ],
    asks_api=False,
)
def test_each_pods_work_is_its_own_by_processes_and_list(schedule: list, asks_api: bool) -> None:  # type: ignore[type-arg]
    node = live(schedule, sees_processes=True, asks_api=asks_api)
    conserved(node)
    assert booked(node) == {pod.uid: pod.worked * SMS for pod in node.ever if pod.worked}
    by_uid = {pod.uid: pod for pod in node.ever}
    named = 0
    for workload, _ in rows(node.sealed):
        said = dict(workload.identities)
        if workload.job in by_uid and "k8s.pod" in said:
            named += 1
            assert (said["k8s.namespace"], said["k8s.pod"]) == by_uid[workload.job].name
            assert said["k8s.pod_uid"] == workload.job
            assert workload.run in ("", f"run-of-{workload.job}")
            assert said.get("label:flopmeter.dev/run", workload.run) == workload.run
    event(f"named rows: {bool(named)}")


@SLOW
@given(schedule=st.lists(step, max_size=40), asks_api=st.booleans())
@example(schedule=[*_LIFE, *_RESTART, *_LIFE, *_RESTART, *_LIFE], asks_api=True)
@example(
    schedule=[
        *_LIFE,
        _RESTART[0],
        (("start 1", "none"), (BUSY, BUSY), "listed"),
        (("work", "none"), (BUSY, BUSY), "listed"),
    ],
    asks_api=False,
)
def test_each_pods_work_is_its_own_by_the_list_alone(schedule: list, asks_api: bool) -> None:  # type: ignore[type-arg]
    """Without the host's processes: by name, or by UID where the API server is asked; whichever row it is."""
    node = live(schedule, sees_processes=False, asks_api=asks_api, fails=False)
    conserved(node)
    found: Counter[tuple[str, str]] = Counter()
    by_uid: Counter[str] = Counter()
    for workload, usage in rows(node.sealed):
        if usage.hmma_cycles:
            # The interval in which the list changes is shared by time between both, and here nobody works in it.
            assert not usage.measured & (Measured.APPORTIONED | Measured.OTHERS), workload
            said = dict(workload.identities)
            found[said["k8s.namespace"], said["k8s.pod"]] += usage.hmma_cycles
            by_uid[said.get("k8s.pod_uid", "")] += usage.hmma_cycles
    wanted: Counter[tuple[str, str]] = Counter()
    for pod in node.ever:
        wanted[pod.name] += pod.worked * SMS
    assert found == +wanted
    for pod in (
        node.ever
    ):  # what was booked under a UID was that pod's work; some of it may lie under the name alone
        assert by_uid[pod.uid] <= pod.worked * SMS


@pytest.mark.parametrize("asks_api", [False, True])
def test_replicas_are_shared_marked_and_apportioned_by_use(asks_api: bool) -> None:
    """Two pods on one time-sliced GPU: the device is exact, the split follows SM utilisation and has no lower bound.

    Which UID is which name only the API server can tell; without it neither is guessed.
    """
    node = Node(sees_processes=True, asks_api=asks_api)
    node.ever = [
        Pod(("ml", "a"), f"{1:08x}-aaaa-4bbb-8ccc-000000000000"),
        Pod(("ml", "b"), f"{2:08x}-aaaa-4bbb-8ccc-000000000000"),
    ]
    node.list_pods = lambda: listing(*(gpu_pod(*p.name, f"GPU-0::{n}") for n, p in enumerate(node.ever)))  # type: ignore[method-assign]
    for _ in range(10):
        node.clock.advance(SECOND)
        node.source.poll()
        if asks_api:
            node.on[0] = node.ever
            node.source.ask()
        for gpu, share in zip(node.gpus, (BUSY, {}), strict=True):
            gpu.run(SECOND, share | {250: share.get(252, 0)})
        node.read([(Process(1, 7, 75.0), Process(2, 7, 25.0)), ()])
    node.end()
    conserved(node)
    shared = {
        w.job: u
        for w, u in rows(node.sealed, "GPU-0")
        if w.kind is WorkloadKind.POD and u.duration_ns and u.hmma_cycles
    }
    assert set(shared) == {pod.uid for pod in node.ever}
    assert all(Measured.APPORTIONED in u.measured for u in shared.values())
    cycles = [
        sum(
            u.hmma_cycles
            for w, u in rows(node.sealed, "GPU-0")
            if w.job == pod.uid and Measured.OTHERS not in u.measured
        )
        for pod in node.ever
    ]
    assert sum(cycles) == (node.gpus[0].counters[252] - 10**15) * SMS
    assert cycles[0] == 3 * cycles[1]
    told = {
        (w.job, dict(w.identities).get("k8s.pod", "")) for w, u in rows(node.sealed, "GPU-0") if u.hmma_cycles
    }
    assert told == {(pod.uid, pod.name[1] if asks_api else "") for pod in node.ever}
