"""The parts that talk to NVML, through the real nvidia-ml-py and the stand-in driver of tests/fakenvml."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakenvml.driver import ANCIENT_DRIVER, COMPILER, NO_COMPILER, Machine
from gpu.lab import UnavailableError
from gpu.raw_gpm import NvmlRaw
from gpu.state import State
from gpu.work import Gemm, Work
from gpu.worker import DONE, work_off

from flopmeter.agent.sources.nvml import NvmlSource

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)
SMS, MHZ, BUSY = 132, 1755, 0.8
STEP_NS = 50_000_000


@pytest.fixture(params=["sum", "average"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    gpu = f"gpu g0 name=NVIDIA_H200 sms={SMS} clock={MHZ} ring_ms=20 power=650000"
    with Machine(tmp_path, "node driver=595.58.03", f"{gpu} scale={request.param}") as made:
        yield made


def test_raw_values_are_the_drivers(machine: Machine) -> None:
    raw = NvmlRaw()
    machine.advance(1_000_000_000)
    machine.say(f"gpu g0 hmma={BUSY}")
    older = raw.sample()
    machine.advance(1_000_000_000)
    newer = raw.sample()
    found = raw.metrics(older, newer, (7, 5, 248, 252, 30))
    assert found[7] == (0, pytest.approx(100 * BUSY, rel=1e-6))
    assert found[248][0] == found[252][0] == 0
    assert found[252][1] / found[248][1] < BUSY  # since boot, before which it was idle
    assert found[30][0] != 0, "an id that answers not is no zero"
    assert raw.clock_mhz() == MHZ
    samples = raw.clock_samples(0)
    assert {mhz for _, mhz in samples} == {float(MHZ)}
    assert raw.clock_samples(samples[-1][0]) == []
    assert set(raw.fields((74, 272))) <= {74, 272}
    for _ in range(200):  # no more samples are held than are used
        raw.sample()
    assert machine.calls("nvmlGpmSampleAlloc") - machine.calls("nvmlGpmSampleFree") <= 66
    raw.close()
    assert machine.calls("nvmlGpmSampleAlloc") == machine.calls("nvmlGpmSampleFree")


def test_all_ids_are_asked_though_one_is_refused(tmp_path: Path) -> None:
    with Machine(tmp_path, "node strict=1 gpm_max=210", "gpu g0 hmma=0.5") as machine:
        raw = NvmlRaw()
        older = raw.sample()
        machine.advance(1_000_000_000)
        found = raw.metrics(older, raw.sample(), (7, 5, 248))
        assert found[7] == (0, pytest.approx(50.0, rel=1e-6))
        assert found[248][0] != 0
        raw.close()


@dataclass
class OnMachine:
    """Works by telling the stand-in driver that the pipes are active."""

    machine: Machine
    work: Gemm
    done_ns: int = 0

    def pump(self) -> int:
        busy = BUSY / {"fp64": 1}.get(self.work.dtype, 1)
        pipe = {"fp64": "dfma", "int8": "imma"}.get(self.work.dtype, "hmma")
        self.machine.say(f"gpu g0 {pipe}={busy}")
        self.machine.advance(STEP_NS)
        self.machine.say(f"gpu g0 {pipe}=0")
        return 1

    def drain(self) -> int:
        return 0

    def kernels(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class OneStep(Gemm):
    """A product that takes exactly one step of the machine at BUSY."""

    @property
    def flop(self) -> int:
        return round(SMS * MHZ * STEP_NS // 1000 * BUSY) * 4096


class MachineLab:
    """The parts of RealLab that have no GPU in them: source, raw readings; the work is scripted."""

    simulated = True

    def __init__(self, machine: Machine) -> None:
        self.clock = self.machine = machine

    def describe(self) -> dict[str, Any]:
        return {"gpu": "NVIDIA H200", "driver": "595.58.03", "simulated": True}

    def source(self) -> NvmlSource:
        return NvmlSource(self.machine, node="n")

    def raw(self) -> NvmlRaw:
        return NvmlRaw()

    def build(self, work: Work, chunk_s: float) -> OnMachine:
        assert isinstance(work, Gemm)
        return OnMachine(self.machine, work)

    def sm_clocks(self) -> Mapping[int, tuple[int, int]]:
        raise UnavailableError("no kernels here")

    def probe_as_user(self) -> dict[str, Any]:
        raise UnavailableError("one user only")


def test_experiments_through_the_binding(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source, raw readings, meter, calibration and rules together, on a driver that keeps its own books."""
    for module in ("experiments_counters", "experiments_tensor", "measure"):
        monkeypatch.setattr(f"gpu.{module}.Gemm", OneStep)
    state = State.load(tmp_path / "out")
    only = ["E0", "E2", "E3", "E16"]
    said: list[str] = []
    assert work_off(MachineLab(machine), state, only=only, budget_s=1e9, say=said.append) == DONE  # type: ignore[arg-type]
    assert {k: (r["status"], r["why"]) for k, r in state.results.items()} == {
        "E0": ("pass", "as ordinary user: one user only"),
        "E2": ("pass", ""),
        "E3": ("pass", ""),
        "E16": ("pass", "clock read on the SMs: no kernels here"),
    }, said
    for line in state.results["E3"]["lines"]:
        assert line["ratio"] == pytest.approx(1.0, abs=0.001 if line["by"] == "counters" else 0.01)


def test_clocks_and_fields_are_read_where_there_is_no_gpm(tmp_path: Path) -> None:
    with Machine(tmp_path, "node driver=595.58.03", "gpu g0 gpm=0 clock=1755"):
        raw = NvmlRaw()
        assert raw.clock_mhz() == MHZ
        with pytest.raises(UnavailableError, match="no GPM"):
            raw.sample()
        raw.close()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["gpu g0 state=lost"], "no GPU to read"),
        (["gpu g0 sms=132 mig=1", "gi g0/1 sms=16"], "MIG is on"),
    ],
    ids=["lost", "mig"],
)
def test_a_gpu_that_cannot_be_validated_is_told_not_crashed(
    tmp_path: Path, lines: list[str], why: str
) -> None:
    with Machine(tmp_path, "node driver=595.58.03", *lines) as machine:
        state = State.load(tmp_path / "out")
        work_off(MachineLab(machine), state, only=["E3"], budget_s=1e9, say=lambda text: None)  # type: ignore[arg-type]
        assert state.results["E3"]["status"] == "not run"
        assert why in state.results["E3"]["why"]


def test_a_driver_without_gpm_is_told_not_crashed(tmp_path: Path) -> None:
    with Machine(tmp_path, "node driver=450.51.05", "gpu g0 gpm=0", without=ANCIENT_DRIVER) as machine:
        state = State.load(tmp_path / "out")
        work_off(MachineLab(machine), state, only=["E0"], budget_s=1e9, say=lambda text: None)  # type: ignore[arg-type]
        assert state.results["E0"]["status"] == "not run"
        assert "no GPM" in state.results["E0"]["why"]
