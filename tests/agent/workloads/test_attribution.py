"""Whose a reading is: what the source states, else the processes, and whom the scheduler gave the GPU to."""

import os
from collections.abc import Mapping

import pytest
from metering import JOB_A, JOB_B, SECOND, Gpu, device, facts, meter, rows

from flopmeter.agent.reading import Process, Reading
from flopmeter.agent.workloads.allocations import Allocations
from flopmeter.agent.workloads.attribution import NO_HOST_PIDS, UNSEEN_NS, Attributor, Holding
from flopmeter.agent.workloads.known import MAX_KNOWN
from flopmeter.agent.workloads.processes import ProcFinder
from flopmeter.contract.identity import check_identities, identities
from flopmeter.contract.ids import check_label
from flopmeter.contract.usage import (
    IDLE,
    UNATTRIBUTED,
    Measured,
    NoticeKind,
    Uncovered,
    Workload,
    WorkloadKind,
)

A, B = Workload(WorkloadKind.SLURM, job="1", step="0"), Workload(WorkloadKind.SLURM, job="2", step="0")
ALLOCATED_A, ALLOCATED_B = Workload(WorkloadKind.SLURM, job="1"), Workload(WorkloadKind.SLURM, job="2")


class Finder:
    def __init__(self, found: dict[int, Workload | None]) -> None:
        self.found = found
        self.asked: list[int] = []

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        self.asked.append(pid)
        return self.found.get(pid)


class Scheduler:
    """An AllocationSource in a test's hand."""

    def __init__(self, **given: tuple[Workload, ...]) -> None:
        self.now: Allocations | None = None
        self.met_with: list[tuple[str, Workload]] = []
        self.more: dict[str, dict[str, object]] = {}
        self.give({name.replace("_", "-"): held for name, held in given.items()})

    def give(self, given: Mapping[str, tuple[Workload, ...]], at_ns: int = 1) -> None:
        self.now = Allocations(at_ns, dict(given))

    def latest(self) -> Allocations | None:
        return self.now

    def describe(self, workload: Workload) -> Workload:
        from dataclasses import replace

        more = self.more.get(workload.job)
        return replace(workload, **more) if more else workload  # type: ignore[arg-type]

    def met(self, entity: str, workload: Workload) -> None:
        self.met_with.append((entity, workload))

    def unmetered(self) -> tuple[Uncovered, ...]:
        return ()

    def close(self) -> None:
        pass


def reading(*pids: int, **changes: object) -> Reading:
    processes = tuple(Process(p, p * 10) for p in pids)
    return Reading(**({"entity": "GPU-0", "t_boot_ns": 1, "t_unix_ns": 1, "processes": processes} | changes))  # type: ignore[arg-type]


# ---- what the source states, and processes alone ---------------------------------------------------


def test_what_the_source_states_wins() -> None:
    finder = Finder({1: JOB_B})
    found = Attributor(finder, [Scheduler(GPU_0=(ALLOCATED_B,))]).attribute(reading(1, workload=JOB_A))
    assert found == Holding(JOB_A)
    assert finder.asked == []


def test_no_process_is_idle_and_no_list_is_unknown() -> None:
    attributor = Attributor(Finder({}))
    assert attributor.attribute(reading()) == Holding(IDLE, snapshot=True)
    assert attributor.attribute(reading(processes=None)) == Holding(None)


def test_one_workload_of_many_processes_and_what_is_known_of_it() -> None:
    attributor = Attributor(Finder({1: JOB_A, 2: JOB_A}))
    assert attributor.attribute(reading(1, 2)) == Holding(A, snapshot=True)
    assert attributor.describe(A) == JOB_A
    assert attributor.described(reading(1, 2)) == JOB_A
    assert attributor.described(reading(processes=None)) is None


def test_several_workloads_share_and_are_named() -> None:
    found = Finder({1: JOB_A, 2: JOB_B, 3: None})
    holding = Attributor(found).attribute(reading(1, 2, 3))
    assert holding.workload == UNATTRIBUTED
    assert holding.shared == "held by a process that cannot be told, slurm:1.0, slurm:2.0"
    assert holding.parts == ((UNATTRIBUTED, 1), (A, 1), (B, 1))  # nobody's SM utilisation is known


def test_shares_follow_the_sm_utilisation_of_this_reading() -> None:
    finder = Finder({1: JOB_A, 2: JOB_B, 3: JOB_A})
    attributor = Attributor(finder)
    for used, wanted in (
        ((30.0, 60.0, 10.0), {A: 40, B: 60}),  # two processes of one workload are one workload
        ((None, 60.0, None), {A: 0, B: 60}),  # no sample beside one that has: it ran nothing
        ((0.0, 0.0, None), {A: 1, B: 1}),
        ((float("nan"), 101.0, -1.0), {A: 1, B: 1}),
    ):
        processes = tuple(Process(p, p * 10, u) for p, u in zip((1, 2, 3), used, strict=True))
        holding = attributor.attribute(reading(processes=processes))
        weights = dict(holding.parts)
        assert {w: weights[w] * sum(wanted.values()) for w in weights} == {
            w: share * sum(weights.values()) for w, share in wanted.items()
        }
        assert holding.sharers == (A, B)
    assert finder.asked == [1, 2, 3]  # who they are is remembered, how much they use is not


def test_when_the_newcomers_began() -> None:
    attributor = Attributor(Finder({}))
    assert attributor.attribute(reading(5)).began_ns == 0  # nothing to compare with
    found = Attributor(Finder(dict.fromkeys(range(9), JOB_A)))
    assert [found.attribute(reading(*pids)).began_ns for pids in ((5,), (5, 7, 6), (), (8,), (8,), (5,))] == [
        0,
        600_000_000,
        0,
        800_000_000,
        800_000_000,
        500_000_000,
    ]


def test_the_answer_is_remembered_until_the_processes_change() -> None:
    finder = Finder({1: JOB_A, 2: JOB_B})
    attributor = Attributor(finder)
    attributor.attribute(reading(1))
    attributor.attribute(reading(1))
    assert finder.asked == [1]
    assert attributor.attribute(reading(2)) == Holding(B, snapshot=True, began_ns=200_000_000)
    attributor.attribute(reading(2, entity="GPU-1"))
    assert finder.asked == [1, 2, 2]
    attributor.forget("GPU-0")
    attributor.attribute(reading(2))
    assert finder.asked == [1, 2, 2, 2]


def test_one_that_cannot_be_told_is_asked_for_again_ever_more_seldom() -> None:
    finder = Finder({1: JOB_A})
    attributor = Attributor(finder)
    assert attributor.attribute(reading(1, 2)).sharers == (UNATTRIBUTED, A)
    for second in range(1, 300):
        assert attributor.attribute(reading(1, 2, t_boot_ns=second * SECOND)).shared
    assert 8 < finder.asked.count(2) < 20
    finder.found[2] = JOB_B
    seen = [attributor.attribute(reading(1, 2, t_boot_ns=t * SECOND)).sharers for t in range(300, 361)]
    assert seen[-1] == (A, B)  # at the latest after a minute
    asked = len(finder.asked)
    attributor.attribute(reading(1, 2, t_boot_ns=900 * SECOND))
    assert len(finder.asked) == asked


def test_names_that_the_contract_refuses_are_made_fit() -> None:
    odd = Workload(WorkloadKind.OTHER, job="a\nb", run=" x" * 300, user="\ud800", dtype="bf16")
    got = Attributor().attribute(reading(workload=odd)).workload
    assert got is not None
    for name in ("job", "step", "run", "user", "dtype"):
        check_label(name, getattr(got, name))
    assert got.job == "a_b"
    assert got.dtype == "bf16"


# ---- whom the scheduler gave it to -----------------------------------------------------------------


def test_what_two_sides_know_of_one_pod_fits_the_contract_also_as_a_key() -> None:
    """Two trainings in one pod of many labels: the second's key is all that is known of it, and goes onto the wire."""
    labels = identities([(f"label:l{n}", "x") for n in range(25)])
    given = Workload(WorkloadKind.POD, "ml/a", "main", identities=labels)
    pods = {
        pid: Workload(
            WorkloadKind.POD, "uid", identities=identities([(f"env:V{n}", f"{pid}") for n in range(20)])
        )
        for pid in (1, 2)
    }
    attributor = Attributor(Finder(dict(pods)), [Scheduler(GPU_0=(given,))])
    holding = attributor.attribute(reading(1, 2))
    assert len(holding.sharers) == 2
    for workload in holding.sharers:
        check_identities(workload.identities)
        check_identities(attributor.describe(workload).identities)


def test_allocated_and_idle_is_the_jobs_and_not_idle() -> None:
    attributor = Attributor(Finder({1: JOB_A}), [Scheduler(GPU_0=(ALLOCATED_A,))])
    waiting = Holding(ALLOCATED_A, snapshot=True, began_ns=1, waiting=True)
    assert attributor.attribute(reading()) == waiting
    assert attributor.attribute(reading(1)).workload == A
    assert not attributor.attribute(reading(1)).waiting
    assert attributor.attribute(reading())[:3] == waiting[:3]
    assert attributor.attribute(reading(entity="GPU-1")) == Holding(IDLE, snapshot=True)
    assert attributor.remarks == []


def test_a_process_that_cannot_be_told_is_of_whom_the_gpu_was_given_to() -> None:
    attributor = Attributor(Finder({}), [Scheduler(GPU_0=(ALLOCATED_A,), GPU_1=(ALLOCATED_A, ALLOCATED_B))])
    assert attributor.attribute(reading(7)) == Holding(ALLOCATED_A, snapshot=True)
    assert attributor.attribute(reading(processes=None)).workload == ALLOCATED_A  # nobody may list them
    assert not attributor.attribute(reading(processes=None)).waiting
    both = attributor.attribute(reading(7, 8, entity="GPU-1"))
    assert both.parts == ((ALLOCATED_A, 1), (ALLOCATED_B, 1))
    used = (Process(7, 70, 30.0), Process(8, 80, 10.0))
    (a, b) = attributor.attribute(reading(processes=used, entity="GPU-1")).parts
    assert a[1] == b[1] > 0


def test_without_a_process_list_the_newest_allocation_says_since_when() -> None:
    scheduler = Scheduler(GPU_0=(ALLOCATED_A,))
    attributor = Attributor(None, [scheduler])
    assert attributor.attribute(reading(processes=None)).began_ns == 1
    scheduler.give({"GPU-0": (ALLOCATED_B,)}, at_ns=5 * SECOND)
    held = attributor.attribute(reading(processes=None))
    assert (held.workload, held.began_ns) == (ALLOCATED_B, 5 * SECOND)
    scheduler.give({}, at_ns=9 * SECOND)
    assert attributor.attribute(reading(processes=None)) == Holding(None, snapshot=True)
    scheduler.now = None  # too old to be believed
    assert attributor.attribute(reading()) == Holding(IDLE, snapshot=True)


def test_a_process_of_another_job_than_the_gpu_was_given_to_is_its_own_jobs_and_said_once() -> None:
    attributor = Attributor(Finder({1: JOB_A}), [Scheduler(GPU_0=(ALLOCATED_B,))])
    for second in range(5):
        assert attributor.attribute(reading(1, t_boot_ns=second * SECOND)).workload == A
        attributor.attribute(reading(t_boot_ns=second * SECOND))
    assert attributor.remarks == [("GPU-0", "a process of slurm:1.0 on a GPU that was given to slurm:2")]


def test_a_contradiction_is_told_also_after_a_thousand_others() -> None:
    jobs = {pid: Workload(WorkloadKind.SLURM, str(pid), "0") for pid in range(10, 1_010)}
    attributor, told = Attributor(Finder(dict(jobs)), [Scheduler(GPU_0=(ALLOCATED_A,))]), 0
    for pid in jobs:
        attributor.attribute(reading(pid))
        told += len(attributor.remarks)
        attributor.remarks.clear()
    assert told == len(jobs)
    assert len(attributor._told) < len(jobs)


def test_the_first_source_that_names_a_holder_is_believed() -> None:
    first, second = Scheduler(GPU_1=(ALLOCATED_A,)), Scheduler(GPU_0=(ALLOCATED_B,), GPU_1=(ALLOCATED_B,))
    attributor = Attributor(None, [first, second])
    assert attributor.attribute(reading()).workload == ALLOCATED_B
    assert attributor.attribute(reading(entity="GPU-1")).workload == ALLOCATED_A
    first.now = None
    assert attributor.attribute(reading(entity="GPU-1")).workload == ALLOCATED_B


def test_a_gpu_that_was_given_whole_was_given_with_its_instances() -> None:
    scheduler = Scheduler(GPU_0=(ALLOCATED_A,), MIG_2=(ALLOCATED_B,))
    attributor = Attributor(None, [scheduler])
    attributor.take_devices(device(n, entity=f"MIG-{n}", mig=True, parent="GPU-0") for n in (1, 2))
    assert attributor.attribute(reading(entity="MIG-1")).workload == ALLOCATED_A
    assert attributor.attribute(reading(entity="MIG-2")).workload == ALLOCATED_B


def test_sources_are_told_who_alone_holds_an_entity_and_asked_what_they_know() -> None:
    scheduler = Scheduler(GPU_0=(ALLOCATED_A,))
    attributor = Attributor(Finder({1: JOB_A, 2: JOB_B}), [scheduler])
    attributor.attribute(reading(1))
    attributor.attribute(reading(1))
    attributor.attribute(reading(1, 2))
    attributor.attribute(reading())
    assert scheduler.met_with == [("GPU-0", JOB_A)]
    scheduler.more["1"] = {"user": "ada\n", "identities": (("slurm.name", "x" * 300),)}
    told = attributor.describe(A)
    assert (told.run, told.user, told.identities) == ("a", "ada_", (("slurm.name", "x" * 256),))
    assert attributor.describe(IDLE) is IDLE


def test_processes_that_are_never_in_proc_are_said_once_for_the_node() -> None:
    attributor = Attributor(Finder({}))
    for second in range(int(UNSEEN_NS / SECOND) * 4):
        for gpu in range(8):
            attributor.attribute(reading(4_000_000 + gpu, entity=f"GPU-{gpu}", t_boot_ns=second * SECOND))
    assert attributor.remarks == [("", NO_HOST_PIDS)]


@pytest.mark.parametrize("finder", [None, Finder({1: JOB_A})])
def test_one_that_is_never_found_among_others_that_are_is_no_sign_of_that(finder: Finder | None) -> None:
    """Nor is it where nobody looks, as in a recording."""
    attributor = Attributor(finder)
    attributor.attribute(reading(1, entity="GPU-1"))
    for second in range(100):
        attributor.attribute(reading(4_000_000, t_boot_ns=second * SECOND))
    assert attributor.remarks == []


@pytest.mark.parametrize("pids", [(), (1,)])
def test_an_answer_that_stays_costs_no_look(pids: tuple[int, ...]) -> None:
    """The common tick: the same processes, the same allocation."""
    finder, scheduler = Finder({1: JOB_A}), Scheduler(GPU_0=(ALLOCATED_A,))
    attributor = Attributor(finder, [scheduler])
    first = attributor.attribute(reading(*pids))
    scheduler.give({"GPU-0": (ALLOCATED_A,)}, at_ns=2)  # another answer that says the same
    assert attributor.attribute(reading(*pids)) is first
    assert len(finder.asked) == len(pids)


def test_a_workload_that_turns_out_to_have_another_name_did_not_change_hands() -> None:
    scheduler = Scheduler()
    attributor = Attributor(
        Finder({1: Workload(WorkloadKind.SLURM, job="s5K1KKYAYG5D0", step="0"), 2: JOB_A}), [scheduler]
    )
    first = attributor.attribute(reading(1))
    scheduler.more["s5K1KKYAYG5D0"] = {"job": "1"}  # Slurm's unique id of job 1
    assert attributor.attribute(reading(2)).workload == first.workload
    assert first.workload is not None
    told = attributor.describe(first.workload)
    assert (told.job, told.run, told.dtype) == ("1", "a", "bf16")
    finder = Finder({1: JOB_B, 2: JOB_A})
    other = Attributor(finder, [scheduler])
    assert other.attribute(reading(1)).workload != other.attribute(reading(2)).workload


def test_a_year_of_short_jobs_does_not_grow_it() -> None:
    jobs = {
        pid: Workload(WorkloadKind.SLURM, job=str(pid), step="0", run=f"r{pid}") for pid in range(1, 3_000)
    }
    attributor = Attributor(Finder(dict(jobs)))
    agent, gpu = meter(attributor=attributor, window=10 * SECOND), Gpu()
    named = set()
    for pid in jobs:
        gpu.run(SECOND, {249: 900})
        found = gpu.reading(pid * SECOND, workload=None, processes=(Process(pid, pid),))
        named |= {w.run for s in agent.observe(found) for w in s.batch.workloads}
    assert len(attributor._known) <= MAX_KNOWN + 20
    assert named >= {f"r{pid}" for pid in range(1, 2_980)}  # and none was forgotten before it was sealed


def test_who_shares_a_gpu_is_remembered_however_many_come_and_go_on_another() -> None:
    """Two trainings of one job step have keys by who came first: forgotten, they would change places."""
    shared = {
        1: Workload(WorkloadKind.SLURM, "7", "0", run="a"),
        2: Workload(WorkloadKind.SLURM, "7", "0", run="b"),
    }
    others = {pid: Workload(WorkloadKind.SLURM, job=str(pid), step="0") for pid in range(10, 2_010)}
    node = facts(device(0), device(1))
    agent = meter(node, attributor=Attributor(Finder({**shared, **others})), window=10 * SECOND)
    one, two = (d.entity for d in node.devices)
    gpus, sealed = (Gpu(), Gpu()), []
    for second in range(60):
        for gpu in gpus:
            gpu.run(SECOND, {249: 900})
        pids = (1,) if second < 5 else (1, 2) if second < 30 else (2, 1)  # another order of the driver's
        held = tuple(Process(pid, pid, 50.0) for pid in pids)
        t = (100 + second) * SECOND
        sealed += agent.observe(gpus[0].reading(t, entity=one, workload=None, processes=held))
        many = tuple(Process(10 + (second * 50 + i) % 2_000, 1) for i in range(50))
        sealed += agent.observe(gpus[1].reading(t, entity=two, workload=None, processes=many))
    parts = [(w.run, u.sm_elapsed_cycles) for w, u in rows(sealed, one) if not u.measured & Measured.OTHERS]
    of_b = sum(cycles for run, cycles in parts if run == "b")
    whole = sum(cycles for _, cycles in parts)
    assert of_b * 49 * 2 == whole * 45  # half of 45 intervals of 49


def test_what_is_only_shown_does_not_grow_either() -> None:
    """The attributor of /metrics and of `agent top` seals no window."""
    jobs = {pid: Workload(WorkloadKind.SLURM, job=str(pid), step="0", run=f"r{pid}") for pid in range(3_000)}
    attributor = Attributor(Finder(dict(jobs)))
    for pid in jobs:
        told = attributor.described(reading(pid))
        assert told is not None
        assert told.run == f"r{pid}"
    assert len(attributor._known) <= MAX_KNOWN + 20
    assert len(attributor._places) <= MAX_KNOWN + 20


def test_this_very_process() -> None:
    own = Process(os.getpid())
    attributor = Attributor(ProcFinder())
    assert attributor.attribute(reading(processes=(own,))).workload is not None


def test_what_is_odd_is_told_in_one_notice() -> None:
    attributor = Attributor(Finder({1: JOB_A}), [Scheduler(GPU_0=(ALLOCATED_B,))])
    agent, gpu = meter(attributor=attributor, window=10 * SECOND), Gpu()
    sealed = []
    for second in range(100, 150):
        gpu.run(SECOND, {249: 900})
        sealed += agent.observe(gpu.reading(second * SECOND, workload=None, processes=(Process(1, 1),)))
    told = [n for s in sealed for n in s.batch.notices if n.kind is NoticeKind.ATTRIBUTION]
    assert [(n.entity_index, n.detail) for n in told] == [
        (0, "a process of slurm:1.0 on a GPU that was given to slurm:2")
    ]
    assert {w.job for s in sealed for w in s.batch.workloads} == {"1"}
