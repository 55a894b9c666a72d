"""Every pass rule, with what passes it and what fails it."""

import math

import pytest
from gpu import rules


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        (rules.within("x", 1.029, 1.0, 3), True),
        (rules.within("x", 0.971, 1.0, 3), True),
        (rules.within("x", 1.031, 1.0, 3), False),
        (rules.within("x", 0.969, 1.0, 3), False),
        (rules.within("x", math.nan, 1.0, 3), False),
        (rules.within("x", 1.0, 0.0, 3), False),
        (rules.at_most("x", 1.0, 1.0), True),
        (rules.at_most("x", 1.1, 1.0), False),
        (rules.at_most("x", math.nan, 1.0), False),
        (rules.at_least("x", 3892, 0.95 * 4096), True),
        (rules.at_least("x", 2540, 0.95 * 4096), False),
        (rules.at_least("x", math.nan, 1.0), False),
        (rules.between("x", 80, 80, 95), True),
        (rules.between("x", 79.9, 80, 95), False),
        (rules.between("x", math.nan, 80, 95), False),
        (rules.equal("x", [1], [1]), True),
        (rules.equal("x", [1], []), False),
        (rules.bounds_hold("x", 5, 5, 9), True),
        (rules.bounds_hold("x", 5, 4, 9), False),
        (rules.bounds_hold("x", 5, 10, 9), False),
        (rules.noted("x", 1.0), None),
        (rules.agree("x", {"1 s": 1.0, "7 s": 1.009}, 1), True),
        (rules.agree("x", {"1 s": 1.0, "7 s": 1.03}, 1), False),
        (rules.agree("x", {}, 1), False),
        (rules.agree("x", {"1 s": 0.0}, 1), False),
    ],
)
def test_checks(check: rules.Check, ok: bool | None) -> None:
    assert check.ok is ok
    assert check.data()["expected"]


@pytest.mark.parametrize(
    ("counts", "scale"),
    [
        (1.0, "average"),
        (0.91, "average"),
        (0.89, ""),
        (132.0, "sum"),
        (119.5, "sum"),
        (118.0, ""),
        (16.0, ""),
    ],
)
def test_scale(counts: float, scale: str) -> None:
    assert rules.counted_over(counts, 132) == scale


def test_constant_needs_ten_intervals_within_a_percent() -> None:
    assert rules.stable_constant([0.97] * 10) == pytest.approx(0.97)
    assert rules.stable_constant([0.97] * 9) is None
    assert rules.stable_constant([1.0] * 9 + [1.02]) is None
    assert rules.stable_constant([1.0] * 9 + [1.009]) is not None
    assert rules.stable_constant([1.0] * 9 + [math.nan]) is None
    assert rules.stable_constant([0.0] * 10) is None


def test_nearest_rate() -> None:
    rates = {"tf32": 2048, "bf16": 4096, "fp8": 8192}
    assert rules.nearest_rate(4100.0, rates) == "bf16"
    assert rules.nearest_rate(4096 * 1.029, rates) == "bf16"
    assert rules.nearest_rate(4096 * 1.031, rates) == ""
    assert rules.nearest_rate(2540.0, rates) == ""
    assert rules.nearest_rate(math.nan, rates) == ""
    assert rules.nearest_rate(1.0, {}) == ""


def test_moved_pipes() -> None:
    assert rules.moved({"elapsed": 100, "hmma": 80, "fp32": 5, "int": 6}) == {"hmma": 0.8, "int": 0.06}
    assert rules.moved({"elapsed": 0, "hmma": 80}) == {}


@pytest.mark.parametrize(
    ("hmma", "other", "place"),
    [(100, 0, "hmma"), (98, 2, "hmma"), (0, 100, "any"), (50, 50, "both"), (0, 0, "")],
)
def test_fp8_place(hmma: int, other: int, place: str) -> None:
    assert rules.fp8_place(hmma, other) == place


def test_smallest_honest_tick_has_no_wrong_one_above_it() -> None:
    assert rules.smallest_honest_tick({0.25: 1.001, 1.0: 1.0, 10.0: 0.995, 50.0: 1.0}) == 0.25
    assert rules.smallest_honest_tick({0.25: 1.2, 1.0: 1.0, 10.0: 1.0}) == 1.0
    assert rules.smallest_honest_tick({0.25: 1.0, 1.0: 1.02, 10.0: 1.0}) == 10.0
    assert rules.smallest_honest_tick({1.0: 1.0, 10.0: math.nan}) is None
    assert rules.smallest_honest_tick({}) is None


def test_slope() -> None:
    assert rules.slope_mhz([(0, 0), (5, 5), (1_000_000_000, 1_755_000_000)]) == pytest.approx(1755)
    assert rules.slope_mhz([(0, 0)]) is None
    assert rules.slope_mhz([(5, 10), (5, 20)]) is None
    assert rules.slope_mhz([(0, 20), (5, 10)]) is None


def test_energy_integral() -> None:
    second = 1_000_000_000
    assert rules.energy_integral_mj([(0, 700_000), (second, 700_000)]) == 700_000
    assert rules.energy_integral_mj([(0, 0), (2 * second, 600_000)]) == 600_000
    assert rules.energy_integral_mj([(0, 5)]) == 0


def test_ratio_without_truth_is_no_number() -> None:
    assert rules.ratio(3, 2) == 1.5
    assert math.isnan(rules.ratio(3, 0))
