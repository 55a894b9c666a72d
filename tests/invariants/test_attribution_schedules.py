"""Jobs that come, move, share, are requeued and contradict their allocations: every device's cycles, once, whoever had them.

The scheduler's lists and the processes of each GPU are random and need not agree; identities are learned late; agents
restart. What must hold: each device adds up to its counters to the last cycle; nothing is booked to one who was neither
there nor given the GPU; one job is one workload in a batch; the collector takes every batch.
"""

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from metering import FIELDS, SECOND, SMS, UNIX0, Gpu, device, duration, facts, meter, own, rows, taken

from flopmeter.agent.metering.meter import Meter, Sealed
from flopmeter.agent.reading import Process, Reading
from flopmeter.agent.workloads.allocations import Allocations
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.contract.identity import Identity
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Measured, Workload, WorkloadKind

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GPUS = ("GPU-0", "GPU-1")
START = 50 * SECOND


def step(job: str, number: str = "", **more: object) -> Workload:
    return Workload(WorkloadKind.SLURM, job=job, step=number, **more)  # type: ignore[arg-type]


#: Process -> what its cgroup and environment say; 9 is in no /proc. 5 and 6 are one step, and say different runs.
PROCESSES = {
    1: step("1", "0"),
    2: step("2", "0", run="b", dtype="fp8"),
    3: step("1", "0", run="a", identities=(Identity("env:WANDB_RUN_ID", "w"),)),
    4: Workload(WorkloadKind.POD, job="1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"),
    5: step("3", "0", run="c"),
    6: step("3", "0", run="d"),
    7: Workload(WorkloadKind.PROCESS, job="container-3b1a3b1a3b1a"),
}
GIVEN = {
    "1": step("1"),
    "2": step("2"),
    "3": step("3"),
    "pod": Workload(WorkloadKind.POD, job="ns/a", step="main"),
}


class Finder:
    def find(self, pid: int, start_ticks: int) -> Workload | None:
        return PROCESSES.get(pid)


class Scheduler:
    """Gives what the schedule says; what it knows of a job comes after a while, and a requeue counts it up."""

    def __init__(self) -> None:
        self.now: Allocations | None = None
        self.names: dict[str, str] = {}
        self.restarts: dict[str, int] = {}

    def latest(self) -> Allocations | None:
        return self.now

    def describe(self, workload: Workload) -> Workload:
        name = self.names.get(workload.job)
        if name is None:
            return workload
        restart = self.restarts.get(workload.job, 0)
        return replace(
            workload, restart=restart, identities=(*workload.identities, Identity("slurm.name", name))
        )

    def met(self, entity: str, workload: Workload) -> None:
        pass

    def close(self) -> None:
        pass


active = st.fixed_dictionaries(
    {249: st.integers(0, 1000), 252: st.integers(0, 500), 259: st.integers(0, 400)}
)
pids = st.dictionaries(
    st.sampled_from([1, 2, 3, 4, 5, 6, 7, 9]), st.none() | st.integers(0, 100).map(float), max_size=3
)
given_to = st.lists(st.sampled_from(sorted(GIVEN)), unique=True, max_size=2)
#: What each GPU does, whose processes stand there at its end, and whom the scheduler says it is given to.
ticks = st.tuples(
    st.integers(SECOND // 4, 3 * SECOND),
    st.tuples(active, active),
    st.tuples(st.none() | pids, st.none() | pids),
    st.none() | st.tuples(given_to, given_to),
    st.sampled_from(["read"] * 6 + ["fail", "kill", "restart", "learn", "requeue", "unlisted"]),
)


class Life:
    """A node with two GPUs, its agent's lives one after the other."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.gpus = [Gpu(name) for name in GPUS]
        self.sealed: list[Sealed] = []
        self.t = START
        self.attributor = self.fresh()
        self.agent = self.meter()
        for _ in range(8):  # the counters' scale becomes known, and nobody is there
            self.take(self.read([(), ()]))
            self.run(SECOND, ({}, {}))

    def fresh(self) -> Attributor:
        return Attributor(Finder(), [self.scheduler])

    def meter(self, journal: bytes | None = None) -> Meter:
        node = facts(*(device(n) for n in range(len(GPUS))))
        return meter(node, attributor=self.attributor, window=7 * SECOND, journal=journal)

    def run(self, ns: int, shares: tuple[dict[int, int], ...]) -> None:
        self.t += ns
        for gpu, share in zip(self.gpus, shares, strict=True):
            gpu.run(ns, share | {250: share.get(252, 0)})

    def read(self, there: list[tuple[Process, ...] | None]) -> Iterator[Reading]:
        for gpu, processes in zip(self.gpus, there, strict=True):
            yield gpu.reading(self.t, workload=None, processes=processes)

    def take(self, readings: Iterator[Reading]) -> None:
        for reading in readings:
            self.sealed += self.agent.observe(reading)

    def stop(self, *, final: bool = False) -> None:
        last = self.agent.flush(final=final)
        self.sealed += [last] if last else []

    def go_on(self) -> None:
        if self.sealed:
            self.agent = self.meter(self.sealed[-1].journal)


def live(schedule: list) -> tuple[Life, list[set[tuple[WorkloadKind, str]]]]:  # type: ignore[type-arg]
    life = Life()
    had: list[set[tuple[WorkloadKind, str]]] = [set(), set()]
    for ns, shares, there, given_now, then in schedule:
        if given_now is not None:
            by_entity = {
                g: tuple(GIVEN[j] for j in jobs) for g, jobs in zip(GPUS, given_now, strict=True) if jobs
            }
            life.scheduler.now = Allocations(life.t + ns // 2, by_entity)
        if then == "learn":
            life.scheduler.names |= {"1": "train", "3": "three"}
        elif then == "requeue":
            life.scheduler.restarts = {"1": life.scheduler.restarts.get("1", 0) + 1}
        elif then == "unlisted":
            life.scheduler.now = None
        life.run(ns, shares)
        for who, held, entity in zip(had, there, GPUS, strict=True):
            who |= {(w.kind, w.job) for pid in held or () if (w := PROCESSES.get(pid))}
            if life.scheduler.now is not None:
                who |= {(w.kind, w.job) for w in life.scheduler.now.by_entity.get(entity, ())}
        if then == "fail":
            life.take(Reading(g, life.t, UNIX0 + life.t, error="NVML_ERROR_UNKNOWN") for g in GPUS)
            continue
        found = [None if h is None else tuple(Process(p, p, s) for p, s in sorted(h.items())) for h in there]
        life.take(life.read(found))
        if then in ("kill", "restart"):
            if then == "restart":
                life.stop()
            life.attributor = life.fresh()
            life.go_on()
    life.run(SECOND, ({}, {}))
    life.take(life.read([(), ()]))
    life.stop(final=True)
    return life, had


BUSY = {249: 900, 252: 500, 259: 0}
_MOVE = (SECOND, (BUSY, BUSY), ({1: None}, {2: None}), (["1"], ["2"]), "read")


@SLOW
@given(schedule=st.lists(ticks, max_size=25))
@example([_MOVE, (SECOND, (BUSY, BUSY), ({2: None}, {1: None}), (["2"], ["1"]), "read")])
@example([_MOVE, (SECOND, (BUSY, BUSY), ({3: 10.0, 1: 20.0}, {9: None}), None, "learn"), _MOVE])
@example(
    [_MOVE, (SECOND, (BUSY, BUSY), ({}, None), (["1", "pod"], []), "requeue"), (*_MOVE[:4], "kill"), _MOVE]
)
@example([(SECOND, (BUSY, BUSY), ({5: 1.0, 6: 2.0}, {4: None}), (["3"], ["pod"]), "restart")] * 3)
def test_every_device_adds_up_whoever_had_it(schedule: list) -> None:  # type: ignore[type-arg]
    life, had = live(schedule)
    for gpu, who in zip(life.gpus, had, strict=True):
        for key, name in FIELDS.items():
            assert own(life.sealed, name, gpu.entity) == (gpu.counters[key] - 10**15) * SMS, name
        assert own(life.sealed, "energy_mj", gpu.entity) == gpu.energy_mj - 5_000_000
        assert duration(life.sealed, gpu.entity) == life.t - START
        booked = {(w.kind, w.job) for w, _ in rows(life.sealed, gpu.entity)}
        assert booked - {(IDLE.kind, ""), (UNATTRIBUTED.kind, "")} <= who
    for sealed in life.sealed:
        shared = {u.workload_index for u in sealed.batch.usage if Measured.OTHERS in u.measured}
        whole = [w for i, w in enumerate(sealed.batch.workloads) if i not in shared]
        assert len(set(whole)) == len(whole)
        for u in sealed.batch.usage:
            workload = sealed.batch.workloads[u.workload_index]
            if Measured.OTHERS in u.measured:
                assert (u.duration_ns, u.sm_elapsed_cycles, u.energy_mj) == (0, 0, 0)
            assert workload != IDLE or not u.measured & (Measured.APPORTIONED | Measured.OTHERS)
    taken(life.sealed)


@SLOW
@given(schedule=st.lists(ticks, max_size=25))
def test_what_the_scheduler_gives_is_never_idle_and_work_there_never_nobodys(schedule: list) -> None:  # type: ignore[type-arg]
    """Without failures or restarts, and one holder a GPU: the time of a given GPU is its holder's or a process's."""
    calm = [
        (
            ns,
            shares,
            there,
            (["1"], ["2"]),
            "read" if then in ("fail", "kill", "restart", "unlisted") else then,
        )
        for ns, shares, there, _, then in schedule
    ]
    life, _ = live([(SECOND, ({}, {}), ({}, {}), (["1"], ["2"]), "read"), *calm])
    for gpu in life.gpus:
        nobody = [u for w, u in rows(life.sealed, gpu.entity) if w == UNATTRIBUTED]
        assert sum(u.sm_elapsed_cycles for u in nobody) == 0
        idle = sum(u.duration_ns for w, u in rows(life.sealed, gpu.entity) if w == IDLE)
        assert idle <= 8 * SECOND  # before it was given
