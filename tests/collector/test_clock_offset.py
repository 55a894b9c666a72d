"""An agent's clock offset as an interval: the truth lies in it, whatever the ways take and whatever the agent says."""

import hypothesis.strategies as st
from hypothesis import example, given

from flopmeter.collector.clock_offset import (
    DRIFT_PPM,
    KEPT_NS,
    MAX_SINCE_NS,
    MOVED_NS,
    NARROW_NS,
    OFF_NS,
    Offset,
    clock_offset,
    worth_keeping,
)

S, MS = 1_000_000_000, 1_000_000
NOW = 1_795_000_000 * S
times = st.integers(0, 100 * S)


@given(
    away=st.integers(-(10**9) * S, 10**9 * S),
    ways=st.tuples(times, times),
    rest_ns=st.integers(0, MAX_SINCE_NS // 2),
    ago_ns=st.integers(0, S),
    drift_ppm=st.integers(-DRIFT_PPM, DRIFT_PPM),
)
@example(away=0, ways=(0, 0), rest_ns=1_800 * S, ago_ns=0, drift_ppm=DRIFT_PPM)
@example(away=0, ways=(0, 0), rest_ns=1_800 * S, ago_ns=0, drift_ppm=-DRIFT_PPM)
def test_the_truth_lies_within_whatever_the_ways_take(
    away: int, ways: tuple[int, int], rest_ns: int, ago_ns: int, drift_ppm: int
) -> None:
    """We say something; it is there `out_ns` later, rests `rest_ns`, and the answer takes `back_ns`.

    The agent's steady clock runs fast or slow by what is allowed, it looks at it `ago_ns` too late (so that it says less),
    and the two ways are as different as they like.
    """
    (out_ns, back_ns), started = ways, 77 * S
    read_ns = started + out_ns + rest_ns  # of our steady clock: when it reads its wall clock
    received_ns = read_ns + back_ns
    seen_ns = max(rest_ns - ago_ns, 0)
    since_ns = seen_ns * (1_000_000 + drift_ppm) // 1_000_000
    unix_then = NOW - back_ns  # our wall clock at that instant, which is NOW when the answer is here
    found = clock_offset(
        unix_then + away, said_ns=started, since_ns=since_ns, received_ns=received_ns, received_unix_ns=NOW
    )
    assert found is not None
    assert found.lower_ns <= away <= found.upper_ns
    # … and no wider than the ways, what it did not see, and the drift.
    allowed = since_ns * DRIFT_PPM // 1_000_000 + rest_ns * DRIFT_PPM // 1_000_000 + 2
    assert found.width_ns <= out_ns + back_ns + (rest_ns - seen_ns) + allowed
    assert found.surely_ns <= abs(away)


@given(
    t=st.integers(-(1 << 65), 1 << 65),
    said=st.integers(0, 1 << 63),
    since=st.integers(-5, 1 << 64),
    received=st.integers(0, 1 << 63),
)
def test_what_cannot_be_is_not_known_and_what_is_known_fits_the_store(
    t: int, said: int, since: int, received: int
) -> None:
    found = clock_offset(t, said_ns=said, since_ns=since, received_ns=received, received_unix_ns=NOW)
    if t <= 0 or t >= 1 << 63 or since < 0 or since > MAX_SINCE_NS or received < said + since // 2:
        assert found is None
    if found is not None:
        assert found.lower_ns <= found.upper_ns
        assert all(-(1 << 63) <= n < 1 << 64 for n in found)


def test_a_clock_is_surely_off_only_where_the_whole_interval_is() -> None:
    assert Offset(-3, 5, NOW).surely_ns == 0
    assert Offset(4, 9, NOW).surely_ns == 4
    assert Offset(-9, -4, NOW).surely_ns == 4
    assert Offset(OFF_NS, OFF_NS + 1, NOW).surely_ns == OFF_NS


def within(lower: int, upper: int, age_ns: int = 0) -> Offset:
    return Offset(lower, upper, NOW + age_ns)


def test_what_is_kept_gives_way_to_a_step_to_a_better_and_to_a_newer_one_and_to_nothing_else() -> None:
    kept = within(0, 4 * MS)
    assert worth_keeping(None, kept)
    assert not worth_keeping(kept, within(1 * MS, 5 * MS, KEPT_NS - 1))
    assert not worth_keeping(kept, within(-MOVED_NS, 0, S)), "it may be the same"
    assert not worth_keeping(kept, within(4 * MS + MOVED_NS, 8 * MS + MOVED_NS, S))
    assert worth_keeping(kept, within(4 * MS + MOVED_NS + 1, 8 * MS + MOVED_NS, S))
    assert worth_keeping(kept, within(-9 * MS - MOVED_NS, -MOVED_NS - 1, S))
    assert worth_keeping(kept, within(1 * MS, 5 * MS, KEPT_NS))
    assert worth_keeping(kept, within(1 * MS, 5 * MS, -KEPT_NS)), "our own clock was set back"
    wide = within(-30 * MS, 30 * MS, KEPT_NS)
    assert not worth_keeping(kept, wide), "a narrow one may still come"
    assert worth_keeping(kept, wide._replace(measured_unix_ns=NOW + 2 * KEPT_NS))
    poor = within(-S, S)
    assert worth_keeping(poor, within(-S // 2, S // 2, 1))
    assert not worth_keeping(poor, within(-S, S - 1, 1))
    assert not worth_keeping(within(0, NARROW_NS), within(0, 1, 1)), "narrow enough"


@given(
    st.lists(st.tuples(st.integers(-20 * MS, 20 * MS), st.integers(0, 40 * MS)), min_size=50, max_size=200)
)
def test_a_clock_that_jitters_is_written_a_few_times_in_ten_minutes(said: list[tuple[int, int]]) -> None:
    """Heartbeats every 3 s, each an interval of its own about the same truth."""
    kept, written = None, 0
    for i, (middle, half) in enumerate(said):
        new = within(min(middle - half, 0), max(middle + half, 0), i * 3 * S)
        if worth_keeping(kept, new):
            kept, written = new, written + 1
    assert written <= 5  # the first, and halves of 80 ms down to NARROW_NS
