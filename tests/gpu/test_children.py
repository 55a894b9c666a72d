"""The helpers that run as processes, against the stand-in driver on real clocks; and what ncu prints."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, Machine, build
from gpu.agent_path import rows_of
from gpu.lab import UnavailableError
from gpu.real_lab import RealLab, _AgentProcess, _run_whole, ncu_sums
from gpu.work import Gemm
from processes import wait_for

from flopmeter.contract.usage import GapReason

VALIDATE = Path(__file__).with_name("validate.py")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes started from here find the stand-in: one SM, so that the scale of id 248 is no question."""
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    script = tmp_path / "machine.nvml"
    script.write_text("@0 node driver=595.58.03\n@0 gpu g0 sms=1 cores=128 clock=1755 hmma=0.5\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build().parent))
    monkeypatch.setenv("FAKENVML_SCRIPT", str(script))
    return script


@pytest.mark.usefixtures("driver")
def test_an_agent_that_is_killed_goes_on_from_its_journal(tmp_path: Path) -> None:
    agent = _AgentProcess(tmp_path, "E18")
    agent.kill()
    before, _ = rows_of(tmp_path)
    agent = _AgentProcess(tmp_path, "E18")
    agent.stop()
    rows, data = rows_of(tmp_path)
    assert data["starts"] == 2
    assert rows[: len(before)] == before
    assert not [r for r in rows if r.gap_reason is not GapReason.NONE]
    elapsed, hmma = sum(r.sm_elapsed_cycles for r in rows), sum(r.hmma_cycles for r in rows)
    assert elapsed > 0
    assert hmma == pytest.approx(elapsed / 2, rel=1e-6)
    assert elapsed == pytest.approx(1.755 * sum(r.duration_ns for r in rows), rel=0.05)


def test_an_agent_that_cannot_start_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="did not start"):
        _AgentProcess(tmp_path, "E18")


@pytest.mark.usefixtures("driver")
def test_the_probe_tells_which_ids_answer() -> None:
    done = subprocess.run(
        [sys.executable, VALIDATE, "_probe", "0"], capture_output=True, text=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert {5, 7, 248, 252} <= set(found["answer"])
    assert set(map(int, found["codes"])).isdisjoint(found["answer"])


def test_the_probe_without_gpm_says_so(driver: Path) -> None:
    driver.write_text("@0 gpu g0 gpm=0\n")
    done = subprocess.run(
        [sys.executable, VALIDATE, "_probe", "0"], capture_output=True, text=True, timeout=60
    )
    assert "GPM" in json.loads(done.stdout)["error"]


LOAD = """
import os, sys
sys.path[:0] = sys.argv[2:]
from gpu.children import serve
class Running:
    def pump(self):
        assert os.path.exists(sys.argv[1]), "works before its turn"
        print("working", flush=True)
        return 10
    def drain(self): return 1
serve(Running())
"""


def load(turn: Path) -> subprocess.Popen[str]:
    root = VALIDATE.parents[2]
    rooms = [str(root / room) for room in ("tests", "agent", "protos")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", LOAD, str(turn), *rooms], text=True, **pipes)  # type: ignore[call-overload]


def test_a_load_waits_works_and_tells_how_often(tmp_path: Path) -> None:
    process = load(tmp_path / "turn")
    assert process.stdout.readline() == "ready\n"
    (tmp_path / "turn").touch()
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "working\n"
    out, _ = process.communicate("stop\n", timeout=30)
    calls = int(out.split()[-1])
    assert calls > 10
    assert calls % 10 == 1, "what was drained is counted"


def test_a_load_ends_with_whoever_started_it(tmp_path: Path) -> None:
    process = load(tmp_path / "turn")
    out, _ = process.communicate(timeout=30)
    assert out == "ready\n1\n", "it never worked"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[..., RealLab]]:
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    with Machine(tmp_path, "node driver=595.58.03", "gpu g0 name=NVIDIA_H200 sms=132"):
        labs: list[RealLab] = []

        def make(**settings: bool) -> RealLab:
            labs.append(RealLab(**settings))
            return labs[-1]

        yield make
        for each in labs:
            each.close()


def test_an_mps_daemon_is_ours_and_ends(
    lab: Callable[..., RealLab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = tmp_path / "bin/nvidia-cuda-mps-control"
    control.parent.mkdir()
    seen = tmp_path / "seen"
    control.write_text(f'#!/bin/sh\necho "$CUDA_MPS_PIPE_DIRECTORY $1 $(test -n "$1" || cat)" >>{seen}\n')
    control.chmod(0o755)
    monkeypatch.setenv("PATH", str(control.parent), prepend=":")
    with pytest.raises(UnavailableError, match="--allow-mps"), lab().mps():
        pass
    assert not seen.exists(), "no daemon without leave"
    with lab(allow_mps=True).mps():
        pass
    started, ended = seen.read_text().splitlines()
    assert started.split()[1] == "-d"
    assert ended.split()[1] == "quit"
    assert started.split()[0] == ended.split()[0]
    assert "flopmeter-validation-" in started


def test_a_daemon_that_does_not_start_is_no_failure(
    lab: Callable[..., RealLab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="no nvidia-cuda-mps-control"), lab(allow_mps=True).mps():
        pass
    control = tmp_path / "nvidia-cuda-mps-control"
    control.write_text("#!/bin/sh\necho not permitted >&2\nexit 1\n")
    control.chmod(0o755)
    with pytest.raises(UnavailableError, match="not permitted"), lab(allow_mps=True).mps():
        pass


def test_the_machine_is_described_by_the_driver(lab: Callable[..., RealLab]) -> None:
    found = lab().describe()
    assert found["gpu"] == "NVIDIA H200"
    assert found["driver"] == "595.58.03"
    assert found["simulated"] is False
    json.dumps(found)


def test_without_pytorch_every_workload_is_unavailable(
    lab: Callable[..., RealLab], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UnavailableError, match="no PyTorch"):
        lab().build(Gemm("bf16"), 0.05)


@pytest.mark.usefixtures("driver")
def test_the_probe_is_made_by_the_user_that_is_asked_for(tmp_path: Path) -> None:
    """Also where that user may read nothing of ours. Who is no root stays who he is."""
    done = subprocess.run(
        [sys.executable, VALIDATE, "_probe", "65534"], capture_output=True, text=True, timeout=60, cwd="/"
    )
    found = json.loads(done.stdout)
    assert found["user"] == (65534 if os.geteuid() == 0 else os.geteuid())
    assert "answer" in found


def test_what_a_profiler_started_ends_with_it(tmp_path: Path) -> None:
    """A shell that would wait for its own child, as ncu does for the program under it."""
    child = tmp_path / "pid"
    with pytest.raises(UnavailableError, match="did not end within 1 s"):
        _run_whole(["sh", "-c", f"sleep 300 & echo $! >{child}; wait"], 1.0)
    stat = Path(f"/proc/{child.read_text().strip()}/stat")
    wait_for("the child's end", lambda: not stat.exists() or ") Z " in stat.read_text())


def test_what_ncu_prints_is_summed_over_kernels() -> None:
    metric = "sm__ops_path_tensor_src_bf16_dst_fp32.sum"
    text = (
        "==PROF== Connected to process 1\n==PROF== Profiling: 0%....100%\n"
        f'"ID","Kernel Name","{metric}","other"\n"","","","%"\n'
        '"0","a","1,099,511,627,776","5"\n"1","b","24","n/a"\n'
    )
    assert ncu_sums(text, [metric]) == {metric: 1_099_511_627_800.0}
    assert ncu_sums(text, ["absent"]) == {}
    assert ncu_sums("==ERROR== no permission\n", [metric]) == {}
    assert ncu_sums("", [metric]) == {}
