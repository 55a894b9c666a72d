"""The sim source: exact integrals of its script, at any step, the same every time."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeClock
from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import CYCLE_IDS, PERCENT_IDS, Reading
from flopmeter.agent.sources.sim import (
    SimDead,
    SimDevice,
    SimJob,
    SimReadError,
    SimReset,
    SimScript,
    SimSource,
    default_script,
)
from flopmeter.contract.ids import check_entity
from flopmeter.contract.usage import IDLE, Workload, WorkloadKind
from flopmeter.contract.w_table import current

S = 1_000_000_000
JOB = SimJob(
    Workload(WorkloadKind.SLURM, job="7", run="r", dtype="bf16"),
    start_boot_ns=1000 * S,
    end_boot_ns=5000 * S,
    tensor_util=0.5,
    imma_util=0.1,
    tensor_other_util=0.1,
    fp32_util=0.05,
)
ONE = SimScript(devices=(SimDevice(),), jobs=(JOB,))


def at(script: SimScript, *times_s: float, device: int = 0) -> list[Reading]:
    source = SimSource(script, FakeClock())
    entity = script.entity(device)
    return [source.reading_at(entity, round(t * S), 0) for t in times_s]


def test_the_default_is_eight_confirmed_h100_training_one_job():
    facts = SimSource(default_script(), FakeClock()).facts()
    assert len({check_entity(d.entity) for d in facts.devices}) == 8
    assert facts.source == "sim"
    assert len(facts.boot_id) == 16
    assert {(d.name, d.sm_count) for d in facts.devices} == {("NVIDIA H100 80GB HBM3", 132)}
    assert current().confirmed("9.0", facts.devices[0].name)


def test_read_takes_both_clocks():
    clock = FakeClock(boot_ns=2000 * S, unix_ns=5)
    source = SimSource(ONE, clock)
    reading = source.read(ONE.entity(0))
    assert (reading.t_boot_ns, reading.t_unix_ns) == (2000 * S, 5)
    assert set(reading.cycles) == set(CYCLE_IDS)
    assert set(reading.percent) == set(PERCENT_IDS)
    assert reading.workload == JOB.workload
    assert reading.processes is None


def test_idle_before_and_after_the_job_and_nothing_but_elapsed_moves():
    a, b, c, d = at(ONE, 10, 900, 5000, 9000)
    assert (a.workload, b.workload, c.workload) == (IDLE, IDLE, IDLE)
    assert b.cycles[248] - a.cycles[248] == 890 * 345_000_000 * 132
    assert all(b.cycles[i] == a.cycles[i] == 0 for i in CYCLE_IDS if i != 248)
    assert all(c.cycles[i] == d.cycles[i] for i in CYCLE_IDS if i != 248)
    assert d.energy_mj - c.energy_mj == 4000 * 70 * 1000
    assert set(b.percent.values()) == {0.0}


def test_the_job_does_what_the_script_states():
    # A whole number of waves: the load averages to what is stated, less the (swing/2)^2 of the correlation.
    a, b = at(ONE, 1000, 1000 + 96 * 40)
    done = {i: b.cycles[i] - a.cycles[i] for i in CYCLE_IDS}
    elapsed = done[248]
    assert elapsed / (96 * 40 * 1980e6 * 132) == pytest.approx(0.92, rel=1e-3)
    for metric, util in ((250, 0.5), (252, 0.3), (253, 0.1), (259, 0.05), (249, 0.9), (251, 0)):
        assert done[metric] / elapsed == pytest.approx(util, rel=2e-3)
    assert (b.energy_mj - a.energy_mj) / (96 * 40 * 1000) == pytest.approx(70 + 630 * 0.9, rel=1e-3)


def test_clock_and_load_swing_against_each_other():
    readings = at(ONE, *range(1100, 1200, 2))
    clocks = [r.sm_clock_mhz[-1] for r in readings]
    tensor = [r.percent[5] for r in readings]
    assert max(clocks) / min(clocks) > 1.05
    assert max(tensor) / min(tensor) > 1.1
    assert clocks[tensor.index(max(tensor))] < clocks[tensor.index(min(tensor))]
    assert max(clocks) <= 1980


def test_cycles_agree_with_the_clock_samples_within_the_calibration_band():
    # metering.md 7.2: dE / (f dt) must be within 10 % of the SM count (or of 1 for averages).
    for scale, expected in (("sum", 132), ("average", 1)):
        readings = at(dataclasses.replace(ONE, scale=scale), *range(990, 1300))
        for a, b in zip(readings, readings[5:], strict=False):
            mean = sum(b.sm_clock_mhz) / len(b.sm_clock_mhz)
            factor = (b.cycles[248] - a.cycles[248]) / (mean * 1e6 * 5)
            if a.workload == b.workload:
                assert factor == pytest.approx(expected, rel=0.1)


def test_percentages_are_shares_of_elapsed_cycles_since_the_previous_reading():
    readings = at(ONE, 1100, 1101, 1107.5, 1500)
    for a, b in itertools.pairwise(readings):
        for percent_id, cycle_id in ((5, 250), (7, 252), (9, 253), (12, 259), (2, 249)):
            share = (b.cycles[cycle_id] - a.cycles[cycle_id]) / (b.cycles[248] - a.cycles[248])
            assert b.percent[percent_id] == pytest.approx(100 * share, rel=1e-6)


times = st.lists(st.integers(0, 10_000 * S), min_size=2, max_size=8, unique=True).map(sorted)


@given(times, st.sampled_from(["sum", "average"]))
def test_counters_do_not_depend_on_who_read_before_and_never_fall(instants, scale):
    script = dataclasses.replace(ONE, scale=scale)
    stepped = at(script, *(t / S for t in instants))
    (direct,) = at(script, instants[-1] / S)
    assert stepped[-1].cycles == direct.cycles
    assert stepped[-1].energy_mj == direct.energy_mj
    for a, b in itertools.pairwise(stepped):
        assert all(a.cycles[i] <= b.cycles[i] for i in CYCLE_IDS)
        assert b.energy_mj >= a.energy_mj
        assert all(0 <= p <= 100 for p in b.percent.values())
        assert b.cycles[252] + b.cycles[253] <= b.cycles[250] <= b.cycles[248]


def test_a_month_is_one_reading_away():
    (reading,) = at(default_script(), 30 * 86_400)
    assert reading.cycles[248] == pytest.approx(30 * 86_400 * 0.92 * 1980e6 * 132, rel=1e-3)
    assert reading.cycles[248] < 9_223_372_036_854_775_792


def test_old_drivers_give_percentages_only():
    (old,) = at(dataclasses.replace(ONE, gpm="percent"), 2000)
    (new,) = at(dataclasses.replace(ONE, gpm="cycles"), 2000)
    assert (old.cycles, set(old.percent)) == ({}, set(PERCENT_IDS))
    assert (set(new.cycles), new.percent) == (set(CYCLE_IDS), {})


def test_faults():
    script = SimScript(
        devices=(SimDevice(),) * 2,
        jobs=(dataclasses.replace(JOB, devices=(0,)),),
        faults=(
            SimDead(0, 2000 * S, 2010 * S),
            SimReadError(0, 2100 * S, 2101 * S, "NVML_ERROR_TIMEOUT"),
            SimReset(0, 3000 * S),
        ),
    )
    before, lost, back, timeout, b, c, d = at(script, 1999, 2000, 2010, 2100.5, 2999, 3000, 3001)
    assert (lost.error, lost.cycles, lost.energy_mj, lost.workload) == (
        "NVML_ERROR_GPU_IS_LOST",
        {},
        None,
        None,
    )
    assert timeout.error == "NVML_ERROR_TIMEOUT"
    assert before.error is None
    assert back.cycles[250] > before.cycles[250]  # the device worked on while it did not answer
    assert b.cycles[248] > 10**14
    assert set(c.cycles.values()) == {0}
    assert 0 < d.cycles[250] < d.cycles[248] < 2e9 * 132
    assert d.percent[5] == pytest.approx(50, rel=0.07)
    assert at(script, 2000, device=1)[0].workload == IDLE


def test_same_script_same_readings_other_seed_other_readings():
    assert at(ONE, 1500, 1501) == at(ONE, 1500, 1501)
    other = dataclasses.replace(ONE, seed=1)
    assert other.entity(0) != ONE.entity(0)
    assert at(other, 1503)[0].cycles != at(ONE, 1503)[0].cycles


def test_an_entity_it_has_not_is_an_error_reading():
    reading = SimSource(ONE, FakeClock()).read("GPU-other")
    assert (reading.error, reading.cycles) == ("NVML_ERROR_NOT_FOUND", {})


@pytest.mark.parametrize(
    "jobs",
    [
        (JOB, dataclasses.replace(JOB, start_boot_ns=4999 * S, end_boot_ns=6000 * S)),
        (dataclasses.replace(JOB, tensor_util=0.97),),
        (dataclasses.replace(JOB, imma_util=0.6),),
        (dataclasses.replace(JOB, devices=(3,)),),
    ],
    ids=["two jobs at once", "over 100 % with its swing", "parts above the whole", "no such device"],
)
def test_an_impossible_script_is_refused(jobs):
    with pytest.raises(SourceError, match="simulation script"):
        SimSource(dataclasses.replace(ONE, jobs=jobs), FakeClock())
