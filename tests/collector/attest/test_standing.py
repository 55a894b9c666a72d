"""Where a run stands under a law, and which event says so: exact, three answers, nothing without its event."""

import json

import pytest
from attest_books import law
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.attest.errors import AttestRefused
from flopmeter.collector.attest.gather import Event
from flopmeter.collector.attest.standing import Told, crossing
from flopmeter.collector.law.rules import Verdict
from flopmeter.collector.law.thresholds import threshold_key
from flopmeter.contract.flop import Figure

LINE = law("eu-line", 100)


def event(number, key, kind="threshold.crossed", subject="r1", unix_ns=10**18, **data):
    return Event(number, key, kind, subject, unix_ns, json.dumps({"regime": LINE.id, **data}))


def said(*events, due=None, silent=()):
    return Told(
        "r1",
        events,
        {} if due is None else {LINE.id: due},
        silent,
        {e.number: 100 + e.number for e in events},
    )


def key(answer, estimate):
    return threshold_key(LINE, "r1", answer, estimate)


CROSSED = event(1, key(Verdict.CROSSED, Verdict.CROSSED))


def test_crossed_by_one_operation_and_not_at_the_line():
    over, at = Figure(101, 101, 101), Figure(100, 100, 100)
    assert crossing(LINE, over, over, said(CROSSED)).status is Verdict.CROSSED
    found = crossing(LINE, at, at, said())
    assert (found.status, found.event, found.first_crossed_unix_ns) == (Verdict.BELOW, None, None)


def test_a_crossing_names_its_event_when_it_was_and_what_is_due():
    found = crossing(LINE, Figure(101, 102, 103), Figure(101, 102, 103), said(CROSSED, due=7))
    assert (found.event, found.event_index, found.due_unix_ns) == (1, 101, 7)
    assert found.first_crossed_unix_ns == found.known_unix_ns == 10**18


def test_work_that_came_late_crossed_when_it_was_done():
    late = event(1, CROSSED.key, met_since="2001-09-09T00:00:00.000Z")
    found = crossing(LINE, Figure(101, 102, 103), Figure(101, 102, 103), said(late))
    assert found.first_crossed_unix_ns == 999_993_600 * 10**9


def test_what_was_foreseen_was_known_then():
    forecast = event(2, "f", "threshold.forecast", unix_ns=5)
    found = crossing(LINE, Figure(101, 102, 103), Figure(101, 102, 103), said(CROSSED, forecast))
    assert (found.known_unix_ns, found.first_crossed_unix_ns) == (5, 10**18)
    below = crossing(LINE, Figure(1, 2, 3), Figure(1, 2, 3), said(forecast))
    assert (below.known_unix_ns, below.first_crossed_unix_ns) == (5, None)


def test_events_of_another_run_or_another_side_do_not_count():
    straddling = Figure(1, 50, 200)
    for wrong in (
        event(1, key(Verdict.UNDETERMINED, Verdict.CROSSED)),
        event(1, threshold_key(LINE, "r2", Verdict.UNDETERMINED, Verdict.BELOW), subject="r2"),
        CROSSED,
    ):
        with pytest.raises(AttestRefused, match="undetermined, found none"):
            crossing(LINE, straddling, straddling, said(wrong))
    right = event(3, key(Verdict.UNDETERMINED, Verdict.BELOW))
    assert crossing(LINE, straddling, straddling, said(right)).event == 3


def test_an_event_that_is_not_in_the_log_is_none():
    told = Told("r1", (CROSSED,), {}, (), {})
    with pytest.raises(AttestRefused, match="found none"):
        crossing(LINE, Figure(101, 101, 101), Figure(101, 101, 101), told)


def test_silence_alone_names_the_silence():
    silence = event(4, "silent:aa", "agent.silent", subject="agent/aa")
    found = crossing(LINE, Figure(1, 2, 500), Figure(1, 2, 3), said(silence, silent=("aa",)))
    assert (found.status, found.event) == (Verdict.UNDETERMINED, 4)
    with pytest.raises(AttestRefused):
        crossing(LINE, Figure(1, 2, 500), Figure(1, 2, 3), said(silence, silent=("bb",)))
    with pytest.raises(AttestRefused):  # the records themselves straddle: that has an event of its own
        crossing(LINE, Figure(1, 2, 500), Figure(1, 2, 400), said(silence, silent=("aa",)))


@given(st.lists(st.integers(0, 300), min_size=3, max_size=3).map(sorted))
def test_the_answer_is_that_of_the_bounds(numbers):
    f = Figure(*numbers)
    events = [
        event(n, key(*answer))
        for n, answer in enumerate(
            (
                (Verdict.CROSSED, Verdict.CROSSED),
                (Verdict.UNDETERMINED, Verdict.BELOW),
                (Verdict.UNDETERMINED, Verdict.CROSSED),
            ),
            1,
        )
    ]
    found = crossing(LINE, f, f, said(*events))
    expected = Verdict.CROSSED if f.lower > 100 else Verdict.BELOW if f.upper <= 100 else Verdict.UNDETERMINED
    assert found.status is expected
    assert (found.event is None) is (expected is Verdict.BELOW)
