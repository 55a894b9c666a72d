"""What follows from an answer: the schedule is arithmetic on integers, and its random source is ours."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.deliver.answer import (
    FIRST_RETRY_NS,
    LAST_RETRY_NS,
    LEAST_ATTEMPTS,
    LEAST_RETRY_NS,
    MAX_REFUSALS,
    MAX_SAID_CHARS,
    MOST_ASKED_NS,
    SECOND_NS,
    after_failure,
    failed,
    gone,
    line,
    refused,
    retry_delay_ns,
)

HOUR_NS = 3_600 * SECOND_NS
T0 = 1_790_000_000 * SECOND_NS


def latest(n):
    return n - 1


def earliest(n):
    return 0


def test_the_schedule_doubles_up_to_a_quarter_of_an_hour():
    steps = [retry_delay_ns(n, latest) // SECOND_NS for n in range(1, 10)]
    assert steps == [10, 20, 40, 80, 160, 320, 640, 900, 900]


@settings(deadline=None)
@given(attempts=st.integers(1, 10**9), seed=st.integers())
def test_full_jitter_is_anywhere_between_the_least_and_the_step(attempts, seed):
    delay = retry_delay_ns(attempts, random.Random(seed).randrange)
    assert LEAST_RETRY_NS <= delay <= min(LAST_RETRY_NS, FIRST_RETRY_NS << min(attempts - 1, 40))


def test_jitter_spreads_what_failed_together():
    pick = random.Random(5).randrange
    delays = {retry_delay_ns(6, pick) // SECOND_NS for _ in range(200)}
    assert len(delays) > 100
    assert min(delays) < 20
    assert max(delays) > 300


@pytest.mark.parametrize(
    ("asked_ns", "waits_ns"),
    [
        (30 * SECOND_NS, 30 * SECOND_NS),
        (MOST_ASKED_NS, MOST_ASKED_NS),
        (365 * 24 * HOUR_NS, MOST_ASKED_NS),  # a receiver cannot ask for ever
        (0, LEAST_RETRY_NS),  # nor to be hammered
    ],
)
def test_retry_after_is_honoured_within_bounds(asked_ns, waits_ns):
    assert retry_delay_ns(1, earliest, asked_ns) == waits_ns


def test_retry_after_never_shortens_our_own_wait():
    assert retry_delay_ns(4, latest, SECOND_NS) == 80 * SECOND_NS


def outcome(answer, *, attempts=1, refusals=0, age_ns=0, give_up_ns=72 * HOUR_NS):
    return after_failure(
        answer,
        attempts=attempts,
        refusals=refusals,
        first_unix_ns=T0,
        now_unix_ns=T0 + age_ns,
        give_up_ns=give_up_ns,
        pick=earliest,
    )


def test_what_nobody_answers_is_tried_until_it_is_too_old():
    assert not outcome(failed("x"), attempts=500, age_ns=72 * HOUR_NS - 1).dead
    assert outcome(failed("x"), attempts=500, age_ns=72 * HOUR_NS).dead


def test_what_is_refused_is_put_aside_after_as_many_refusals():
    assert not outcome(refused("400"), attempts=MAX_REFUSALS, refusals=MAX_REFUSALS - 1).dead
    assert outcome(refused("400"), attempts=MAX_REFUSALS, refusals=MAX_REFUSALS).dead


def test_a_refusal_after_a_long_outage_is_not_the_end():
    assert not outcome(refused("404"), attempts=400, refusals=1).dead


def test_a_clock_that_steps_forward_puts_nothing_aside():
    year = 365 * 24 * HOUR_NS
    assert not outcome(failed("x"), attempts=LEAST_ATTEMPTS - 1, age_ns=year).dead
    assert outcome(failed("x"), attempts=LEAST_ATTEMPTS, age_ns=year).dead


def test_gone_puts_nothing_aside():
    assert not outcome(gone("410"), attempts=10**6, refusals=10**6, age_ns=10**6 * HOUR_NS).dead


@settings(deadline=None)
@given(st.text())
def test_what_strangers_answer_is_one_printable_bounded_line(text):
    said = line(text)
    assert said.isprintable()
    assert len(said) <= MAX_SAID_CHARS
    assert line("\x1b[31mred\r\nInjected: yes\x00") == "[31mred Injected: yes"
