"""Several workloads on one entity: the rows add up to the device, to the cycle, and bound what each can have done."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from metering import (
    FIELDS,
    H100,
    JOB_A,
    JOB_B,
    SECOND,
    SMS,
    UNIX0,
    Gpu,
    duration,
    meter,
    own,
    rows,
    taken,
)

from flopmeter.agent.metering.meter import Sealed
from flopmeter.agent.metering.shares import divide
from flopmeter.agent.reading import CYCLE_IDS, Process, Reading
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.agent.workloads.processes import WorkloadFinder
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, Figure, flop
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, GapReason, Measured, Usage, Workload, WorkloadKind
from flopmeter.contract.w_table import current

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NO_MARK = Measured(0)
JOB_C = Workload(WorkloadKind.POD, job="c")
#: Process -> workload; 9 cannot be told.
BELONGS = {1: JOB_A, 2: JOB_B, 3: JOB_A, 4: JOB_C}


class Finder(WorkloadFinder):
    def find(self, pid: int, start_ticks: int) -> Workload | None:
        return BELONGS.get(pid)


def processes(used: dict[int, float | None]) -> tuple[Process, ...]:
    return tuple(Process(pid, 1, share) for pid, share in used.items())


def cycles(u: Usage) -> Cycles:
    numbers = (
        u.sm_elapsed_cycles,
        u.sm_active_cycles,
        u.hmma_cycles,
        u.imma_cycles,
        u.dmma_cycles,
        u.tensor_other_cycles,
        u.fp64_cycles,
        u.fp32_cycles,
        u.fp16_cycles,
        u.int_cycles,
    )
    return Cycles(u.evidence_class, u.measured, u.spread_ppm, *numbers)


def figure(sealed: list[Sealed], whose: Workload | None = None, marks: Measured = NO_MARK) -> Figure:
    arch = current().arch("9.0", H100)
    assert arch is not None
    total = Figure(0, 0, 0)
    for workload, u in rows(sealed):
        if whose in (None, workload):
            c = cycles(u)
            if marks:  # an OTHERS row has no elapsed cycles; and where all active ones are told of, no noise was dropped
                told = c.hmma + c.imma + c.dmma + c.tensor_other
                c = replace(c, measured=c.measured | marks, elapsed=0, active=told)
            total += flop(c, arch)
    return total


shares = st.fixed_dictionaries(
    {
        249: st.integers(500, 1000),
        252: st.integers(0, 500),
        253: st.integers(0, 100),
        259: st.integers(0, 400),
    }
)
holders = st.dictionaries(
    st.sampled_from([1, 2, 3, 4, 9]), st.one_of(st.none(), st.integers(0, 100).map(float)), max_size=5
)
steps = st.lists(
    st.tuples(
        st.integers(SECOND // 4, 3 * SECOND),
        shares,
        holders,
        st.sampled_from(["read"] * 5 + ["fail", "kill", "percent"]),
    ),
    max_size=30,
)


@SLOW
@given(life=steps, average=st.booleans())
def test_the_rows_add_up_to_the_device_to_the_last_cycle(life: list, average: bool) -> None:  # type: ignore[type-arg]
    gpu, agent, t = Gpu(average=average), meter(finder=Finder(), window=7 * SECOND), 50 * SECOND
    sealed = agent.observe(gpu.reading(t))
    for _ in range(7):
        t += SECOND
        gpu.run(SECOND, {})
        sealed += agent.observe(gpu.reading(t))
    last = agent.flush()
    sealed += [last] if last else []
    for ns, active, held, then in life:
        t += ns
        gpu.run(ns, active | {250: active[252] + active[253]})
        if then == "fail":
            sealed += agent.observe(Reading("GPU-0", t, UNIX0 + t, error="NVML_ERROR_UNKNOWN"))
            continue
        sealed += agent.observe(gpu.reading(t, workload=None, processes=processes(held)))
        if then == "kill":
            last = agent.flush()
            sealed += [last] if last else []
            agent = meter(finder=Finder(), window=7 * SECOND, journal=sealed[-1].journal)
    t += SECOND
    gpu.run(SECOND, {})
    sealed += agent.observe(gpu.reading(t, workload=None, processes=()))
    last = agent.flush(final=True)
    sealed += [last] if last else []

    multiplier = SMS if average else 1
    for key, name in FIELDS.items():
        assert own(sealed, name) == (gpu.counters[key] - 10**15) * multiplier, name
    assert own(sealed, "energy_mj") == gpu.energy_mj - 5_000_000
    assert duration(sealed) == t - 50 * SECOND
    for workload, u in rows(sealed):
        if Measured.OTHERS in u.measured:
            assert (u.duration_ns, u.sm_elapsed_cycles, u.energy_mj) == (0, 0, 0)
            assert Measured.APPORTIONED not in u.measured
        else:
            assert u.duration_ns > 0 or Measured.APPORTIONED in u.measured
        assert workload != IDLE or not u.measured & (Measured.APPORTIONED | Measured.OTHERS)
    taken(sealed)


@SLOW
@given(
    used=st.lists(st.tuples(st.integers(SECOND // 4, 3 * SECOND), shares, holders), min_size=1, max_size=12)
)
@example(  # all SMs of the second's part were active on tensor pipes, and some of the first's on none
    used=[
        (SECOND // 4, {249: 500, 252: 0, 253: 0, 259: 0}, {}),
        (SECOND // 4, {249: 500, 252: 399, 253: 100, 259: 0}, {1: None}),
    ]
)
def test_what_a_workload_did_lies_within_its_bounds_whatever_the_split(used: list) -> None:  # type: ignore[type-arg]
    """All of the device may have been any one of its holders: each upper bound is the device's, each lower is 0."""
    gpu, agent, t = Gpu(), meter(finder=Finder(), window=3600 * SECOND), 50 * SECOND
    whole_gpu, whole_agent = Gpu(), meter(window=3600 * SECOND)
    sealed, whole = agent.observe(gpu.reading(t)), whole_agent.observe(whole_gpu.reading(t))
    for ns, active, held in [(SECOND, {249: 0, 252: 0, 253: 0, 259: 0}, {1: None, 2: None})] * 6 + used:
        t += ns
        both = {1: 50.0, 2: None} | {pid: share for pid, share in held.items() if pid in (1, 2, 3)}
        for g in (gpu, whole_gpu):
            g.run(ns, active | {250: active[252] + active[253]})
        sealed += agent.observe(gpu.reading(t, workload=None, processes=processes(both)))
        whole += whole_agent.observe(whole_gpu.reading(t))
    last, whole_last = agent.flush(final=True), whole_agent.flush(final=True)
    assert last is not None
    assert whole_last is not None
    device = figure([*whole, whole_last])
    at_least = figure([*whole, whole_last], marks=Measured.OTHERS)
    for job in (JOB_A, JOB_B):
        got = figure([*sealed, last], job)
        assert got.lower == 0
        assert got.point <= device.point
        # All that the counters told of the device. What may have been dropped as noise of the any-tensor counter is
        # allowed for row by row, no more than a row's SMs were active beside its pipes: that does not add up to what is
        # allowed for in the device's one row, and need not, since no more was dropped.
        assert at_least.upper <= got.upper <= device.upper + 10**6
    points = sum(figure([*sealed, last], job).point for job in (JOB_A, JOB_B))
    assert abs(points - device.point) <= 10**6
    taken([*sealed, last])


@given(
    number=st.integers(0, 2**70), weights=st.lists(st.integers(0, 10**8), min_size=1, max_size=9).filter(any)
)
def test_division_is_exact_and_fair(number: int, weights: list[int]) -> None:
    parts = divide(number, weights)
    assert sum(parts) == number
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * sum(weights) - number * weight) < sum(weights)
        assert part == 0 or weight > 0


def shared(t: int, gpu: Gpu, *, a: float | None = 25.0, b: float | None = 75.0, **more: object) -> Reading:
    return gpu.reading(t, workload=None, processes=processes({1: a, 2: b}), **more)


BUSY = {249: 900, 250: 500, 252: 500}


def life(**more: object) -> tuple[Gpu, list[Reading]]:
    """8 s in which A and B share the GPU, A with a quarter of the SM time."""
    gpu, t, found = Gpu(**more), 100 * SECOND, []  # type: ignore[arg-type]
    found.append(shared(t, gpu))
    for i in range(8):
        gpu.run(SECOND, BUSY)
        found.append(shared(t + (i + 1) * SECOND, gpu))
    return gpu, found


def metered(readings: list[Reading]) -> list[Sealed]:
    agent = meter(finder=Finder())
    sealed = [s for r in readings for s in agent.observe(r)]
    last = agent.flush(final=True)
    return [*sealed, last] if last else sealed


def test_a_quarter_is_a_quarter_and_beside_it_stand_the_other_three() -> None:
    _, readings = life()
    sealed = metered(readings)
    second = 1_700_000_000 * SMS
    by = {(w, bool(u.measured & Measured.OTHERS)): u for w, u in rows(sealed)}
    assert len(by) == 4
    for job, quarters in ((JOB_A, 1), (JOB_B, 3)):
        mine, others = by[job, False], by[job, True]
        assert mine.duration_ns == 2 * quarters * SECOND
        assert mine.sm_elapsed_cycles == 2 * quarters * second
        assert mine.hmma_cycles == quarters * second
        assert others.hmma_cycles == (4 - quarters) * second
        assert others.sm_active_cycles == 2 * (4 - quarters) * second * 9 // 10
        assert (mine.evidence_class, others.evidence_class) == (EvidenceClass.A1, EvidenceClass.A1)
        assert Measured.ENERGY not in others.measured
    assert taken(sealed) > 0


def test_one_that_ran_nothing_has_no_share_and_the_whole_as_its_upper_bound() -> None:
    gpu, t = Gpu(), 100 * SECOND
    readings = [shared(t, gpu, a=0.0)]
    for i in range(8):
        gpu.run(SECOND, BUSY)
        readings.append(shared(t + (i + 1) * SECOND, gpu, a=0.0))
    sealed = metered(readings)
    (others,) = [u for w, u in rows(sealed) if w == JOB_A]
    assert Measured.OTHERS in others.measured
    assert others.hmma_cycles == 4 * 1_700_000_000 * SMS
    assert figure(sealed, JOB_A).upper >= figure(sealed, JOB_B).point > 0
    taken(sealed)


def test_percentages_are_divided_like_counters() -> None:
    t = 100 * SECOND
    values = {"percent": {2: 90.0, 5: 50.0, 7: 50.0}, "sm_clock_mhz": (1700.0,)}
    held = processes({1: 25.0, 9: 75.0})
    readings = [Reading("GPU-0", t + i * SECOND, UNIX0 + t, **values, processes=held) for i in range(5)]  # type: ignore[arg-type]
    sealed = metered(readings)
    second = 1_700_000_000 * SMS
    assert {w for w, _ in rows(sealed)} == {JOB_A, UNATTRIBUTED}
    assert (
        sum(u.hmma_cycles for w, u in rows(sealed) if w == JOB_A and not u.measured & Measured.OTHERS)
        == second // 2
    )
    assert own(sealed, "hmma_cycles") == 2 * second
    taken(sealed)


def test_a_gap_of_a_shared_gpu_is_divided_too_and_its_price_bounds_each() -> None:
    gpu, readings = life()
    t = 108 * SECOND
    for _ in range(3):
        t += SECOND
        gpu.run(SECOND, BUSY)
        readings.append(Reading("GPU-0", t, UNIX0 + t, error="NVML_ERROR_GPU_IS_LOST"))
    sealed = metered(readings)
    gaps = [(w, u) for w, u in rows(sealed) if u.gap_reason is GapReason.LOST]
    assert {w for w, _ in gaps} == {JOB_A, JOB_B}
    most = 3 * SMS * 1_980_000_000
    own_rows = [u for _, u in gaps if Measured.OTHERS not in u.measured]
    assert sum(u.duration_ns for u in own_rows) == 3 * SECOND
    assert sum(u.sm_elapsed_cycles for u in own_rows) == most
    for job in (JOB_A, JOB_B):
        of = [u for w, u in gaps if w == job]
        assert sum(u.sm_elapsed_cycles + u.sm_active_cycles for u in of) == most
    taken(sealed)


def test_a_bridge_to_other_sharers_is_nobodys() -> None:
    gpu, readings = life()
    t = 109 * SECOND
    gpu.run(SECOND, BUSY)
    readings.append(Reading("GPU-0", t, UNIX0 + t, error="NVML_ERROR_UNKNOWN"))
    t += SECOND
    gpu.run(SECOND, BUSY)
    same = [*readings, shared(t, gpu)]
    other = [*readings, gpu.reading(t, workload=None, processes=processes({1: 50.0, 4: 50.0}))]
    assert {w for w, _ in rows(metered(same))} == {JOB_A, JOB_B}
    assert {w for w, _ in rows(metered(other))} == {JOB_A, JOB_B, UNATTRIBUTED}
    assert own(metered(same), "hmma_cycles") == own(metered(other), "hmma_cycles") == 5 * 1_700_000_000 * SMS


@pytest.mark.parametrize(
    ("held", "nobody"), [({JOB_A, JOB_B}, False), ({JOB_A}, False), ({JOB_A, JOB_C}, True)]
)
def test_time_whose_detail_was_given_up_is_the_sharers_if_nobody_else_was_there(
    held: set, nobody: bool
) -> None:  # type: ignore[type-arg]
    gpu, readings = life()
    attributor = Attributor(Finder())  # one for both, as the pipeline has it
    agent = meter(attributor=attributor)
    sealed = [s for r in readings for s in agent.observe(r)]
    last = agent.flush()
    assert last is not None
    agent = meter(attributor=attributor, journal=last.journal)
    agent.bridge(GapReason.SPOOL_FULL, {"GPU-0": held})
    gpu.run(20 * SECOND, BUSY)
    sealed += [last, *agent.observe(shared(128 * SECOND, gpu))]
    bridge = agent.flush(final=True)
    assert bridge is not None
    assert {w for w, _ in rows([bridge])} == ({UNATTRIBUTED} if nobody else {JOB_A, JOB_B})
    assert own([*sealed, bridge], "sm_elapsed_cycles") == 28 * 1_700_000_000 * SMS


def test_time_whose_detail_was_given_up_is_a_workloads_though_more_was_learned_of_it() -> None:
    gpu, readings = life()
    attributor = Attributor(Finder())
    agent = meter(attributor=attributor)
    sealed = [s for r in readings for s in agent.observe(r)]
    last = agent.flush()
    assert last is not None
    agent = meter(attributor=attributor, journal=last.journal)
    agent.bridge(GapReason.SPOOL_FULL, {"GPU-0": {replace(JOB_A, run=""), JOB_B}})  # as it was described then
    gpu.run(20 * SECOND, BUSY)
    sealed += [last, *agent.observe(shared(128 * SECOND, gpu))]
    bridge = agent.flush(final=True)
    assert bridge is not None
    assert {w for w, _ in rows([bridge])} == {JOB_A, JOB_B}


def test_before_the_scale_is_known_parts_are_held_back_apart() -> None:
    for average in (True, False):
        _, readings = life(average=average)
        sealed = metered(readings)
        assert own(sealed, "sm_elapsed_cycles") == 8 * 1_700_000_000 * SMS
        assert len(CYCLE_IDS) == 11
        assert not [u for _, u in rows(sealed) if u.gap_reason]
    # Never known, and no percentages: a gap, divided, and every nanosecond of it once.
    gpu, t = Gpu(), 100 * SECOND
    readings = [shared(t, gpu, sm_clock_mhz=())]
    for i in range(70):
        gpu.run(SECOND, BUSY)
        readings.append(shared(t + (i + 1) * SECOND, gpu, sm_clock_mhz=()))
    sealed = metered(readings)
    assert duration(sealed) == 70 * SECOND
    assert {u.gap_reason for _, u in rows(sealed)} == {GapReason.REFUSED}
    assert {w: sum(u.duration_ns for x, u in rows(sealed) if x == w) for w in (JOB_A, JOB_B)} == {
        JOB_A: 70 * SECOND // 4,
        JOB_B: 70 * SECOND * 3 // 4,
    }
    taken(sealed)
