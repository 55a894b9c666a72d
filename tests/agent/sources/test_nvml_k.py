"""Counters of unknown worth and shared GPUs, from the driver to usage: stand-in NVML, real binding, source, meter."""

from contextlib import ExitStack

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine

from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed
from flopmeter.agent.workloads.processes import WorkloadFinder
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import Measured, NoticeKind, Usage, Workload, WorkloadKind

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

SMS = 132
JOBS = {n: Workload(WorkloadKind.SLURM, job=str(n)) for n in (1, 2)}


@pytest.fixture
def machine(tmp_path):
    with ExitStack() as stack:
        yield lambda *lines, **how: stack.enter_context(Machine(tmp_path, *lines, **how))


class Finder(WorkloadFinder):
    def find(self, pid: int, start_ticks: int) -> Workload | None:
        return JOBS.get(pid)


def script(scale: str, k: str) -> str:
    return f"gpu g0 scale={scale} clock=1980:7,345:2,1200:5 hmma=0.6:3,0.3:2 fp32=0.2 k.hmma={k} k.tensor={k}"


def run(m: Machine, seconds: int, tick_ns: int = SECOND) -> list[Sealed]:
    source = m.source()
    meter = Meter(source.facts(), MeterSettings(tick_ns=tick_ns), agent_version="t", finder=Finder())
    sealed: list[Sealed] = []
    for _ in range(seconds * SECOND // tick_ns + 1):
        m.advance(tick_ns)
        sealed += meter.observe(source.read(m.uuid(0)))
    last = meter.flush(final=True)
    source.close()
    return [*sealed, last] if last else sealed


def usage(sealed: list[Sealed]) -> list[tuple[Workload, Usage]]:
    return [(s.batch.workloads[u.workload_index], u) for s in sealed for u in s.batch.usage]


@pytest.mark.parametrize("tick_ns", [SECOND // 4, SECOND, 10 * SECOND], ids=lambda t: f"{t / SECOND:g}s")
@pytest.mark.parametrize("k", ["0.25", "2", "0.0075757575757"])
@pytest.mark.parametrize("scale", ["sum", "average"])
def test_whatever_a_count_is_worth_usage_is_within_a_thousandth(machine, scale, k, tick_ns):
    """Quarters of an SM, pairs of cycles, or a sum over the SMs beside an average."""
    m = machine(
        f"gpu g0 scale={scale} clock=1980:7,345:2,1200:5 hmma=0.6:3,0.3:2 fp32=0.2 k.hmma={k} k.tensor={k}"
    )
    sealed = run(m, 240, tick_ns)
    rows = [u for _, u in usage(sealed)]
    assert not [u for u in rows if u.gap_reason]
    assert {u.evidence_class for u in rows} == {EvidenceClass.A1, EvidenceClass.A2}
    elapsed = sum(u.sm_elapsed_cycles for u in rows)
    assert sum(u.fp32_cycles for u in rows) == pytest.approx(elapsed * 0.2, rel=1e-4)
    same = run(machine(script(scale, "1")), 240, tick_ns)
    true = sum(u.hmma_cycles for _, u in usage(same))
    assert sum(u.hmma_cycles for u in rows) == pytest.approx(true, rel=1e-3)
    assert sum(u.tensor_other_cycles for u in rows) <= elapsed // 100_000
    said = [n.detail for s in sealed for n in s.batch.notices if n.kind is NoticeKind.CALIBRATION]
    assert sum(text.startswith("k of counter 252") for text in said) == 1
    last = sealed[-1].batch.anchors[-1]
    assert dict(zip((n for n, _ in last.counters), last.k_ppm, strict=True))[252] == round(float(k) * 10**6)


def test_two_processes_of_a_gpu_get_what_the_driver_says_they_used(machine):
    m = machine("gpu g0 clock=1700 hmma=0.5 procs=1:25,2:75")
    sealed = run(m, 40)
    rows = usage(sealed)

    def added(job: str, mark: Measured, name: str) -> int:
        return sum(getattr(u, name) for w, u in rows if w.job == job and mark in u.measured)

    assert {w.job for w, _ in rows} == {"1", "2"}
    own, beside = (
        {j: added(j, mark, "hmma_cycles") for j in "12"} for mark in (Measured.APPORTIONED, Measured.OTHERS)
    )
    total = sum(added(job, Measured.APPORTIONED, "sm_elapsed_cycles") for job in "12")
    assert total == 40 * 1_700_000_000 * SMS
    assert sum(added(job, Measured.APPORTIONED, "duration_ns") for job in "12") == 40 * SECOND
    assert own["1"] == pytest.approx(total * 0.5 * 0.25, rel=1e-4)
    assert own["1"] + own["2"] == pytest.approx(total // 2, rel=1e-6)
    assert (beside["1"], beside["2"]) == (own["2"], own["1"])
