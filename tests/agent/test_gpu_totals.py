"""What GPUs did, as /metrics shows it: added up from the records that are durable, to the cycle; absent is never zero."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from builders import busy, gap
from hypothesis import given, settings
from hypothesis import strategies as st
from pipelines import batches, live, opened, records
from prometheus_client.core import Metric
from sim_node import SimRecording

from flopmeter.agent.gpu_metrics import MAX_SERIES_PER_GPU, device_families, total_families
from flopmeter.agent.gpu_totals import KEPT_WINDOWS, PIPES, GpuTotals
from flopmeter.agent.reading import Reading
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import Cycles, flop
from flopmeter.contract.usage import (
    Batch,
    Device,
    GapReason,
    Inventory,
    Measured,
    Usage,
    Workload,
    WorkloadKind,
)
from flopmeter.contract.w_table import current

H100 = Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", 132, 1980)
UNKNOWN = Device("GPU-2", "Something else", "99.9", 10, 1000)
JOBS = (Workload(WorkloadKind.SLURM, "1", dtype="fp8"), Workload(WorkloadKind.POD, "2"))


@dataclass(frozen=True)
class Window:
    """As much of a sealed window as totals need."""

    batch: Batch
    inventory: Inventory
    journal: bytes = b""
    boot_id: bytes = b""
    told: tuple[str, ...] = ()


def window(rows: tuple[Usage, ...], devices: tuple[Device, ...] = (H100, UNKNOWN)) -> Window:
    said = Batch("0.1.0", b"", 0, 1, 0, 1, workloads=JOBS, usage=rows)
    return Window(said, Inventory("n", "c", "595", "13", "nvml", devices))


COUNT = st.integers(0, 1 << 62)
ROWS = st.builds(
    Usage,
    entity_index=st.integers(0, 1),
    workload_index=st.integers(0, 1),
    evidence_class=st.sampled_from(EvidenceClass),
    measured=st.integers(0, 4095).map(Measured),
    spread_ppm=st.sampled_from((0, 5_000)),
    duration_ns=COUNT,
    sm_elapsed_cycles=COUNT,
    sm_active_cycles=COUNT,
    gap_reason=st.sampled_from(GapReason),
    energy_mj=COUNT,
    **{f"{pipe}_cycles": COUNT for pipe in PIPES},
)


def by_hand(rows: list[Usage]) -> dict[str, int | None]:
    """The slow way: each figure from all rows that have it, None where none has."""
    mine = [r for r in rows if not r.measured & Measured.OTHERS]

    def added(values: list[int]) -> int | None:
        return sum(values) if values else None

    found = {
        pipe: added([getattr(r, f"{pipe}_cycles") for r in mine if r.measured & bit])
        for pipe, bit in PIPES.items()
    }
    found["energy"] = added([r.energy_mj for r in mine if r.measured & Measured.ENERGY])
    found["active"] = added([r.sm_active_cycles for r in mine if r.measured & Measured.SM_ACTIVE])
    found["elapsed"] = added([r.sm_elapsed_cycles for r in mine if r.evidence_class is not EvidenceClass.GAP])
    found["time"] = sum(r.duration_ns for r in mine)
    found["gap"] = sum(r.duration_ns for r in mine if r.evidence_class is EvidenceClass.GAP)
    arch = current().arch("9.0", H100.name)
    assert arch is not None
    marks = Measured.APPORTIONED | Measured.OTHERS
    priced = [
        flop(
            Cycles(
                r.evidence_class,
                r.measured & ~marks,
                r.spread_ppm,
                r.sm_elapsed_cycles,
                r.sm_active_cycles,
                r.hmma_cycles,
                r.imma_cycles,
                r.dmma_cycles,
                r.tensor_other_cycles,
                r.fp64_cycles,
                r.fp32_cycles,
                r.fp16_cycles,
                r.int_cycles,
            ),
            arch,
            JOBS[r.workload_index].dtype,
        )
        for r in mine
    ]
    for bound in ("lower", "point", "upper"):
        found[bound] = sum(getattr(p, bound) for p in priced)
    return found


@given(st.lists(st.lists(ROWS, max_size=6), max_size=4))
@settings(max_examples=60)
def test_totals_are_the_rows_added_up_exactly(windows: list[list[Usage]]) -> None:
    totals = GpuTotals()
    totals.take(window(tuple(rows)) for rows in windows)
    seen = totals.look()
    rows = [r for w in windows for r in w if r.entity_index == 0]
    if not any(not r.measured & Measured.OTHERS for r in rows):
        assert "GPU-1" not in seen
        return
    got, want = seen["GPU-1"], by_hand(rows)
    for pipe in PIPES:
        assert got.pipe_cycles.get(pipe) == want[pipe], pipe
    assert (got.energy_mj, got.active_cycles, got.elapsed_cycles) == (
        want["energy"],
        want["active"],
        want["elapsed"],
    )
    assert sum(got.class_ns.values()) == want["time"]
    assert sum(got.gap_ns.values()) == got.class_ns.get(EvidenceClass.GAP, 0) == want["gap"]
    assert got.flop is not None
    assert (got.flop.lower, got.flop.point, got.flop.upper) == (want["lower"], want["point"], want["upper"])
    mine = [r for r in rows if not r.measured & Measured.OTHERS]
    assert got.has_point == any(r.evidence_class not in UPPER_ONLY for r in mine)


def samples(totals: GpuTotals) -> dict[tuple[str, tuple[str, ...]], float]:
    families: list[Metric] = list(total_families(totals.look()))
    return {(s.name, tuple(s.labels.values())): s.value for f in families for s in f.samples}


def test_what_was_not_measured_has_no_series() -> None:
    totals = GpuTotals()
    only_any = Measured.TENSOR_OTHER | Measured.SM_ACTIVE
    totals.take(
        [window((Usage(0, 0, EvidenceClass.B2, only_any, 0, 10**9, 100, 50, tensor_other_cycles=7),))]
    )
    got = samples(totals)
    assert {k[1][1] for k in got if k[0] == "flopmeter_gpu_sm_cycles_total"} == {"tensor_other"}
    assert not [k for k in got if "energy" in k[0] or "gap_seconds" in k[0]]
    assert got["flopmeter_gpu_metered_seconds_total", ("GPU-1", "gap")] == 0  # that there was none, is known


def test_a_failed_stretch_adds_to_no_cycles_and_to_the_upper_bound_alone() -> None:
    totals = GpuTotals()
    totals.take([window((busy(),), (H100,))])
    before = samples(totals)
    totals.take([window((gap(),), (H100,))])
    after = samples(totals)
    changed = {k for k in after if after[k] != before.get(k)}
    assert {k[0] for k in changed} == {
        "flopmeter_gpu_flop_total",
        "flopmeter_gpu_metered_seconds_total",
        "flopmeter_gpu_gap_seconds_total",
        "flopmeter_gpu_evidence_class_info",
    }
    assert ("flopmeter_gpu_flop_total", ("GPU-1", "upper")) in changed
    assert not {("flopmeter_gpu_flop_total", ("GPU-1", b)) for b in ("lower", "point")} & changed
    assert after["flopmeter_gpu_evidence_class_info", ("GPU-1", "gap")] == 1
    assert ("flopmeter_gpu_evidence_class_info", ("GPU-1", "A1")) not in after


def test_a_model_without_a_w_table_has_cycles_and_no_flop() -> None:
    totals = GpuTotals()
    totals.take([window((busy(0),), (UNKNOWN,))])
    got = samples(totals)
    assert [k for k in got if k[0] == "flopmeter_gpu_sm_cycles_total"]
    assert not [k for k in got if k[0] == "flopmeter_gpu_flop_total"]


def test_class_c_and_gaps_have_no_point() -> None:
    totals = GpuTotals()
    totals.take(
        [window((replace(busy(), evidence_class=EvidenceClass.C, measured=Measured.ENERGY),), (H100,))]
    )
    assert {k[1][1] for k in samples(totals) if k[0] == "flopmeter_gpu_flop_total"} == {"lower", "upper"}


def test_a_device_that_left_keeps_its_series_for_a_while_and_then_leaves() -> None:
    totals = GpuTotals()
    totals.take([window((busy(0), busy(1)))])
    alone = window((busy(0),), (H100,))
    totals.take([alone] * (KEPT_WINDOWS - 1))
    assert set(totals.look()) == {"GPU-1", "GPU-2"}
    totals.take([alone])
    assert set(totals.look()) == {"GPU-1"}


def test_the_worst_that_can_happen_to_a_gpu_stays_within_the_budget() -> None:
    everything = [
        Usage(
            0,
            0,
            grade,
            Measured(1023),
            0,
            1,
            1,
            gap_reason=reason if grade is EvidenceClass.GAP else GapReason.NONE,
        )
        for grade in EvidenceClass
        for reason in GapReason
    ]
    totals = GpuTotals()
    totals.take([window(tuple(everything), (H100,))])
    series = len(samples(totals)) + sum(len(f.samples) for f in device_families([H100]))
    others = 4  # read_ok, last reading, failed readings, workload: tests/docs/test_metrics.py counts them in a scrape
    assert series + others == MAX_SERIES_PER_GPU


def test_a_look_is_not_changed_by_what_comes_after_it() -> None:
    totals = GpuTotals()
    totals.take([window((busy(0),), (H100,))])
    look = totals.look()["GPU-1"]
    kept = dict(look.pipe_cycles), dict(look.class_ns)
    totals.take([window((busy(0),), (H100,))])
    assert (look.pipe_cycles, look.class_ns) == kept


def test_the_counters_are_what_the_signed_records_say(tmp_path: Path) -> None:
    recording = live(SimRecording(45))
    pipeline = opened(recording, tmp_path)
    totals = GpuTotals()
    pipeline.on_durable = totals.take
    for item in recording.items():
        assert isinstance(item, Reading)
        failed = Reading(item.entity, item.t_boot_ns, item.t_unix_ns, error="NVML_ERROR_TIMEOUT")
        pipeline.observe(failed if item.t_boot_ns // 10**9 % 7 == 3 else item)
    assert not pipeline.stop(0)
    rows = [(r, b) for b in batches(records(tmp_path)) for r in b.usage]
    for index, device in enumerate(recording.facts().devices):
        got = totals.look()[device.entity]
        mine = [r for r, _ in rows if r.entity_index == index]
        assert got.pipe_cycles["hmma"] == sum(r.hmma_cycles for r in mine) > 0
        assert got.energy_mj == sum(r.energy_mj for r in mine)
        assert sum(got.class_ns.values()) == sum(r.duration_ns for r in mine)


def test_a_mistake_in_the_figures_costs_figures_and_no_metering(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from flopmeter.agent.metrics import AgentView

    recording = live(SimRecording(25))
    pipeline = opened(recording, tmp_path)
    view = AgentView(pipeline, version="0.1.0", tick_ns=10**9, workload=lambda r: None)
    view.totals = None  # type: ignore[assignment]
    pipeline.on_durable = view.on_durable
    for item in recording.items():
        pipeline.observe(item)
    pipeline.close()
    assert pipeline.counts.windows == len(records(tmp_path)) == 2
    assert "windows could not be added up" in caplog.text
