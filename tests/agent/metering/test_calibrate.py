"""The scale of the cycle counters: told from 5 s beside the clock, or held back, or priced without."""

import pytest
from metering import JOB_A, JOB_B, SECOND, SMS, device

from flopmeter.agent.metering.calibrate import Evidence, Held, Scale
from flopmeter.agent.metering.entity import describe
from flopmeter.agent.metering.epochs import alone
from flopmeter.agent.metering.interval import NUMBERS, Interval
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.w_table import current

ENTITY = describe(device(), current(), source="nvml")
CLOCKS = (1_700_000, 1, 1_700_000, 1_700_000)


def evidence(rate: float, seconds: int = 5, *, clocks=CLOCKS) -> Evidence:  # type: ignore[no-untyped-def]
    found = Evidence()
    for _ in range(seconds):
        found.add(round(1_700_000_000 * rate), SECOND, clocks)
    return found


@pytest.mark.parametrize(
    ("rate", "scale"),
    [
        (1.0, Scale.AVERAGE),
        (0.9, Scale.AVERAGE),
        (1.1, Scale.AVERAGE),
        (0.89, None),
        (1.12, None),
        (SMS, Scale.SUM),
        (SMS * 0.9, Scale.SUM),
        (SMS * 1.1, Scale.SUM),
        (SMS * 0.88, None),
        (SMS * 1.12, None),
        (10.0, None),
        (0.0, None),
    ],
)
def test_bands(rate: float, scale: Scale | None) -> None:
    assert evidence(rate).verdict(ENTITY) is scale


def test_five_seconds_are_needed() -> None:
    assert evidence(1.0, 4).verdict(ENTITY) is None
    assert evidence(1.0, 5).verdict(ENTITY) is Scale.AVERAGE


def test_without_clocks_only_what_no_average_can_be_is_told() -> None:
    assert evidence(SMS, clocks=None).verdict(ENTITY) is Scale.SUM
    assert evidence(1.0, clocks=None).verdict(ENTITY) is None
    assert evidence(1.1, clocks=None).verdict(ENTITY) is None  # 1870 MHz: an average may run so


def test_one_sm_is_its_own_sum() -> None:
    one = describe(device(sm_count=1), current(), source="nvml")
    assert Evidence().verdict(one) is Scale.SUM
    assert Scale.AVERAGE.multiplier(ENTITY) == SMS
    assert Scale.AVERAGE.summed_over(ENTITY) == 1
    assert Scale.SUM.multiplier(ENTITY) == 1
    assert Scale.SUM.summed_over(ENTITY) == SMS


def interval(cycles: int, grade: EvidenceClass = EvidenceClass.A1) -> Interval:
    return Interval(grade, 1023, 0, (SECOND, cycles, *(cycles // 2,) * 9, 7))


def test_held_intervals_are_priced_by_the_scale_when_it_is_known() -> None:
    held = Held()
    for workload in (JOB_A, JOB_A, JOB_B):
        held.add(alone(workload), interval(1_700_000_000), interval(1, EvidenceClass.A2))
    priced = dict(held.release(ENTITY, Scale.AVERAGE))
    got = priced[JOB_A]
    assert isinstance(got, Interval)
    assert got.evidence_class is EvidenceClass.A1
    assert got.numbers == (2 * SECOND, 2 * 1_700_000_000 * SMS, *(1_700_000_000 * SMS,) * 9, 14)
    assert not held.sums
    assert held.held_ns == 0


def test_without_a_scale_by_percentages_else_a_gap() -> None:
    held = Held()
    held.add(alone(JOB_A), interval(10), interval(3, EvidenceClass.A2))
    held.add(alone(JOB_A), interval(10), None)
    priced = [got for _, got in held.release(ENTITY, None)]
    assert priced == [interval(3, EvidenceClass.A2), SECOND]


def test_a_scale_that_gives_more_than_a_gpu_can_is_a_gap() -> None:
    held = Held()
    held.add(alone(JOB_A), interval(1_700_000_000 * SMS), None)
    assert list(held.release(ENTITY, Scale.AVERAGE)) == [(JOB_A, SECOND)]
    assert len(NUMBERS) == len(interval(1).numbers)
