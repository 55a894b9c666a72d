"""Processes of this node: their cgroup, their allowed variables, and which process is meant."""

import os
from pathlib import Path

import pytest

from flopmeter.agent.workloads.processes import ProcFinder
from flopmeter.contract.usage import Workload, WorkloadKind

SLURM = "0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0\n"
USERS = "0::/user.slice/user-1000.slice/session-3.scope\n"
ENV = b"SECRET=x\0FLOPMETER_RUN=gpt\0FLOPMETER_DTYPE=FP8\0SLURM_JOB_ID=4711\0"
UID = str(os.getuid())


def proc(root: Path, pid: int, cgroup: str, *, start: int = 77, group: int = 500, env: bytes = b"") -> None:
    folder = root / str(pid)
    folder.mkdir()
    rest = " ".join(["S", "1", str(group), *["0"] * 16, str(start), "0"])
    (folder / "stat").write_text(f"{pid} (name with ) and ( spaces) {rest}")
    (folder / "cgroup").write_text(cgroup)
    (folder / "environ").write_bytes(env)


def boot(root: Path, text: str = "0f9e1d2c-3b4a-4958-8677-0a1b2c3d4e5f\n") -> None:
    (root / "sys/kernel/random").mkdir(parents=True)
    (root / "sys/kernel/random/boot_id").write_text(text)


def test_it_reads_cgroup_and_allowed_variables_once_a_process(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM, env=ENV)
    finder = ProcFinder(str(tmp_path))
    found = finder.find(12, 77)
    assert found is not None
    assert (found.kind, found.job, found.step, found.run, found.dtype) == (
        WorkloadKind.SLURM, "4711", "0", "gpt", "fp8",
    )  # fmt: skip
    assert dict(found.identities) == {
        "env:FLOPMETER_DTYPE": "FP8",
        "env:FLOPMETER_RUN": "gpt",
        "env:SLURM_JOB_ID": "4711",
    }
    (tmp_path / "12" / "stat").unlink()
    assert finder.find(12, 77) is found  # remembered


def test_no_secret_of_an_environment_gets_out(tmp_path: Path) -> None:
    secrets = b"\0".join(
        b"%s=hunter2-%d" % (n, i) for i, n in enumerate([b"AWS_SECRET_ACCESS_KEY", b"X", b"run"])
    )
    for pid, cgroup in ((12, SLURM), (13, USERS), (14, "0::/system.slice/a.service\n")):
        proc(tmp_path, pid, cgroup, env=secrets + b"\0" + ENV)
        found = ProcFinder(str(tmp_path)).find(pid, 77)
        assert found is not None
        assert found.run == "gpt"
        assert "hunter2" not in repr(found)


def test_a_sender_whose_start_is_not_known_is_read_once_too(tmp_path: Path) -> None:
    """Who declares is known by number alone; its environment may be a megabyte, and is not read each time."""
    reads: list[str] = []

    class Counting(ProcFinder):
        def _read(self, where: int | str, name: str, limit: int) -> bytes:
            reads.append(name)
            return super()._read(where, name, limit)

    proc(tmp_path, 12, SLURM, env=ENV)
    finder = Counting(str(tmp_path))
    first = finder.find(12, 0)
    assert finder.find(12, 0) is first
    assert reads.count("environ") == 1
    (tmp_path / "12" / "stat").write_text("12 (other) S 1 500 " + "0 " * 16 + "78 0")
    assert finder.find(12, 0) is not first  # another process of that number


def test_more_variables_by_the_sites_will(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM, env=b"TEAM=a\0SECRET=x\0")
    found = ProcFinder(str(tmp_path), frozenset({"TEAM"})).find(12, 77)
    assert found is not None
    assert found.identities == (("env:TEAM", "a"),)


def test_environment_never_replaces_the_cgroup(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM, env=ENV.replace(b"4711", b"9999"))
    proc(tmp_path, 14, SLURM, env=b"FLOPMETER_DTYPE=float99\0FLOPMETER_RUN=a\nb\0")
    finder = ProcFinder(str(tmp_path))
    assert finder.find(12, 77) == Workload(WorkloadKind.SLURM, job="4711", step="0")
    found = finder.find(14, 77)
    assert found is not None
    assert (found.job, found.run, found.dtype) == ("4711", "a_b", "")


def test_bare_processes_are_told_by_boot_group_and_start_of_its_leader(tmp_path: Path) -> None:
    boot(tmp_path)
    proc(tmp_path, 13, USERS)
    proc(tmp_path, 15, USERS, start=99)
    proc(tmp_path, 16, USERS, start=50, group=501)  # its leader has gone
    proc(tmp_path, 500, USERS, start=11)
    finder = ProcFinder(str(tmp_path))
    jobs = [found.job for pid, start in ((13, 77), (15, 99), (16, 50)) if (found := finder.find(pid, start))]
    assert jobs == ["0f9e1d2c-500-11", "0f9e1d2c-500-11", "0f9e1d2c-501-50"]
    found = finder.find(13, 77)
    assert found is not None
    assert (found.kind, found.identities) == (WorkloadKind.PROCESS, (("host.uid", UID),))


def test_a_unit_or_container_is_the_job_of_all_that_runs_in_it(tmp_path: Path) -> None:
    container = "3b1a" * 16
    proc(tmp_path, 13, "0::/system.slice/train.service/worker\n", group=13)
    proc(tmp_path, 14, "0::/system.slice/train.service\n", group=14)
    proc(tmp_path, 15, f"0::/system.slice/docker-{container}.scope\n", group=15)
    proc(tmp_path, 16, "0::/user.slice/user-7.slice/user@7.service/app.slice/mine.service\n", group=16)
    found = [ProcFinder(str(tmp_path)).find(pid, 77) for pid in (13, 14, 15, 16)]
    assert [w and w.job for w in found] == ["train.service"] * 2 + ["container-3b1a3b1a3b1a", "16-77"]
    assert [w and dict(w.identities) for w in found[1:]] == [
        {"host.unit": "train.service", "host.uid": UID},
        {"host.container": container, "host.uid": UID},
        {"declared:unit": "mine.service", "host.uid": UID},  # its user's word
    ]


def test_a_pid_used_again_is_not_the_process_that_was_meant(tmp_path: Path) -> None:
    proc(tmp_path, 12, SLURM, start=77)
    finder = ProcFinder(str(tmp_path))
    assert finder.find(12, 76) is None
    assert finder.find(12, 0) is not None  # the source does not say: taken as it is
    assert finder.find(99, 1) is None


def test_a_process_that_ends_while_it_is_looked_at_is_not_taken_for_the_next(tmp_path: Path) -> None:
    class Slow(ProcFinder):
        def _read(self, where: int | str, name: str, limit: int) -> bytes:
            raw = super()._read(where, name, limit)
            if name == "cgroup":  # gone, and its number used again, before its environment is read
                (tmp_path / "12" / "stat").write_text("12 (other) S 1 500 " + "0 " * 16 + "78 0")
                (tmp_path / "12" / "environ").write_bytes(ENV)
            return raw

    proc(tmp_path, 12, SLURM)
    assert Slow(str(tmp_path)).find(12, 77) is None


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
    monkeypatch.setattr("flopmeter.agent.workloads.processes.MAX_REMEMBERED", 2)
    finder = ProcFinder(str(tmp_path))
    for pid in range(10, 15):
        proc(tmp_path, pid, SLURM)
        assert finder.find(pid, 77) is not None
    assert len(finder._known) <= 2
