"""Interval arithmetic: exact from counters, rounded down from percentages, refused where it cannot be true."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metering import H100, SECOND, SMS, Gpu, device

from flopmeter.agent.metering.entity import describe
from flopmeter.agent.metering.interval import (
    ALL_CYCLES,
    ENERGY,
    HMMA,
    NO_COUNTERS,
    NUMBERS,
    SM_ACTIVE,
    TENSOR,
    Interval,
    NoInterval,
    Why,
    by_counters,
    by_percent,
    clock,
    counters_of,
    failure_reason,
    gap_numbers,
    point,
)
from flopmeter.agent.reading import CYCLE_IDS, Reading
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import GapReason
from flopmeter.contract.w_table import current

ENTITY = describe(device(), current(), source="nvml")


def number(got: Interval, name: str) -> int:
    return got.numbers[NUMBERS.index(name)]


def pair(**shares: int):  # type: ignore[no-untyped-def]
    gpu = Gpu()
    before = point(gpu.reading(10 * SECOND))
    gpu.run(SECOND, {int(k[2:]): v for k, v in shares.items()})
    return before, point(gpu.reading(11 * SECOND)), gpu


def sampled(changes: dict, entity=ENTITY, since: int = 10 * SECOND, before=None):  # type: ignore[no-untyped-def]
    reading = Reading("GPU-0", 11 * SECOND, 11 * SECOND, **changes)
    return by_percent(since, before, reading, point(reading), entity)


def test_counters_give_exact_cycles() -> None:
    before, now, _ = pair(id249=900, id250=600, id252=500, id253=50, id251=40, id254=41, id257=7, id259=3)
    got = by_counters(before, now, ENTITY, SMS)
    assert isinstance(got, Interval)
    assert got.evidence_class is EvidenceClass.A1
    assert got.measured == ALL_CYCLES | ENERGY
    assert got.spread_ppm == 0
    cycles = 1_700_000_000 * SMS
    assert got.numbers == (
        SECOND,
        cycles,
        cycles * 9 // 10,
        cycles // 2,
        cycles // 20,
        cycles * 41 // 1000,  # the larger of DMMA and DFMA: two names of one pipe
        cycles * 6 // 10,
        0,
        cycles * 3 // 1000,
        0,
        cycles * 7 // 1000,
        500,
    )
    assert by_counters(before, now, ENTITY, 1).numbers[1] == 1_700_000_000  # type: ignore[union-attr]


def test_a_missing_counter_is_not_measured_and_not_zero() -> None:
    before, now, gpu = pair(id252=500)
    lacking = point(gpu.reading(11 * SECOND, cycles={k: v for k, v in gpu.counters.items() if k != 252}))
    for a, b in ((before, lacking), (lacking._replace(t_boot_ns=9 * SECOND), now)):
        got = by_counters(a, b, ENTITY, 1)
        assert isinstance(got, Interval)
        assert not got.measured & HMMA
        assert number(got, "hmma_cycles") == 0
        assert got.measured & SM_ACTIVE


def test_energy_that_restarts_or_leaps_is_not_measured() -> None:
    before, now, _ = pair()
    assert before.energy_mj is not None
    for energy in (None, before.energy_mj - 1, before.energy_mj + 400_000_000, before.energy_mj + 75_000_000):
        got = by_counters(before, now._replace(energy_mj=energy), ENTITY, 1)
        assert isinstance(got, Interval)
        assert not got.measured & ENERGY
        assert number(got, "energy_mj") == 0
    dcgm = describe(device(), current(), source="dcgm")  # its gauge may be 30 s old: 75 kJ are 2.5 kW
    late = by_counters(before, now._replace(energy_mj=before.energy_mj + 75_000_000), dcgm, 1)
    assert isinstance(late, Interval)
    assert number(late, "energy_mj") == 75_000_000


@pytest.mark.parametrize("key", CYCLE_IDS)
def test_any_counter_that_decreases_is_a_reset_never_a_negative_delta(key: int) -> None:
    before, _, gpu = pair()
    gpu.run(SECOND, dict.fromkeys(CYCLE_IDS, 100))
    gpu.counters[key] = 10**15 - 1
    got = by_counters(before, point(gpu.reading(12 * SECOND)), ENTITY, SMS)
    assert isinstance(got, NoInterval)
    assert got.why is Why.RESET
    assert str(key) in got.detail


def test_what_no_gpu_can_count_is_refused() -> None:
    before, now, gpu = pair(id252=1000)
    elapsed = now.counters[0] - before.counters[0]  # type: ignore[operator]
    at_limit = {**gpu.counters, 252: 10**15 + elapsed * 1_005 // 1_000}
    over = {**at_limit, 252: at_limit[252] + 1}
    assert isinstance(
        by_counters(before, point(gpu.reading(11 * SECOND, cycles=at_limit)), ENTITY, 1), Interval
    )
    got = by_counters(before, point(gpu.reading(11 * SECOND, cycles=over)), ENTITY, 1)
    assert isinstance(got, NoInterval)
    assert got.why is Why.REFUSED

    most = SMS * 1_980_000_000 * 102 // 100
    for extra, wanted in ((0, Interval), (1, NoInterval)):
        cycles = dict.fromkeys(CYCLE_IDS, 10**15) | {248: 10**15 + most + extra}
        got = by_counters(before, point(gpu.reading(11 * SECOND, cycles=cycles)), ENTITY, 1)
        assert isinstance(got, wanted)
    assert got.why is Why.TOO_FAST  # type: ignore[union-attr]


def test_blackwell_maximum_clock_is_not_believed_below_the_highest_known() -> None:
    b200 = describe(
        device(name="NVIDIA B200", compute_capability="10.0", max_sm_clock_mhz=1500), current(), source="nvml"
    )
    assert b200.ceiling_khz == 3_000_000
    assert b200.cycles_class is EvidenceClass.A3  # not confirmed
    assert ENTITY.ceiling_khz == 1_980_000
    assert describe(device(max_sm_clock_mhz=0), current(), source="nvml").ceiling_khz == 3_000_000
    assert describe(device(compute_capability="¹.0"), current(), source="nvml").ceiling_khz == 3_000_000
    assert describe(device(sm_count=5_000), current(), source="nvml").sm_count == 0


def test_percentages_times_mean_clock() -> None:
    got, refused = sampled(
        {
            "percent": {
                2: 90.0,
                5: 50.5,
                7: 40.25,
                9: 1.0,
                6: 0.5,
                8: 0.75,
                11: 0.0,
                12: 3.0,
                13: 2.0,
                4: 6.0,
            },
            "sm_clock_mhz": (1600.0, 1700.0, 1800.0),
        }
    )
    assert refused == ""
    assert got is not None
    cycles = SMS * 1_700_000_000
    assert got.evidence_class is EvidenceClass.A2
    assert got.measured == ALL_CYCLES
    assert number(got, "sm_elapsed_cycles") == cycles
    assert number(got, "hmma_cycles") == cycles * 4025 // 10_000
    assert number(got, "tensor_any_cycles") == cycles * 505 // 1_000
    assert number(got, "dmma_cycles") == cycles * 75 // 10_000
    assert number(got, "int_cycles") == cycles * 6 // 100
    assert got.spread_ppm == 100_000  # half-range 100 of 1700 MHz is 5.9 %: the next step up


def test_one_clock_sample_is_joined_by_the_one_before() -> None:
    one = Reading("GPU-0", 1, 1, sm_clock_mhz=(1500.0,))
    assert clock(1_700_000, one) == (3_200_000, 2, 1_500_000, 1_700_000)
    assert clock(0, one) == (1_500_000, 1, 1_500_000, 1_500_000)
    assert clock(1_700_000, Reading("GPU-0", 1, 1)) is None
    assert clock(0, Reading("GPU-0", 1, 1, sm_clock_mhz=(math.nan, -1.0, 0.0, 1e-4, 9_999.0))) is None


@given(
    st.lists(
        st.one_of(
            st.integers(-2, 4_100).map(float),
            st.integers(0, 4_100),
            st.floats(-1, 4_100),
            st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e-4, 0.9996, 1e300]),
        ),
        max_size=60,
    )
    | st.lists(st.sampled_from([-1.0, 0.0, 1.0, 1_980.0, 3_000.0, 3_001.0]), min_size=2, max_size=4)
)
def test_clock_samples_looked_at_together_are_those_looked_at_one_by_one(samples: list[float]) -> None:
    reading = Reading("GPU-0", 1, 1, sm_clock_mhz=tuple(samples))
    believed = [round(mhz * 1_000) for mhz in samples if 0 < mhz <= MAX_SM_CLOCK_MHZ]
    alone = [khz for khz in believed if khz]
    expected = (sum(alone), len(alone), min(alone), max(alone)) if alone else None
    assert clock(0, reading) == expected


def test_one_sample_with_none_before_it_says_little_of_the_clock() -> None:
    """After a failed read: the clock may have been anything up to the highest, and the spread says so."""
    percent = {"percent": {2: 90.0, 5: 50.0, 7: 40.0}}
    got, _ = sampled(percent | {"sm_clock_mhz": (1500.0,)})
    assert got is not None
    assert (got.evidence_class, got.spread_ppm) == (EvidenceClass.A2, 1_000_000)
    assert number(got, "hmma_cycles") == SMS * 1_500_000_000 * 4 // 10
    for mhz in (345.0, 989.0):  # the highest is more than twice as much: no spread covers that
        got, _ = sampled(percent | {"sm_clock_mhz": (mhz,)})
        assert got is not None
        assert got.evidence_class is EvidenceClass.C
        assert number(got, "sm_active_cycles") == SMS * 1_980_000_000 * 9 // 10


@given(
    low=st.integers(100, 2_000),
    high=st.integers(100, MAX_SM_CLOCK_MHZ),
    lows=st.integers(1, 40),
    highs=st.integers(1, 40),
)
def test_the_spread_is_never_less_than_half_the_range_over_the_mean(
    low: int, high: int, lows: int, highs: int
) -> None:
    """metering.md 3.1. A clock that idles between short bursts is further off its mean than the mean itself."""
    samples = [float(low)] * lows + [float(high)] * highs
    half_range = Fraction(abs(high - low), 2) / Fraction(low * lows + high * highs, lows + highs)
    got, _ = sampled({"percent": {2: 80.0, 5: 50.0, 7: 50.0}, "sm_clock_mhz": tuple(samples)})
    assert isinstance(got, Interval)
    if half_range > 5:  # no step reaches so far
        assert got.evidence_class is EvidenceClass.C
    else:
        assert got.evidence_class is EvidenceClass.A2
        assert half_range <= Fraction(got.spread_ppm, 1_000_000)


def test_a_spread_past_the_highest_step_leaves_an_upper_bound() -> None:
    samples = (50.0,) * 60 + (2_900.0,)  # half the range is 15 times the mean
    got, _ = sampled({"percent": {2: 80.0, 5: 50.0, 7: 50.0}, "sm_clock_mhz": samples})
    assert isinstance(got, Interval)
    assert (got.evidence_class, got.spread_ppm) == (EvidenceClass.C, 0)


def test_samples_far_apart_say_as_little_but_for_an_exporter() -> None:
    dcgm = describe(device(), current(), source="dcgm")
    values = {"percent": {5: 50.0, 7: 40.0}, "sm_clock_mhz": (1700.0, 1800.0)}
    for since, entity, wanted in (
        (7 * SECOND, ENTITY, 30_000),
        (7 * SECOND - 1, ENTITY, 1_000_000),
        (0, ENTITY, 1_000_000),
        (0, dcgm, 30_000),
    ):
        got, _ = sampled(values, entity, since)
        assert got is not None
        assert got.spread_ppm == wanted


@pytest.mark.parametrize("per_second", [4, 10, 50, 400])
@pytest.mark.parametrize("swing_ns", [310_000_000, 730_000_000, 1_700_000_000])
def test_the_spread_holds_the_truth_while_the_clock_swings(per_second: int, swing_ns: int) -> None:
    """345 to 1980 MHz and back, in steps and ramps; samples evenly, from any phase of the swing."""

    def mhz_at(t: int) -> float:
        phase = t % swing_ns / swing_ns
        return 345 + (1980 - 345) * (1 if phase < 0.4 else max(0.0, 0.7 - phase) / 0.3)

    for start in range(0, 2 * SECOND, 137_000_000):
        times = range(start, start + SECOND, SECOND // per_second)
        fine = range(start, start + SECOND, SECOND // 2_000)
        true = SMS * SECOND * sum(mhz_at(t) for t in fine) / len(fine) / 1_000
        got, _ = sampled({"percent": {5: 50.0}, "sm_clock_mhz": tuple(mhz_at(t) for t in times)})
        assert got is not None
        elapsed = number(got, "sm_elapsed_cycles")
        assert abs(elapsed - true) <= elapsed * got.spread_ppm / 1e6 + elapsed * 0.03
        if per_second >= 50:
            assert abs(elapsed / true - 1) < 0.05


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 100.6, 1e300])
def test_a_percentage_that_cannot_be_is_a_failed_read_of_it(bad: float) -> None:
    got, refused = sampled({"percent": {5: 50.0, 7: bad}, "sm_clock_mhz": (1700.0,)})
    assert "percentage 7" in refused
    assert got is not None
    assert not got.measured & HMMA
    assert got.measured & TENSOR
    got, refused = sampled({"percent": {5: bad, 7: bad}, "sm_clock_mhz": (1700.0,)})
    assert got is None
    assert refused


def test_a_percentage_a_little_over_100_is_100() -> None:
    got, _ = sampled({"percent": {5: 100.4, 7: 100.5}, "sm_clock_mhz": (1700.0,)})
    assert got is not None
    assert number(got, "hmma_cycles") == number(got, "sm_elapsed_cycles")


@pytest.mark.parametrize(
    ("percent", "source", "name", "wanted"),
    [
        ({5: 50.0, 7: 40.0}, "nvml", H100, EvidenceClass.A2),
        ({5: 50.0}, "nvml", H100, EvidenceClass.A2),
        ({5: 50.0, 7: 40.0}, "nvml", "NVIDIA H20", EvidenceClass.A3),
        ({5: 50.0, 7: 40.0, 9: 1.0}, "dcgm", H100, EvidenceClass.B1),
        ({5: 50.0, 2: 60.0}, "dcgm", H100, EvidenceClass.B2),
        ({2: 60.0}, "dcgm", H100, EvidenceClass.C),
    ],
)
def test_evidence_class(percent: dict, source: str, name: str, wanted: EvidenceClass) -> None:
    entity = describe(device(name=name), current(), source=source)
    got, _ = sampled({"percent": percent, "sm_clock_mhz": (1700.0,)}, entity)
    assert got is not None
    assert got.evidence_class is wanted


def test_tensor_active_alone_leaves_the_kinds_unmeasured() -> None:
    entity = describe(device(), current(), source="dcgm")
    got, _ = sampled({"percent": {5: 50.0}, "sm_clock_mhz": (1700.0,)}, entity)
    assert got is not None
    assert got.measured == TENSOR


def test_utilisation_alone_is_an_upper_bound() -> None:
    for clocks in ((1200.0, 1500.0), ()):  # between two samples the clock may have been higher
        got, _ = sampled({"utilization_gpu_pct": 50.0, "sm_clock_mhz": clocks})
        assert got is not None
        assert got.evidence_class is EvidenceClass.C
        assert got.measured == SM_ACTIVE
        assert number(got, "sm_elapsed_cycles") == SMS * 1980 * 1_000_000
        assert number(got, "sm_active_cycles") == SMS * 1980 * 500_000
    assert sampled({"utilization_gpu_pct": math.nan}) == (None, "utilisation: expected 0 to 100.5, got nan")
    assert sampled({}) == (None, "")


def test_percentages_without_a_clock_are_no_more_than_utilisation() -> None:
    got, _ = sampled({"percent": {2: 80.0, 5: 50.0, 7: 40.0}})
    assert got is not None
    assert got.evidence_class is EvidenceClass.C
    assert number(got, "sm_active_cycles") == SMS * 1_980_000_000 * 8 // 10


def test_without_an_sm_count_no_cycle_is_metered_and_no_gap_priced() -> None:
    unknown = describe(device(sm_count=0), current(), source="nvml")
    assert sampled({"percent": {5: 50.0}, "sm_clock_mhz": (1700.0,)}, unknown) == (None, "SM count not known")
    assert gap_numbers(unknown, SECOND) == (SECOND, *(0,) * 11)
    assert gap_numbers(ENTITY, SECOND) == (SECOND, SMS * 1_980_000_000, *(0,) * 10)


def test_counters_of_takes_only_what_a_counter_can_be() -> None:
    whole = dict.fromkeys(CYCLE_IDS, 5)
    assert counters_of(whole) == (5,) * len(CYCLE_IDS)
    assert counters_of({}) == NO_COUNTERS
    for bad in (-1, 1 << 63, 2.5, None, "7"):
        assert counters_of(whole | {252: bad})[CYCLE_IDS.index(252)] is None  # type: ignore[dict-item]
    del whole[260]
    assert counters_of(whole)[-1] is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("NVML_ERROR_TIMEOUT", GapReason.READ_HUNG),
        ("READ_HUNG", GapReason.READ_HUNG),
        ("NVML_ERROR_GPU_IS_LOST", GapReason.LOST),
        ("NVML_ERROR_RESET_REQUIRED", GapReason.LOST),
        ("NVML_ERROR_UNKNOWN", GapReason.READ_FAILED),
        ("", GapReason.READ_FAILED),
    ],
)
def test_what_an_error_means(code: str, reason: GapReason) -> None:
    assert failure_reason(code) is reason


@given(
    percent=st.dictionaries(st.integers(0, 20), st.floats(allow_nan=True), max_size=12),
    clocks=st.lists(st.floats(allow_nan=True), max_size=4),
    utilisation=st.one_of(st.none(), st.floats(allow_nan=True)),
    ns=st.integers(1, 10**13),
)
def test_no_float_breaks_it_and_no_pipe_exceeds_the_elapsed(
    percent: dict, clocks: list, utilisation: float | None, ns: int
) -> None:
    reading = Reading(
        "GPU-0", ns, ns, percent=percent, sm_clock_mhz=tuple(clocks), utilization_gpu_pct=utilisation
    )
    got, _ = by_percent(0, None, reading, point(reading), ENTITY)
    if got is not None:
        assert all(0 <= n <= got.numbers[1] for n in got.numbers[2:11])
        assert got.numbers[0] == ns


def test_an_exporters_totals_are_a3_because_nothing_confirms_what_a_count_is_worth() -> None:
    assert describe(device(), current(), source="nvml").cycles_class is EvidenceClass.A1
    assert describe(device(), current(), source="dcgm").cycles_class is EvidenceClass.A3
