"""cgroup paths: every shape that Slurm writes, and none that a user could have made."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.processes import ProcFinder
from flopmeter.agent.workloads.slurm_cgroup import SLUID, SlurmStep, slurm_of_cgroup, slurm_of_path
from flopmeter.contract.usage import WorkloadKind

SID = "s5K1KKYAYG5D00"  # as Slurm's documentation shows one


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        # v1: upstream's build, and Debian's, which adds the node's name
        ("/slurm/uid_1000/job_4711/step_0", ("4711", "0", "")),
        ("/slurm/uid_1000/job_4711/step_0/task_3", ("4711", "0", "3")),
        ("/slurm_gpu-01/uid_0/job_7/step_batch", ("7", "batch", "")),
        ("/slurm_gpu_01.example.org/uid_0/job_7/step_extern/task_0", ("7", "extern", "0")),
        ("/slurm/uid_1000/job_4711", ("4711", "", "")),
        # v2
        ("/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", ("4711", "0", "0")),
        ("/system.slice/n1_slurmstepd.scope/job_4711/step_interactive/user/task_0", ("4711", "interactive", "0")),
        ("/system.slice/slurmstepd.scope/job_1/step_12/user/task_special", ("1", "12", "")),
        ("/system.slice/slurmstepd.scope/job_1/step_batch/slurm", ("1", "batch", "")),
        ("/system.slice/slurmstepd.scope/job_1/step_0/user/task_0/mine/job_2/step_9", ("1", "0", "0")),
        # v2 from 26.05 on
        (f"/system.slice/slurmstepd.scope/{SID}/step_0/user/task_0", (SID, "0", "0")),
        (f"/system.slice/n1_slurmstepd.scope/{SID}/step_extern/user/task_0", (SID, "extern", "0")),
        # heterogeneous steps, special steps as numbers, steps to come
        ("/slurm/uid_1000/job_4711/step_0+1/task_0", ("4711", "0+1", "0")),
        ("/slurm/uid_1000/job_4711/step_4294967291", ("4711", "batch", "")),
        ("/slurm/uid_1000/job_4711/step_4294967292", ("4711", "extern", "")),
        ("/slurm/uid_1000/job_4711/step_4294967290", ("4711", "interactive", "")),
        ("/slurm/uid_1000/job_4711/step_4294967294", ("4711", "batch", "")),
        ("/slurm/uid_1000/job_4711/step_4294967293", ("4711", "", "")),
        ("/slurm/uid_1000/job_4711/step_TBD", ("4711", "", "")),
        ("/slurm/uid_1000/job_4711/step_007", ("4711", "", "")),
        # the process outlives its cgroup
        ("/slurm/uid_1000/job_4711/step_0 (deleted)", ("4711", "0", "")),
        ("/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0 (deleted)", ("4711", "0", "0")),
        # from within a container whose cgroup namespace is its own
        ("/../../slurm/uid_1000/job_4711/step_0", ("4711", "0", "")),
        ("/../../system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", ("4711", "0", "0")),
        ("/../slurmstepd.scope/job_4711/step_0/user/task_0", ("4711", "0", "0")),
        # the highest id that Slurm gives
        ("/slurm/uid_1000/job_4294967279/step_0", ("4294967279", "0", "")),
    ],
)  # fmt: skip
def test_paths_of_slurmd(path: str, expected: tuple[str, str, str]) -> None:
    assert slurm_of_path(path) == SlurmStep(*expected)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/system.slice/slurmd.service",
        "/system.slice/slurmstepd.scope/system",
        "/system.slice/slurmstepd.scope",
        # what users may name as they like
        "/user.slice/user-1000.slice/user@1000.service/slurm/uid_1000/job_1/step_0",
        "/user.slice/user-1000.slice/user@1000.service/system.slice/slurmstepd.scope/job_1/step_0",
        "/../../user.slice/user-1000.slice/slurmstepd.scope/job_1/step_0/user/task_0",
        "/../docker-0a1b.scope/slurmstepd.scope/job_1/step_0/user/task_0",
        "/docker/0a1b/slurm/uid_0/job_1/step_0",
        "/kubepods/burstable/pod1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40/0a1b/slurm/uid_0/job_1/step_0",
        "/system.slice/../user.slice/slurm/uid_0/job_1/step_0",
        "/system.slice/evil.service/slurmstepd.scope/job_1/step_0",
        "/system.slice/slurmstepd.scope.evil/job_1/step_0",
        "/system.slice/slurmstepdXscope/job_1/step_0",
        "/slurmish/uid_0/job_1/step_0",
        "/slurm/job_1/step_0",
        "/slurm/uid_x/job_1/step_0",
        "/a/slurm/uid_0/job_1/step_0",
        "slurm/uid_0/job_1/step_0",
        # no ids that Slurm gives
        "/slurm/uid_0/job_0/step_0",
        "/slurm/uid_0/job_007/step_0",
        "/slurm/uid_0/job_/step_0",
        "/slurm/uid_0/job_-1/step_0",
        "/slurm/uid_0/job_1x/step_0",
        "/slurm/uid_0/job_٣/step_0",
        "/slurm/uid_0/job_4294967280/step_0",
        "/slurm/uid_0/job_4294967294/step_0",
        "/slurm/uid_0/job_" + "9" * 10_000,
        "/system.slice/slurmstepd.scope/job_4294967295/step_0",
        f"/system.slice/slurmstepd.scope/{SID.lower()}/step_0",
        f"/system.slice/slurmstepd.scope/{SID}0/step_0",
        f"/system.slice/slurmstepd.scope/{SID[:-1]}/step_0",
        "/system.slice/slurmstepd.scope/sZZZZZZZZZZZZZ/step_0",
        f"/slurm/uid_0/{SID}/step_0",
    ],
)
def test_paths_of_nobody(path: str) -> None:
    assert slurm_of_path(path) is None


V1 = """\
9:name=systemd:/system.slice/slurmd.service
6:freezer:/slurm_n1/uid_1000/job_4711/step_0
5:devices:/slurm_n1/uid_1000/job_4711/step_0/task_2
4:memory:/slurm_n1/uid_1000/job_4711
1:cpu:/
0::/
"""


def test_lines_of_one_process_say_the_most_that_any_of_them_says() -> None:
    assert slurm_of_cgroup(V1) == SlurmStep("4711", "0", "2")
    assert slurm_of_cgroup("".join(reversed(V1.splitlines(keepends=True)))) == SlurmStep("4711", "0", "2")
    assert slurm_of_cgroup("0::/system.slice/slurmstepd.scope/job_8/step_0/user/task_0\n") == SlurmStep(
        "8", "0", "0"
    )


def test_lines_that_contradict_each_other_are_not_believed() -> None:
    assert slurm_of_cgroup(V1 + "3:pids:/slurm_n1/uid_1000/job_4712/step_0\n") is None


def test_no_lines_no_job() -> None:
    for text in ("", "\n", ":", "::", "0::", "0::/\n", "garbage", "1:cpu", "\0"):
        assert slurm_of_cgroup(text) is None


def test_a_controller_list_may_hold_colons_no_path() -> None:
    """The first two colons end the fields; those behind them belong to the path."""
    assert slurm_of_cgroup("4:memory:/a:/slurm/uid_0/job_1/step_0") is None


def test_sluids() -> None:
    assert SLUID.match(SID)
    assert SlurmStep(SID).sluid
    assert not SlurmStep("4711").sluid
    for wrong in ("", "4711", "extern", SID + "\n", "s" + "U" * 13, "s" + "0" * 12):
        assert not SLUID.match(wrong)


@given(st.text(max_size=200))
def test_no_text_is_too_odd(text: str) -> None:
    slurm_of_path(text)
    found = slurm_of_cgroup(text)
    assert found is None or found.job


@given(st.text(alphabet="/job_sluremtpid.cov12uk ()", max_size=120))
def test_whoever_names_a_job_does_so_at_the_root(text: str) -> None:
    found = slurm_of_path("/user.slice/" + text)
    assert found is None


def test_a_long_path_costs_little() -> None:
    """Quadratic work on 64 KiB (MAX_CGROUP_BYTES) would take minutes; the test's own limit would stop it."""
    for piece in ("/..", "/slurm_", "/step_", " (deleted)", "/task_0", "_slurmstepd.scope/"):
        slurm_of_path(piece * 20_000)
        slurm_of_path("/slurm/uid_0/job_1" + piece * 20_000)


# ---- as a kernel writes them ----------------------------------------------------------------------------

V2 = next(
    (p for p in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if (p / "cgroup.procs").exists()),
    None,
)


@contextmanager
def process_in(path: str) -> Iterator[int]:
    """A process in that cgroup of the v2 hierarchy, made for it and removed after it."""
    assert V2 is not None
    below = [V2 / Path(*Path(path).parts[:n]) for n in range(1, len(Path(path).parts) + 1)]
    child = subprocess.Popen(["sleep", "600"])
    try:
        for each in below:
            each.mkdir(exist_ok=True)
        (below[-1] / "cgroup.procs").write_text(str(child.pid))
        yield child.pid
    finally:
        child.kill()
        child.wait()
        for each in reversed(below):
            with suppress(OSError):  # another's stands in it
                each.rmdir()


@pytest.mark.skipif(
    os.geteuid() != 0 or V2 is None, reason="only root can make cgroups, and v2 must be mounted"
)
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("system.slice/slurmstepd.scope/job_{pid}/step_0/user/task_0", ("{pid}", "0")),
        ("system.slice/t{pid}_slurmstepd.scope/" + SID + "/step_extern/user/task_special", (SID, "extern")),
        ("t{pid}/system.slice/slurmstepd.scope/job_5/step_0/user/task_0", None),
    ],
)
def test_a_process_in_a_real_cgroup(path: str, expected: tuple[str, str] | None) -> None:
    own = str(os.getpid())  # of the tests that run beside this one
    with process_in(path.format(pid=own)) as pid:
        found = ProcFinder().find(pid, 0)
    assert found is not None
    assert (found.kind is WorkloadKind.SLURM) == (expected is not None)
    if expected is not None:
        assert (found.job, found.step) == (expected[0].format(pid=own), expected[1])
