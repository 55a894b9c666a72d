"""What a stream says of the wall clock: since the first of an ack, never longer than it was, and straight after one at times."""

from collections.abc import Iterator

import hypothesis.strategies as st
from chains import append
from hypothesis import given
from processes import wait_for
from uplinks import WAIT_S, Connect, settled

from fakes import FakeCollector
from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.status import Timing
from flopmeter.agent.shipping.wall_clock import ClockSaid, WallClock

S = 1_000_000_000


class Steps:
    """A steady clock: each look at it takes a while."""

    def __init__(self, looks: Iterator[int] | None = None) -> None:
        self.now = 1_000 * S
        self._looks = looks

    def __call__(self) -> int:
        self.now += next(self._looks, 0) if self._looks else 0
        return self.now


def test_before_an_ack_nothing_is_said_of_one() -> None:
    clock = WallClock(300, lambda: 7, Steps())
    assert clock.said() == ClockSaid(7, 0, 0)
    assert not clock.due


def test_of_acks_of_one_number_the_first_counts_and_an_older_one_never() -> None:
    steady = Steps()
    clock = WallClock(300, lambda: 7, steady)
    clock.acked(5)
    steady.now += 2 * S
    clock.acked(5)  # a duplicate, acked again
    clock.acked(4)
    steady.now += 1 * S
    assert clock.said() == ClockSaid(7, 5, 3 * S)
    clock.acked(9)
    assert clock.said() == ClockSaid(7, 9, 0)


def test_an_ack_is_answered_at_once_when_that_was_long_ago_and_only_then() -> None:
    steady = Steps()
    clock = WallClock(300, lambda: 7, steady)
    clock.acked(1)
    assert not clock.due, "the Hello said it just now"
    steady.now += 299 * S
    clock.acked(2)
    assert not clock.due
    steady.now += 1 * S
    assert not clock.due, "long after the ack it says no more than any heartbeat"
    clock.acked(2)
    assert not clock.due
    clock.acked(3)
    assert clock.due
    clock.said()
    clock.acked(4)
    assert not clock.due
    steady.now += 300 * S
    clock.acked(5)
    assert clock.due


@given(st.lists(st.integers(0, 10 * S), min_size=8, max_size=8), st.integers(0, 100 * S))
def test_it_never_says_that_more_time_went_by_than_did(looks: list[int], rest: int) -> None:
    """However long it takes between two of its lines."""
    steady = Steps(iter(looks))
    read: list[int] = []
    clock = WallClock(0, lambda: read.append(steady()) or 1, steady)  # type: ignore[func-returns-value]
    came = steady.now  # the ack was received not after this … and then looked at
    clock.acked(1)
    steady.now += rest
    said = clock.said()
    assert said.since_ack_ns <= read[0] - came


def test_the_uplink_says_its_clock_in_the_hello_and_behind_an_ack(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    append(chain, 0, 1)
    timing = Timing(heartbeat_s=600, clock_s=0)
    uplink = connect(collector.target, timing)
    settled(uplink, 1)
    append(chain, 1, 1)
    settled(uplink, 2)
    assert abs(collector.hellos[0].t_unix_ns - uplink.unix_ns()) < 600 * S
    append(chain, 2, 1)
    settled(uplink, 3)
    wait_for("its heartbeat is heard", lambda: collector.beats, WAIT_S)
    for beat in collector.beats:
        assert 1 <= beat.acked_seq <= 3
        assert beat.since_ack_ns < 60 * S
        assert abs(beat.t_unix_ns - uplink.unix_ns()) < 600 * S


def test_with_its_usual_timing_records_are_answered_by_no_heartbeat(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    uplink = connect(collector.target)
    for n in range(5):
        append(chain, n, 1)
        settled(uplink, n + 1)
    assert collector.beats == []
