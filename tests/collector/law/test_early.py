"""The early line: exact parts of a line, by the point and before that by the upper bound, each told once."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from forecast_lab import BROAD, HourLab, of_type, regime
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.law.early import POINT, UPPER, early_events, early_state
from flopmeter.collector.law.events import THRESHOLD_APPROACHING
from flopmeter.collector.law.lines import lines_of
from flopmeter.collector.law.regimes import MODIFICATION, shipped
from flopmeter.collector.law.rules import early_lines
from flopmeter.collector.law.standing import plain
from flopmeter.collector.registry.entries import Declare, External, Link, Relation
from flopmeter.contract.flop import ZERO, Figure

NOW = 1_790_000_000 * 10**9
HALVES = (Fraction(1, 2), Fraction(10, 13))


def told(figure, line=BROAD, raised=frozenset()):
    events = early_events(
        plain("r", figure, ZERO, [line]), [line], raised, at_unix_ns=NOW, since_position=1, position=1
    )
    return [(e.data["part"], e.data["by"]) for e in events]


def exact(n):
    return Figure(n, n, n)


def test_requirement_10_the_default_is_where_30_percent_could_hide_a_crossing():
    """10^25/1.3 is 10^26/13, no whole number: the first above it is told, the last below it is not."""
    assert BROAD.early == (Fraction(10, 13),)
    (line,) = early_lines(BROAD)
    assert line == Fraction(10**26, 13)
    below = 10**26 // 13
    assert below < line < below + 1
    assert told(exact(below)) == []
    assert told(exact(below + 1)) == [("10/13", POINT)]
    assert Fraction(below + 1) * Fraction(13, 10) > 10**25 >= Fraction(below) * Fraction(13, 10)


def test_requirement_10_fractions_are_set_in_the_regime_s_file():
    line = replace(BROAD, early=HALVES)
    assert told(exact(10**25 // 2), line) == []  # `>`: half of it sharp is not more than half
    assert told(exact(10**25 // 2 + 1), line) == [("1/2", POINT)]
    assert told(exact(10**25 // 2), replace(line, comparison=">=")) == [("1/2", POINT)]
    assert told(exact(8 * 10**24), line) == [("10/13", POINT)]  # the greatest implies the other
    assert told(exact(8 * 10**24), replace(line, early=())) == []


def test_by_the_point_and_by_the_upper_bound():
    line = replace(BROAD, early=HALVES)
    assert told(Figure(0, 4 * 10**24, 6 * 10**24), line) == [("1/2", UPPER)]
    assert told(Figure(0, 6 * 10**24, 8 * 10**24), line) == [("1/2", POINT), ("10/13", UPPER)]
    assert told(Figure(0, 8 * 10**24, 9 * 10**24), line) == [("10/13", POINT)]
    assert told(Figure(0, 6 * 10**24, 2 * 10**25), line) == [("1/2", POINT)]  # undetermined says the rest
    assert told(Figure(0, 11 * 10**24, 2 * 10**25), line) == []  # and now all of it
    assert told(exact(11 * 10**24), line) == []


def test_what_is_not_in_force_warns_of_nothing():
    assert told(exact(9 * 10**24), replace(BROAD, status="proposed")) == []


@given(st.lists(st.integers(0, 2 * 10**25), min_size=3, max_size=3).map(sorted), st.booleans())
def test_what_is_told_holds_and_is_the_greatest(bounds, at_least):
    line = replace(BROAD, early=HALVES, comparison=">=" if at_least else ">")
    figure = Figure(*bounds)
    (met,) = lines_of(plain("r", figure, ZERO, [line]), [line])
    for part, by in early_state(figure, met):
        n = figure.point if by == POINT else figure.upper
        at = part * 10**25
        assert n >= at if at_least else n > at
        for other in HALVES:
            if other > part:
                assert not (n >= other * 10**25 if at_least else n > other * 10**25)
        assert figure.lower <= 10**25
        assert n <= 10**25


@pytest.fixture
def lab(tmp_path):
    hour = 80241131520000000  # lower bound of an hour (test_watch.py)
    made = HourLab(tmp_path / "b.db", [regime(hour * 40, early=HALVES)])
    yield made
    made.desk.close()


def test_each_is_told_once_in_the_commit_that_gets_there_and_fsck_agrees(lab):
    keys = []
    for hour in range(1, 40):
        keys += [(hour, e.data["part"], e.data["by"]) for e in of_type(lab.hours(), THRESHOLD_APPROACHING)]
        if hour == 15:
            lab.reopen()
    parts = [(part, by) for _, part, by in keys]
    assert parts == [("1/2", UPPER), ("10/13", UPPER), ("1/2", POINT), ("10/13", POINT)]
    by_point = {part: hour for hour, part, by in keys if by == POINT}
    # The point of an hour is 1.0309 of its lower bound: half of 40 is passed in hour 20, 10/13 of 40 (30.8) in hour 30.
    assert by_point == {"1/2": 20, "10/13": 30}
    lab.good()


def test_a_modification_is_warned_of_too(tmp_path):
    hour = 80241131520000000
    third = replace(
        next(r for r in shipped(MODIFICATION) if r.original == "known"), effective=BROAD.effective
    )
    lab = HourLab(tmp_path / "m.db", [regime(10**30), third])
    original = hour * 3 * 30
    lab.say(Declare("r", owner="lab"))
    lab.say(External("base", Figure(original, original, original), "their report"))
    lab.say(Link("r", Relation.FINE_TUNES, "base"))
    events = of_type(lab.hours(28), THRESHOLD_APPROACHING)
    assert {(e.data["original"], e.data["by"]) for e in events} == {("base", UPPER), ("base", POINT)}
    assert all("10/13" in e.data["message"] for e in events)
    lab.good()
    lab.desk.close()


def test_names_that_nobody_should_give(tmp_path):
    """Colons, quotes, a thousand letters: keys stay apart, text stays JSON."""
    hour = 80241131520000000
    lab = HourLab(tmp_path / "n.db", [regime(hour * 20, early=HALVES)])
    names = ['r:plan:"x"', "r", "λ" * 200, "r:forecast"]
    for name in names:
        lab.say(Declare(name, budget_flop=hour * 30))
    lab.commit()
    raised = [e for e in lab.events if e.data["basis"] == "plan"]
    assert [e.subject for e in raised] == sorted(names)
    assert len({e.key for e in raised}) == len(names)
    assert all(json.loads(e.data_json)["run"] == e.subject for e in raised)
    lab.good()
    lab.desk.close()
