"""How often the counters are read changes nothing that matters: ticks from 0.25 to 60 s, in every way of metering."""

from collections.abc import Mapping
from fractions import Fraction

import pytest
from metering import JOB_A, SECOND, SMS, Scripted, duration, facts, own, rows, taken

from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed
from flopmeter.contract.evidence_class import EvidenceClass

STEP = SECOND // 20
LIFE_S = 240
#: (seconds, MHz, active permille): training, a checkpoint at the idle clock, throttled, idle, training again.
PHASES = (
    (7.3, 1980, {249: 950, 250: 700, 252: 640, 259: 100}),
    (1.15, 345, {249: 100, 250: 0, 252: 0, 259: 30}),
    (3.6, 1245, {249: 990, 250: 900, 252: 800, 253: 100, 259: 50}),
    (0.85, 345, {}),
    (2.1, 1980, {249: 800, 250: 500, 251: 60, 254: 90, 252: 400}),
)


def script() -> list[tuple[int, Mapping[int, int]]]:
    """Every 50 ms of the life: the clock, and what runs."""
    found: list[tuple[int, Mapping[int, int]]] = []
    while len(found) * STEP < LIFE_S * SECOND:
        for seconds, mhz, active in PHASES:
            found += [(mhz, active)] * round(seconds * 20)
    return found[: LIFE_S * 20]


def live(gpu: Scripted, tick_ns: int, *, cycles: bool, percent: bool, samples: bool = True) -> list[Sealed]:
    """The life of a GPU read every `tick_ns`; buffered clock samples, or the one clock at the reading."""
    agent = Meter(facts(), MeterSettings(tick_ns=tick_ns), agent_version="0.1.0")
    t, sealed, clocks = 1_000 * SECOND, [], list[float]()

    def read() -> None:
        changes: dict[str, object] = {"sm_clock_mhz": tuple(clocks) if samples else (float(gpu.mhz),)}
        changes |= {} if cycles else {"cycles": {}}
        reading = gpu.reading(t, **changes)
        sealed.extend(agent.observe(reading if percent else gpu.reading(t, percent={}, **changes)))
        clocks.clear()

    clocks.append(float(gpu.mhz))
    read()
    for i, (mhz, active) in enumerate(script(), 1):
        gpu.mhz = mhz
        t += STEP
        gpu.run(STEP, active)
        clocks.append(float(mhz))
        if i * STEP % tick_ns == 0:
            read()
    last = agent.flush(final=True)
    return [*sealed, last] if last else sealed


TICKS = pytest.mark.parametrize("tick_s", [0.25, 0.5, 1, 2, 10, 30, 60])


@TICKS
@pytest.mark.parametrize("average", [True, False])
def test_counters_give_the_same_at_every_tick_to_the_cycle(tick_s: float, average: bool) -> None:
    gpu = Scripted(average=average)
    sealed = live(gpu, round(tick_s * SECOND), cycles=True, percent=False)
    assert {u.evidence_class for _, u in rows(sealed)} == {EvidenceClass.A1}
    each = SMS if average else 1
    counted = {key: (value - gpu.start) * each for key, value in gpu.counters().items()}
    for key, name in ((248, "sm_elapsed_cycles"), (249, "sm_active_cycles"), (252, "hmma_cycles")):
        assert own(sealed, name) == counted[key]
    assert duration(sealed) == LIFE_S * SECOND
    taken(sealed)


@TICKS
def test_percentages_and_clock_samples_give_it_within_one_percent(tick_s: float) -> None:
    """The clock swings between 345 and 1980 MHz; percentages are shares of cycles, so their clock must be right."""
    gpu = Scripted()
    sealed = live(gpu, round(tick_s * SECOND), cycles=False, percent=True)
    assert {u.evidence_class for _, u in rows(sealed)} == {EvidenceClass.A2}
    for key, name in ((248, "sm_elapsed_cycles"), (249, "sm_active_cycles"), (252, "hmma_cycles")):
        assert abs(own(sealed, name) / gpu.true(key) - 1) < 0.01, name
    assert duration(sealed) == LIFE_S * SECOND
    taken(sealed)


@TICKS
def test_the_spread_of_the_clock_holds_the_truth_even_where_it_is_polled(tick_s: float) -> None:
    gpu = Scripted()
    sealed = live(gpu, round(tick_s * SECOND), cycles=False, percent=True, samples=False)
    sampled = [u for _, u in rows(sealed) if u.evidence_class is EvidenceClass.A2]
    low = sum(u.sm_elapsed_cycles * (10**6 - u.spread_ppm) // 10**6 for u in sampled)  # class C has none
    high = sum(u.sm_elapsed_cycles * (10**6 + u.spread_ppm) // 10**6 for _, u in rows(sealed))
    assert low <= gpu.true(248) <= high


@TICKS
@pytest.mark.parametrize("k", [Fraction(1), Fraction(1, SMS), Fraction(2)])
def test_counters_whose_worth_is_not_known_give_it_too(tick_s: float, k: Fraction) -> None:
    gpu = Scripted(k={249: k, 250: k, 252: k})
    sealed = live(gpu, round(tick_s * SECOND), cycles=True, percent=True)
    assert own(sealed, "sm_elapsed_cycles") == gpu.true(248)
    for key, name in ((249, "sm_active_cycles"), (252, "hmma_cycles")):
        assert abs(own(sealed, name) / gpu.true(key) - 1) < 0.001, name
    assert not [u for _, u in rows(sealed) if u.gap_reason]
    assert {w for w, _ in rows(sealed)} == {JOB_A}
    taken(sealed)


class Doubles(Scripted):
    """NVML hands counters out as doubles: beyond 2^53 single cycles are lost, beyond 2^57 sixteen."""

    def counters(self) -> dict[int, int]:
        return {key: int(float(value)) for key, value in super().counters().items()}


@pytest.mark.parametrize("start", [2**53 - 10**12, 2**53, 2**57 + 1, 2**61])
def test_beyond_2_to_the_53_the_differences_stay_right(start: int) -> None:
    gpu = Doubles(average=False, start=start)
    sealed = live(gpu, SECOND, cycles=True, percent=True)
    assert {u.evidence_class for _, u in rows(sealed)} == {EvidenceClass.A1}
    for key, name in ((248, "sm_elapsed_cycles"), (249, "sm_active_cycles"), (252, "hmma_cycles")):
        assert abs(own(sealed, name) - gpu.true(key)) <= 2 * start >> 52, name
    taken(sealed)
