"""What counters count and since when: anchors always explain the usage, whatever was learnt in between."""

from fractions import Fraction

import pytest
from metering import JOB_A, SECOND, SMS, UNIX0, Gpu, Scripted, device, facts, meter, notices, own, rows, taken

from flopmeter.agent.metering.meter import Sealed
from flopmeter.agent.reading import Reading
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import GapReason

BUSY = {249: 900, 250: 520, 252: 400, 253: 60, 257: 150, 259: 200}
ONE_SECOND = 1_700_000_000 * SMS


def test_a_reset_before_the_scale_is_known_mixes_no_epochs() -> None:
    """What is held back is of two epochs then, and booked behind the anchor that is quoted with it."""
    gpu, agent, t = Gpu(), meter(window=3 * SECOND), 100 * SECOND
    sealed: list[Sealed] = agent.observe(gpu.reading(t))
    for i in range(30):
        t += SECOND
        gpu.run(SECOND, BUSY)
        if i == 3:
            gpu.reset()
        sealed += agent.observe(gpu.reading(t))
    last = agent.flush(final=True)
    assert last is not None
    sealed.append(last)
    assert own(sealed, "sm_elapsed_cycles") == 29 * ONE_SECOND
    assert [(u.gap_reason, u.duration_ns) for _, u in rows(sealed) if u.gap_reason] == [
        (GapReason.RESET, SECOND)
    ]
    assert taken(sealed) == 1


def test_k_of_one_gpu_is_the_k_of_its_model() -> None:
    """One learns it; the other, which gives no percentages, is counted by it from then on, in an epoch of its own."""
    gpus = [Scripted(f"GPU-{i}", k={252: Fraction(1, 4)}) for i in range(2)]
    agent, t = meter(facts(device(0), device(1))), 100 * SECOND
    sealed: list[Sealed] = []
    for i in range(40):
        for gpu in gpus:
            sealed += agent.observe(gpu.reading(t, **({"percent": {}} if gpu is gpus[1] else {})))
        t += SECOND
        for gpu in gpus:
            gpu.run(SECOND, BUSY if i >= 5 or gpu is gpus[0] else {})
    last = agent.flush(final=True)
    assert last is not None
    sealed.append(last)
    assert own(sealed, "hmma_cycles", "GPU-0") == 39 * ONE_SECOND * 400 // 1000
    # While nobody knows what its counts are worth, they are not guessed: those seconds are gaps, with a price. Idle
    # ones need no k.
    gaps = sum(u.duration_ns for _, u in rows(sealed, "GPU-1") if u.gap_reason is GapReason.REFUSED) // SECOND
    assert 1 <= gaps <= 7
    assert own(sealed, "hmma_cycles", "GPU-1") == (34 - gaps) * ONE_SECOND * 400 // 1000
    anchors = [a for s in sealed for a in s.batch.anchors if a.entity_index == 1]
    assert (
        anchors[-1].k_ppm[anchors[-1].counters.index(next(c for c in anchors[-1].counters if c[0] == 252))]
        == 250_000
    )
    assert taken(sealed) > 0


def test_while_k_is_disputed_a_bridge_is_a_gap_and_not_a_guess() -> None:
    """k is 2: the counter shows half of what was done, so that nothing about it looks impossible."""
    gpu, agent, t = Scripted(k={252: Fraction(2)}), meter(), 100 * SECOND
    sealed: list[Sealed] = agent.observe(gpu.reading(t))
    for i in range(14):
        t += SECOND
        gpu.run(SECOND, BUSY)
        if i == 7:  # the scale is known by now, and k not yet
            gpu.percent()
            sealed += agent.observe(Reading("GPU-0", t, UNIX0 + t, error="NVML_ERROR_UNKNOWN"))
        else:
            sealed += agent.observe(gpu.reading(t))
    last = agent.flush(final=True)
    assert last is not None
    sealed.append(last)
    gaps = [u for _, u in rows(sealed) if u.gap_reason]
    assert [(u.gap_reason, u.duration_ns // SECOND) for u in gaps] == [(GapReason.REFUSED, 2)]
    assert own(sealed, "hmma_cycles") == 12 * ONE_SECOND * 400 // 1000
    assert {u.evidence_class for _, u in rows(sealed)} == {
        EvidenceClass.A1,
        EvidenceClass.A2,
        EvidenceClass.GAP,
    }
    assert taken(sealed) >= 0


def test_a_counter_that_is_not_there_gives_way_to_its_percentage() -> None:
    """A driver without id 252: HMMA is not lost in the any-tensor counter where a percentage tells it."""
    gpu, agent, t = Scripted(), meter(), 100 * SECOND
    sealed: list[Sealed] = []
    for _ in range(10):
        cycles = {key: value for key, value in gpu.counters().items() if key != 252}
        sealed += agent.observe(gpu.reading(t, cycles=cycles))
        t += SECOND
        gpu.run(SECOND, BUSY)
    last = agent.flush(final=True)
    assert last is not None
    sealed.append(last)
    assert abs(own(sealed, "hmma_cycles") / (9 * ONE_SECOND * 400 / 1000) - 1) < 1e-6
    assert own(sealed, "sm_elapsed_cycles") == 9 * ONE_SECOND
    assert {u.evidence_class for _, u in rows(sealed)} == {EvidenceClass.A2}
    assert notices(sealed) == ["calibration"]


@pytest.mark.parametrize("told", [True, False])
def test_a_k_that_nothing_can_show_to_be_another_is_said(told: bool) -> None:
    """An exporter's totals come without percentages; so do counters of a driver that lacks ids 5 and 7."""
    gpu, agent, t = Scripted(), meter(), 100 * SECOND
    sealed: list[Sealed] = []
    for _ in range(8):
        sealed += agent.observe(gpu.reading(t) if told else gpu.reading(t, percent={2: 90.0}))
        t += SECOND
        gpu.run(SECOND, BUSY)
    last = agent.flush(final=True)
    assert last is not None
    (said,) = [n.detail for s in [*sealed, last] for n in s.batch.notices]
    assert ("k of each pipe is taken for 1, unchecked" in said) is not told


def test_percentages_do_not_speak_of_a_time_in_which_nobody_metered() -> None:
    """Held back over a restart: without a scale in the end that interval is a gap, not the last second's percentages."""
    gpu, agent, t = Scripted(), meter(), 100 * SECOND
    sealed: list[Sealed] = agent.observe(
        gpu.reading(t, sm_clock_mhz=(500.0,))
    )  # 3.4 counts per clock: no scale
    for i in range(80):
        t += SECOND
        gpu.run(SECOND, BUSY)
        if i == 5:
            last = agent.flush()
            assert last is not None
            sealed.append(last)
            agent = meter(journal=last.journal)
            t += 30 * SECOND
            gpu.run(30 * SECOND, {})
            gpu.percent()
            t += SECOND
            gpu.run(SECOND, BUSY)
        sealed += agent.observe(gpu.reading(t, sm_clock_mhz=(500.0,)))
    last = agent.flush(final=True)
    assert last is not None
    sealed.append(last)
    gaps = [(w, u.gap_reason, u.duration_ns // SECOND) for w, u in rows(sealed) if u.gap_reason]
    assert gaps == [(JOB_A, GapReason.REFUSED, 32)]


@pytest.mark.parametrize("average", [True, False])
def test_a_counter_248_that_stands_still_while_pipes_are_busy_is_refused(average: bool) -> None:
    gpu, agent, t = Scripted(average=average), meter(), 100 * SECOND
    sealed: list[Sealed] = []
    counters = gpu.counters()
    for i in range(20):
        counters = gpu.counters() if i < 10 else counters
        sealed += agent.observe(gpu.reading(t, cycles=counters))
        t += SECOND
        gpu.run(SECOND, BUSY)
    last = agent.flush(final=True)
    assert last is not None
    sealed.append(last)
    assert sum(u.duration_ns for _, u in rows(sealed) if u.gap_reason is GapReason.REFUSED) == 10 * SECOND
    assert own(sealed, "sm_elapsed_cycles") == 9 * ONE_SECOND
    assert "reading-refused" in notices(sealed)
