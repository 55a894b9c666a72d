"""The arithmetic of forecasts: whole numbers in, whole numbers out, and nothing that a regulator could not redo."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from forecast_courses import DATA, Stretched, courses
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.forecast.project import (
    CONFIDENCES,
    DAY_NS,
    HOUR_NS,
    MAX_AHEAD_NS,
    MAX_BLOCKS,
    MIN_BLOCKS,
    T_PERMILLE,
    Crossing,
    History,
    Rates,
    at_rest,
    block_hours,
    crossing,
    margin,
    projected,
    rates,
    windows,
)
from flopmeter.collector.law.lines import Target, target
from flopmeter.contract.flop import Figure

NOW = 1_790_000_000 * 10**9
YEAR_NS = 365 * DAY_NS


def exact(n):
    return Figure(n, n, n)


def history(*blocks, hours=6, total=None, own=None, age_hours=None):
    """Blocks of exact figures (or Figures), oldest first; all that was ever done unless told otherwise."""
    made = tuple(b if isinstance(b, Figure) else exact(b) for b in blocks)
    whole = Figure(*(sum(getattr(b, n) for b in made) for n in ("lower", "point", "upper")))
    total = whole if total is None else total
    age = (len(made) * hours if age_hours is None else age_hours) * HOUR_NS
    return History(total, total if own is None else own, age, hours * HOUR_NS, made)


def per_hour(rate):
    return rate * HOUR_NS


# ---- by hand ------------------------------------------------------------------------------------------


def test_the_worked_example_of_the_docs():
    """docs/forecast.md works this one out on paper."""
    h = history(*[60] * 10, 0, 30, total=exact(5_000), age_hours=600)
    r = rates(h, 90)
    # 630 FLOP in 72 hours; the last 6 hours 30, the last 24 hours 150; the whole run 5,000 in 600 hours
    assert {k: per_hour(v) for k, v in windows([60] * 10 + [0, 30], h.block_ns).items()} == {
        1: 5,
        4: Fraction(150, 24),
        12: Fraction(630, 72),
    }
    assert per_hour(r.point) == Fraction(630, 72) == Fraction("8.75")
    # With a block of nothing: mean 630/13, q = 13 x 36,900 - 630^2 = 82,800; t 1.782, root of 1782^2 x 2q/12, up
    root = math.isqrt(1782**2 * 2 * 82_800 // 12) + 1
    assert margin((*[60] * 10, 0, 30, 0), 1782) == Fraction(root, 13_000) == Fraction(209_338, 13_000)
    assert r.lower == min(Fraction(5), (Fraction(630, 13) - Fraction(root, 13_000)) / 6) / HOUR_NS
    assert (
        per_hour(r.lower) == 5
    )  # the last six hours are slower than what chance allows for: (48.46 - 16.10) / 6 = 5.39
    burst = (*[60] * 10, 0, 30, 120)
    assert per_hour(r.upper) == (Fraction(750, 13) + margin(burst, 1782)) / 6
    assert math.floor(per_hour(r.upper)) == 12
    goal = Target(6_001, 6_001, 6_001)
    then = projected(h.total, r, 100 * HOUR_NS)
    assert (then.lower, then.point) == (5_500, 5_875)
    days = [(at - NOW) / HOUR_NS for at in crossing(h.total, r, goal, NOW)]
    assert [math.ceil(d) for d in days] == [80, 115, 201]


def test_a_steady_run_is_forecast_at_its_rate_and_three_quarters_of_it_are_believed():
    r = rates(history(*[1_000] * 12), 90)
    assert per_hour(r.point) * 6 == 1_000
    assert Fraction("0.70") < r.lower / r.point < Fraction("0.75")
    assert Fraction("1.25") < r.upper / r.point < Fraction("1.30")


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_t_is_students(confidence):
    """The two-sided share within t, integrated anew (Simpson, 20,000 steps)."""
    for df, t_permille in T_PERMILLE[confidence].items():
        c = math.gamma((df + 1) / 2) / (math.sqrt(df * math.pi) * math.gamma(df / 2))
        t, steps = t_permille / 1000, 2_000
        step = t / steps
        weights = [1, *([4, 2] * (steps // 2))[:-1], 1]
        area = sum(w * c * (1 + (i * step) ** 2 / df) ** (-(df + 1) / 2) for i, w in enumerate(weights)) * (
            step / 3
        )
        assert abs(2 * area * 100 - confidence) < 0.02, (df, 2 * area)
    assert set(T_PERMILLE[confidence]) == set(range(MIN_BLOCKS, MAX_BLOCKS + 1))


# ---- what runs do -------------------------------------------------------------------------------------


def test_too_young_is_no_forecast():
    assert rates(history(*[5] * (MIN_BLOCKS - 1), hours=1), 90) is None
    assert rates(history(*[5] * MIN_BLOCKS, hours=1), 90) is not None


def test_blocks_grow_with_the_run_to_three_days():
    assert [block_hours(h) for h in (0, 3, 4, 12, 13, 24, 25, 71, 72, 10_000)] == [
        (1, 0), (1, 3), (1, 4), (1, 12), (2, 6), (2, 12), (3, 8), (6, 11), (6, 12), (6, 12),
    ]  # fmt: skip
    for hours in range(MIN_BLOCKS, 73):  # and hold nearly all of a young run
        length, n = block_hours(hours)
        assert n >= MIN_BLOCKS
        assert hours - length < length * n <= hours


def test_a_stall_slows_the_forecast_and_takes_the_lower_edge_to_nothing():
    steady, stalled = rates(history(*[100] * 12), 90), rates(history(*[100] * 11, 0), 90)
    assert stalled.lower == 0 < steady.lower
    assert stalled.point < steady.point
    assert stalled.upper >= stalled.point


def test_a_restart_is_in_the_availability():
    """Two days of work in three: what is to come is forecast with such stops, not without them."""
    r = rates(history(*[90, 90, 0] * 4), 90)
    assert per_hour(r.point) * 6 == 60
    assert r.lower < r.point < r.upper


def test_silence_takes_the_rate_down_until_nothing_is_forecast():
    points = [rates(history(*[100] * (12 - k), *[0] * k, age_hours=72 + 6 * k), 90).point for k in range(13)]
    assert points == sorted(points, reverse=True)
    assert points[-1] == 0
    dead = history(*[0] * 12, total=exact(10**25 - 1), own=exact(10**25 - 1), age_hours=24 * 30)
    assert at_rest(dead)
    r = rates(dead, 90)
    assert (r.lower, r.point) == (0, 0)
    assert crossing(dead.total, r, Target(*(10**25 + 1,) * 3), NOW)[1:] == (None, None)
    # It may come back: as fast as it was on the whole, which is less the longer it is silent.
    later = rates(replace(dead, age_ns=dead.age_ns * 2), 90)
    assert 0 < later.upper < r.upper


def test_ramp_up_is_not_believed_at_once():
    r = rates(history(*range(0, 120, 10)), 90)
    assert per_hour(r.lower) * 6 < 55 == per_hour(r.point) * 6
    assert per_hour(r.upper) * 6 == 110  # the last six hours


def test_a_burst_widens_and_moves_the_lower_edge_little():
    steady, burst = rates(history(*[100] * 12), 90), rates(history(*[100] * 11, 1_000), 90)
    assert burst.lower <= steady.lower
    assert burst.upper > steady.upper * 4


def test_gaps_widen_and_never_move_the_point():
    seen = [Figure(100, 100, 100)] * 11
    with_gap = rates(history(*seen, Figure(0, 0, 5_000)), 90)
    without = rates(history(*seen, 0), 90)
    assert with_gap.point == without.point
    assert with_gap.lower == without.lower
    assert with_gap.upper > without.upper


def test_only_gaps_are_not_rest():
    assert not at_rest(history(*[Figure(0, 0, 1)] * 4))


def test_requirement_21_stops_just_under_a_line_do_not_fool_the_forecast():
    """A run that goes to 99 % of the line and stops for days, again and again, is forecast by what it did on the
    whole: its upper edge meets the line, and its point does as soon as it works.
    """
    line = Target(*(10**25 + 1,) * 3)
    done = exact(99 * 10**23)
    silent = history(*[0] * 12, total=done, own=done, age_hours=24 * 60)
    r = rates(silent, 90)
    assert crossing(done, r, line, NOW).earliest < NOW + 2 * DAY_NS
    awake = history(*[0] * 11, 10**22, total=done, own=done, age_hours=24 * 60)
    assert crossing(done, rates(awake, 90), line, NOW).point < NOW + 40 * DAY_NS


# ---- lines and dates ----------------------------------------------------------------------------------


def test_the_least_number_that_meets_a_line():
    assert target(10**26, ">") == 10**26 + 1
    assert target(10**26, ">=") == 10**26
    assert target(Fraction(10**25, 3), ">") == target(Fraction(10**25, 3), ">=") == 10**25 // 3 + 1


def test_exact_at_the_size_of_the_law():
    """One operation more or less at 10^26, where a double is blind below 10^10."""
    for short in (0, 1):
        r = Rates(Fraction(1, HOUR_NS), Fraction(1, HOUR_NS), Fraction(1, HOUR_NS), DAY_NS)
        then = projected(exact(10**26 - 5 - short), r, 6 * HOUR_NS)
        assert (then.lower >= target(10**26, ">")) is (short == 0)
    at = crossing(exact(10**26 - 5), r, Target(*(target(10**26, ">"),) * 3), NOW)
    assert at == Crossing(*(NOW + 6 * HOUR_NS,) * 3)


def test_the_lower_edge_counts_on_three_times_as_long_as_was_seen():
    h = history(*[100] * 12, age_hours=72)
    r = rates(h, 90)
    assert r.believed_ns == 3 * 72 * HOUR_NS
    near, far = (projected(h.total, r, n * HOUR_NS) for n in (216, 10_000))
    assert near.lower == far.lower
    assert near.point < far.point
    line = Target(*(near.lower + 1,) * 3)
    assert crossing(h.total, r, line, NOW).latest is None
    assert crossing(h.total, r, Target(*(near.lower,) * 3), NOW).latest <= NOW + 216 * HOUR_NS


def test_never_and_past():
    r = Rates(Fraction(0), Fraction(1, 10 * MAX_AHEAD_NS), Fraction(1), DAY_NS)
    at = crossing(Figure(5, 5, 20), r, Target(10, 10, 10), NOW)
    assert at == Crossing(NOW, None, None)
    assert projected(exact(7), r, -5) == exact(7)


figures = st.lists(st.integers(0, 10**25), min_size=3, max_size=3).map(lambda x: Figure(*sorted(x)))
histories = st.builds(
    lambda blocks, hours, more, age: history(
        *blocks,
        hours=hours,
        total=Figure(
            *(sum(getattr(b, n) for b in blocks) + getattr(more, n) for n in ("lower", "point", "upper"))
        ),
        age_hours=len(blocks) * hours + age,
    ),
    st.lists(figures, min_size=MIN_BLOCKS, max_size=MAX_BLOCKS),
    st.integers(1, 6),
    figures,
    st.integers(0, 10_000),
)


@given(histories, st.sampled_from(CONFIDENCES), st.integers(0, YEAR_NS))
def test_bounds_are_in_order_and_never_below_what_is_counted(h, confidence, ahead):
    r = rates(h, confidence)
    assert 0 <= r.lower <= r.point <= r.upper
    then = projected(h.total, r, ahead)
    assert then.lower <= then.point <= then.upper
    for name in ("lower", "point", "upper"):
        assert getattr(then, name) >= getattr(h.total, name)
    goal = Target(*(h.total.upper + 10**20,) * 3)
    dates = [math.inf if d is None else d for d in crossing(h.total, r, goal, NOW)]
    assert dates == sorted(dates)


@given(histories, st.integers(1, 10**6), st.integers(0, YEAR_NS))
def test_the_unit_does_not_matter(h, k, ahead):
    """k times as much of everything is k times the forecast: to the rounding of one root and one floor each."""

    def times(f):
        return Figure(f.lower * k, f.point * k, f.upper * k)

    big = replace(h, total=times(h.total), own=times(h.own), blocks=tuple(map(times, h.blocks)))
    one, other = rates(h, 90), rates(big, 90)
    assert other.point == one.point * k
    for a, b in ((one.lower * k, other.lower), (one.upper * k, other.upper)):
        assert abs(a - b) * h.block_ns <= k  # the root is rounded up before k, or after
    assert projected(big.total, other, ahead).point >= projected(h.total, one, ahead).point * k


@given(histories, st.integers(1, 100), st.integers(0, YEAR_NS))
def test_more_of_the_same_shape_never_lowers_a_projection(h, percent, ahead):
    def more(f):
        return Figure(*(n * 100 * (100 + percent) for n in (f.lower, f.point, f.upper)))

    def same(f):
        return Figure(*(n * 100 * 100 for n in (f.lower, f.point, f.upper)))

    def of(grow):
        return replace(h, total=grow(h.total), own=grow(h.own), blocks=tuple(map(grow, h.blocks)))

    small, big = of(same), of(more)
    a, b = (projected(x.total, rates(x, 90), ahead) for x in (small, big))
    slack = 2 * (ahead // h.block_ns + 1)  # of the root, per block to come
    assert b.lower + slack >= a.lower
    assert b.point >= a.point
    assert b.upper + slack >= a.upper


@given(histories, st.integers(0, 10**25))
def test_work_done_before_the_window_is_never_lost(h, before):
    """The same recent past behind a larger total: the projection is larger by as much."""
    old = replace(h, total=Figure(*(getattr(h.total, n) + before for n in ("lower", "point", "upper"))))
    r = rates(h, 90)
    assert rates(old, 90) == r
    a, b = projected(h.total, r, DAY_NS), projected(old.total, r, DAY_NS)
    assert b.lower - a.lower == b.point - a.point == b.upper - a.upper == before


# ---- back-test ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not beside this checkout")
def test_the_interval_holds_about_as_often_as_it_says():
    """48 courses at 10, 25, 50 and 75 %, of two weeks and of two months: tests/bench/bench_forecast.py has the table.

    A method without the block of nothing holds 68 %.
    """
    inside = certain = n = 0
    for course in courses():
        for hours in (336, 1_440):
            s = Stretched(course, hours)
            for percent in (10, 25, 50, 75):
                h = s.history(hours * percent // 100)
                then = projected(h.total, rates(h, 90), (hours - hours * percent // 100) * HOUR_NS)
                inside += then.lower <= s.whole <= then.upper
                certain += then.lower <= s.whole
                n += 1
    assert n == 48 * 8
    assert inside >= 0.90 * n
    assert certain >= 0.95 * n
