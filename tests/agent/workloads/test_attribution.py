"""Whose a reading is: what the source states, else the processes, each by its cgroup."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metering import JOB_A, JOB_B

from flopmeter.agent.reading import Process, Reading
from flopmeter.agent.workloads.attribution import Attributor, Holding, ProcFinder, from_cgroup
from flopmeter.agent.workloads.labels import tidy
from flopmeter.contract.ids import check_label
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind

POD = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"


class Finder:
    def __init__(self, found: dict[int, Workload | None]) -> None:
        self.found = found
        self.asked: list[int] = []

    def find(self, pid: int, start_ticks: int) -> Workload | None:
        self.asked.append(pid)
        return self.found.get(pid)


def reading(*pids: int, **changes: object) -> Reading:
    processes = tuple(Process(p, p * 10) for p in pids)
    return Reading(**({"entity": "GPU-0", "t_boot_ns": 1, "t_unix_ns": 1, "processes": processes} | changes))  # type: ignore[arg-type]


def test_what_the_source_states_wins() -> None:
    finder = Finder({1: JOB_B})
    assert Attributor(finder).attribute(reading(1, workload=JOB_A)) == Holding(JOB_A)
    assert finder.asked == []


def test_no_process_is_idle_and_no_list_is_unknown() -> None:
    attributor = Attributor(Finder({}))
    assert attributor.attribute(reading()) == Holding(IDLE, snapshot=True)
    assert attributor.attribute(reading(processes=None)) == Holding(None)


def test_one_workload_of_many_processes() -> None:
    assert Attributor(Finder({1: JOB_A, 2: JOB_A})).attribute(reading(1, 2)) == Holding(JOB_A, snapshot=True)


def test_several_workloads_share_and_are_named() -> None:
    found = Finder({1: JOB_A, 2: JOB_B, 3: None})
    holding = Attributor(found).attribute(reading(1, 2, 3))
    assert holding.workload == UNATTRIBUTED
    assert holding.shared == "held by a process that cannot be told, slurm:1.0, slurm:2.0"
    assert holding.parts == ((UNATTRIBUTED, 1), (JOB_A, 1), (JOB_B, 1))  # nobody's SM utilisation is known


def test_shares_follow_the_sm_utilisation_of_this_reading() -> None:
    finder = Finder({1: JOB_A, 2: JOB_B, 3: JOB_A})
    attributor = Attributor(finder)
    for used, wanted in (
        ((30.0, 60.0, 10.0), {JOB_A: 40, JOB_B: 60}),  # two processes of one workload are one workload
        ((None, 60.0, None), {JOB_A: 0, JOB_B: 60}),  # no sample beside one that has: it ran nothing
        ((0.0, 0.0, None), {JOB_A: 1, JOB_B: 1}),
        ((float("nan"), 101.0, -1.0), {JOB_A: 1, JOB_B: 1}),
    ):
        processes = tuple(Process(p, p * 10, u) for p, u in zip((1, 2, 3), used, strict=True))
        holding = attributor.attribute(reading(processes=processes))
        weights = dict(holding.parts)
        assert {w: weights[w] * sum(wanted.values()) for w in weights} == {
            w: share * sum(weights.values()) for w, share in wanted.items()
        }
        assert holding.sharers == (JOB_A, JOB_B)
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


def test_one_that_cannot_be_told_among_others_is_asked_for_again() -> None:
    finder = Finder({1: JOB_A})
    attributor = Attributor(finder)
    assert attributor.attribute(reading(1, 2)).sharers == (UNATTRIBUTED, JOB_A)
    finder.found[2] = JOB_B
    assert attributor.attribute(reading(1, 2)).sharers == (JOB_A, JOB_B)


def test_the_answer_is_remembered_until_the_processes_change() -> None:
    finder = Finder({1: JOB_A, 2: JOB_B})
    attributor = Attributor(finder)
    attributor.attribute(reading(1))
    attributor.attribute(reading(1))
    assert finder.asked == [1]
    assert attributor.attribute(reading(2)) == Holding(JOB_B, snapshot=True, began_ns=200_000_000)
    attributor.attribute(reading(2, entity="GPU-1"))
    assert finder.asked == [1, 2, 2]
    attributor.forget("GPU-0")
    attributor.attribute(reading(2))
    assert finder.asked == [1, 2, 2, 2]


def test_a_process_that_could_not_be_told_is_asked_for_again() -> None:
    finder = Finder({})
    attributor = Attributor(finder)
    assert attributor.attribute(reading(1)) == Holding(UNATTRIBUTED, snapshot=True)
    finder.found[1] = JOB_A
    assert attributor.attribute(reading(1)) == Holding(JOB_A, snapshot=True)


def test_names_that_the_contract_refuses_are_made_fit() -> None:
    odd = Workload(WorkloadKind.OTHER, job="a\nb", run=" x" * 300, user="\ud800", dtype="bf16")
    got = Attributor().attribute(reading(workload=odd)).workload
    assert got is not None
    for name in ("job", "step", "run", "user", "dtype"):
        check_label(name, getattr(got, name))
    assert got.job == "a_b"
    assert got.dtype == "bf16"


@given(st.text(max_size=400), st.text(max_size=400))
def test_tidy_names_are_always_allowed(job: str, run: str) -> None:
    got = tidy(Workload(WorkloadKind.POD, job=job, run=run))
    check_label("job", got.job)
    check_label("run", got.run)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", ("slurm", "4711", "0")),
        ("0::/system.slice/node1_slurmstepd.scope/job_4711/step_batch", ("slurm", "4711", "batch")),
        ("9:cpuset:/slurm/uid_1000/job_42/step_extern\n8:memory:/", ("slurm", "42", "extern")),
        ("5:devices:/slurm_node1/uid_0/job_7", ("slurm", "7", "")),
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/x",
            ("pod", POD, ""),
        ),
        (f"11:pids:/kubepods/besteffort/pod{POD}/3b1a", ("pod", POD, "")),
        (
            f"0::/kubelet.slice/kubelet-kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice",
            ("pod", POD, ""),
        ),
        ("0::/user.slice/user-1000.slice/session-3.scope", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/slurm/job_4711/step_0", None),
        ("0::/../../user.slice/user-1000.slice/user@1000.service/slurm/job_4711/step_0", None),
        ("0::/../../system.slice/slurmstepd.scope/job_4711/step_0", ("slurm", "4711", "0")),
        ("0::/system.slice/docker-3b1a.scope", None),
        ("0::/myslurm/job_1/step_1", None),
        ("garbage", None),
        ("", None),
    ],
)
def test_cgroup_paths(text: str, wanted: tuple[str, str, str] | None) -> None:
    got = from_cgroup(text)
    assert (got and (got.kind.label, got.job, got.step)) == wanted


def proc(root: Path, pid: int, cgroup: str, *, start: int = 77, group: int = 500, env: bytes = b"") -> None:
    folder = root / str(pid)
    folder.mkdir()
    rest = " ".join(["S", "1", str(group), *["0"] * 16, str(start), "0"])
    (folder / "stat").write_text(f"{pid} (name with ) and ( spaces) {rest}")
    (folder / "cgroup").write_text(cgroup)
    (folder / "environ").write_bytes(env)


SLURM = "0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n"
ENV = b"SECRET=x\0FLOPMETER_RUN=gpt\0FLOPMETER_DTYPE=FP8\0SLURM_JOB_ID=4711\0"


def test_proc_finder_reads_cgroup_and_allowed_variables(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM, env=ENV)
    wanted = Workload(WorkloadKind.SLURM, job="4711", step="0", run="gpt", dtype="fp8")
    finder = ProcFinder(str(tmp_path))
    assert finder.find(12, 77) == wanted
    (tmp_path / "12" / "stat").unlink()
    assert finder.find(12, 77) == wanted  # remembered: one look a process


def test_environment_never_replaces_the_cgroup(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM, env=ENV.replace(b"4711", b"9999"))
    proc(tmp_path, 13, "0::/user.slice", env=ENV)
    proc(tmp_path, 500, "0::/user.slice", start=11)
    proc(tmp_path, 14, SLURM, env=b"FLOPMETER_DTYPE=float99\0FLOPMETER_RUN=a\nb\0")
    finder = ProcFinder(str(tmp_path))
    assert finder.find(12, 77) == Workload(WorkloadKind.SLURM, job="4711", step="0")
    assert finder.find(13, 77) == Workload(WorkloadKind.PROCESS, job="500-11", run="gpt", dtype="fp8")
    assert finder.find(14, 77) == Workload(WorkloadKind.SLURM, job="4711", step="0", run="a_b")


def test_a_pid_used_again_is_not_the_process_that_was_meant(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM, start=77)
    finder = ProcFinder(str(tmp_path))
    assert finder.find(12, 76) is None
    assert finder.find(12, 0) is not None  # the source does not say: taken as it is
    assert finder.find(99, 1) is None


def test_an_environment_that_may_not_be_read_is_tolerated(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM)
    (tmp_path / "12" / "environ").unlink()
    (tmp_path / "12" / "environ").mkdir()  # opens, and fails on read, for root too
    assert ProcFinder(str(tmp_path)).find(12, 77) == Workload(WorkloadKind.SLURM, job="4711", step="0")


@pytest.mark.parametrize("stat", [b"", b"12 (x", b"12 (x) S 1", b"\xff\xfe", b"12 (x) " + b"z " * 30])
def test_a_broken_stat_is_nobody(tmp_path: Path, stat: bytes) -> None:
    proc(tmp_path, 12, SLURM)
    (tmp_path / "12" / "stat").write_bytes(stat)
    assert ProcFinder(str(tmp_path)).find(12, 77) is None


def test_this_very_process_is_found() -> None:
    found = ProcFinder().find(os.getpid(), 0)
    assert found is not None
    assert found.job


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flopmeter.agent.workloads.attribution.MAX_REMEMBERED", 2)
    finder = ProcFinder(str(tmp_path))
    for pid in range(10, 15):
        proc(tmp_path, pid, SLURM)
        assert finder.find(pid, 77) is not None
    assert len(finder._known) <= 2
