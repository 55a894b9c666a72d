"""What a measurement counts: all of its own work, and nothing else."""

from pathlib import Path

import pytest
from gpu.agent_path import job
from gpu.fake_lab import FakeLab, FakeRunning, Script
from gpu.lab import UnavailableError
from gpu.measure import Bench, implied_rate, primary
from gpu.work import Gemm

from flopmeter.contract.usage import WorkloadKind


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(FakeLab(), tmp_path / "traces")


def test_work_after_the_last_tick_is_counted(bench: Bench) -> None:
    result = bench.measure(Gemm("bf16"), 2.37, name="x")
    assert result["counters"]["ratio"] == pytest.approx(1, abs=1e-6)
    assert result["percentages"]["ratio"] == pytest.approx(1, abs=1e-3)
    assert [r.workload.job for r in bench.readings if r.workload] == ["between", "x", "x", "x"]


def test_work_of_others_before_and_after_is_not(bench: Bench) -> None:
    def others() -> None:
        for _ in range(20):
            FakeRunning(bench.lab.gpu, Gemm("bf16"), 0.05).pump()  # type: ignore[attr-defined]

    others()
    first = bench.measure(Gemm("bf16"), 3, name="first")
    others()
    second = bench.measure(Gemm("fp16"), 3, name="second")
    others()
    for result in (first, second):
        assert result["counters"]["ratio"] == pytest.approx(1, abs=1e-6)


def test_a_duty_cycle_works_half_of_the_time(bench: Bench) -> None:
    whole = bench.measure(Gemm("bf16"), 7, name="whole")
    half = bench.measure(Gemm("bf16"), 7, name="half", duty=(0.35, 0.35))
    assert half["calls"] / whole["calls"] == pytest.approx(0.5, abs=0.1)
    assert half["counters"]["ratio"] == pytest.approx(1, abs=1e-6)


def test_hooks_run_before_the_work_and_within_it(bench: Bench) -> None:
    seen: list[str] = []
    bench.measure(
        Gemm("bf16"), 1, name="x", ready=lambda: seen.append("ready"), each=lambda: seen.append("each")
    )
    assert seen[0] == "ready"
    assert seen.count("ready") == 1
    assert seen.count("each") > 5


def test_what_cannot_be_built_is_unavailable_and_leaves_the_bench_as_it_was(tmp_path: Path) -> None:
    bench = Bench(FakeLab(Script(torch_int_mm=False)), tmp_path)
    with pytest.raises(UnavailableError, match="_int_mm"):
        bench.measure(Gemm("int8"), 1, name="x")
    assert bench.measure(Gemm("bf16"), 2, name="y")["counters"]["ratio"] == pytest.approx(1, abs=1e-6)


def test_gpm_that_is_silent_on_an_idle_gpu_is_asked_with_work_on_it(tmp_path: Path) -> None:
    bench = Bench(FakeLab(Script(driver="580.159.04", silent_when_idle=True)), tmp_path)
    assert "no tensor percentage" in bench.gpm_fault
    assert bench.look_again() == bench.gpm_fault == ""
    bench = Bench(FakeLab(Script(gpm=False)), tmp_path)
    assert "no tensor percentage" in bench.look_again()
    at = bench.lab.clock.boot_ns()
    assert "no tensor percentage" in bench.look_again()
    assert bench.lab.clock.boot_ns() == at, "once is enough"


def test_primary_is_what_the_driver_allows(tmp_path: Path) -> None:
    old = Bench(FakeLab(Script(driver="580.159.04")), tmp_path)
    result = old.measure(Gemm("bf16"), 3, name="x")
    assert "counters" not in result
    assert primary(result) is result["percentages"]
    with pytest.raises(UnavailableError, match="R595"):
        old.need_counters()


def test_implied_rate(bench: Bench) -> None:
    result = bench.measure(Gemm("tf32"), 3, name="x")
    assert implied_rate(result, "hmma") == pytest.approx(2048, rel=1e-3)
    assert implied_rate(bench.measure(Gemm("int8"), 3, name="y"), "imma") == pytest.approx(8192, rel=1e-3)


def test_a_workload_declares_what_it_runs() -> None:
    assert job("E3-bf16", "bf16").kind is WorkloadKind.OTHER
    assert job("E3-bf16", "bf16").dtype == "bf16"
