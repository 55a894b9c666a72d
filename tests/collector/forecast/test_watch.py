"""Forecasts and plans in the commit: raised once, kept with their inputs, quiet when far, and again by fsck."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from forecast_lab import BEGIN_NS, BROAD, DAY_NS, HOUR_NS, HourLab, job, of_type, regime

from flopmeter.collector.figures import Tally
from flopmeter.collector.forecast.settings import Outlook
from flopmeter.collector.law.events import PLAN_EXCEEDS, THRESHOLD_CROSSED, THRESHOLD_FORECAST
from flopmeter.collector.law.regimes import MODIFICATION, shipped
from flopmeter.collector.registry.entries import Declare, External, Link, Relation, Retract
from flopmeter.contract.flop import Figure


@pytest.fixture(scope="module")
def per_hour(tmp_path_factory):
    """Lower, point and upper bound of what an hour of work is."""
    lab = HourLab(tmp_path_factory.mktemp("one") / "b.db", [regime(1)])
    (event,) = of_type(lab.hours(), THRESHOLD_CROSSED)
    lab.desk.close()
    return Figure(*(int(event.data["flop"][n]) for n in ("lower", "point", "upper")))


@pytest.fixture
def lab_with(tmp_path):
    made = []

    def make(*regimes, **more):
        made.append(HourLab(tmp_path / f"{len(made)}.db", regimes, **more))
        return made[-1]

    yield make
    for lab in made:
        lab.desk.close()


def declare(flop=None, end=None, **more):
    return Declare("r", budget_flop=flop, expected_end_unix_ns=end, **more)


# ---- by forecast --------------------------------------------------------------------------------------


def test_requirement_9_known_that_it_will_be_met_long_before_it_is(lab_with, per_hour):
    """The lower bound meets the line in two days: known after less than 18 hours, and raised once."""
    lab = lab_with(regime(per_hour.lower * 48))
    assert lab.hours(12) == []
    (event,) = lab.hours(6)
    assert event.type == THRESHOLD_FORECAST
    assert event.data["regime"] == "line"
    assert event.data["basis"] == "forecast"
    assert event.data["confidence_percent"] == 90
    assert event.subject == "r"
    begin = datetime.fromtimestamp(BEGIN_NS // 10**9, UTC)
    point = datetime.fromisoformat(event.data["crosses"]["point"])
    assert abs(point - begin - timedelta(hours=48) * (per_hour.lower / per_hour.point)) < timedelta(hours=1)
    assert (
        event.data["crosses"]["earliest"] < event.data["crosses"]["point"] < event.data["crosses"]["latest"]
    )
    assert "not a measure of risk" in event.data["message"]
    assert of_type(lab.hours(10), THRESHOLD_FORECAST) == []
    lab.reopen()
    assert of_type(lab.hours(25), THRESHOLD_FORECAST) == []
    assert len(of_type(lab.events, THRESHOLD_CROSSED)) == 1
    lab.good()


def test_requirement_9_each_forecast_is_kept_with_its_time_and_inputs(lab_with, per_hour):
    lab = lab_with(regime(per_hour.lower * 48))
    lab.hours(60, percent=20)
    rows = lab.kept()
    assert [r.forecast_no for r in rows] == list(range(1, len(rows) + 1))
    days = {r.unix_ns // DAY_NS for r in rows}
    assert len(days) == 4 < len(rows) < 15  # one a day, and as dates and answers move in the first hours
    first = json.loads(rows[0].data)
    assert first["method"] == "flopmeter-forecast/1"
    assert len(first["series"][0]["blocks"]) == 4
    lower = sum(int(b["lower"]) for b in first["series"][0]["blocks"])
    assert abs(lower - 2 * per_hour.lower) <= 4
    assert first["lines"][0]["answer"] == "may-be-met"
    assert json.loads(rows[-1].data)["lines"][0]["answer"] == "will-be-met"
    with pytest.raises(Exception, match="never changed"):
        lab.desk.store.books._connection.execute("UPDATE forecasts SET run = 'x'")
    with pytest.raises(Exception, match="never deleted"):
        lab.desk.store.books._connection.execute("DELETE FROM forecasts")
    lab.good()


def test_a_run_that_stops_is_forecast_to_its_rest_and_then_no_more(lab_with, per_hour):
    """The line is out of its reach: what it may come to falls with the silence, and one day it is at rest."""
    lab = lab_with(regime(per_hour.lower * 24 * 8))
    lab.hours(30)
    before = len(lab.every())
    assert before
    lab.quiet(24 * 5)
    rows = [json.loads(r.data) for r in lab.kept()]
    assert rows[-1]["series"][0]["state"] == "at-rest"
    assert rows[-1]["series"][0]["flop_per_hour"]["point"] == "0"
    points = [int(r["series"][0]["flop_per_hour"]["point"]) for r in rows[before:]]
    assert all(
        later * 10 < earlier * 11 for earlier, later in itertools.pairwise(points)
    )  # blocks grow meanwhile
    assert points[0] > points[len(points) // 2] > 0
    lab.quiet(24 * 5)
    assert len(lab.every()) == len(rows)  # nothing is added of the dead
    lab.hours(2)
    assert json.loads(lab.kept()[-1].data)["series"][0]["state"] == "going"
    lab.good()


def test_a_silence_is_followed_over_a_restart_of_the_collector(lab_with, per_hour):
    lab = lab_with(regime(per_hour.lower * 24 * 8))
    lab.hours(30)
    lab.quiet(5)
    lab.reopen()
    lab.quiet(24 * 4)
    assert json.loads(lab.kept()[-1].data)["series"][0]["state"] == "at-rest"
    lab.good()


def test_a_later_forecast_below_the_line_takes_nothing_back(lab_with, per_hour):
    lab = lab_with(regime(per_hour.lower * 48))
    lab.hours(20)
    assert len(of_type(lab.events, THRESHOLD_FORECAST)) == 1
    lab.quiet(24 * 4)
    assert json.loads(lab.kept()[-1].data)["lines"][0]["answer"] == "may-be-met"
    assert of_type(lab.hours(25), THRESHOLD_FORECAST) == []  # and what it says then is no news
    lab.good()


def test_what_has_crossed_is_not_forecast(lab_with, per_hour):
    lab = lab_with(regime(per_hour.lower * 2))
    kinds = [e.type for e in lab.hours(12)]
    assert THRESHOLD_CROSSED in kinds
    assert THRESHOLD_FORECAST not in kinds
    lab.good()


def test_the_declared_end_is_what_counts_and_not_the_horizon(lab_with, per_hour):
    """Two days of work to the line, and the run is to end in one and a half: it will not be met."""
    lab = lab_with(regime(per_hour.lower * 48))
    lab.say(declare(end=BEGIN_NS + 36 * HOUR_NS))
    assert of_type(lab.hours(24), THRESHOLD_FORECAST) == []
    lab.say(declare(end=BEGIN_NS + 20 * DAY_NS))
    (event,) = of_type(lab.hours(1), THRESHOLD_FORECAST)
    assert event.data["plan"]["entries"] == [1, 2]
    assert event.data["until"].startswith(
        f"{datetime.fromtimestamp(BEGIN_NS // 10**9, UTC) + timedelta(days=20):%Y-%m-%d}"
    )
    lab.good()


def test_confidence_and_horizon_are_settings(lab_with, per_hour):
    line = regime(per_hour.lower * 48)
    hours = {}
    for percent in (80, 99):
        lab = lab_with(line, outlook=Outlook(percent, 10))
        lab.hours(30)
        (event,) = of_type(lab.events, THRESHOLD_FORECAST)
        assert event.data["confidence_percent"] == percent
        hours[percent] = (event.time_unix_ns - BEGIN_NS) // HOUR_NS
        lab.good()
    assert hours[80] < hours[99]
    assert of_type(lab_with(line, outlook=Outlook(80, 1)).hours(20), THRESHOLD_FORECAST) == []
    assert Outlook(75).fault
    assert Outlook(90, 0).fault
    assert Outlook().fault is None


def test_a_regime_counts_from_the_day_it_is_in_force(lab_with, per_hour):
    """Enacted, and in force from the second midnight on: foreseen before, raised then."""
    day = (datetime.fromtimestamp(BEGIN_NS // 10**9, UTC) + timedelta(days=2)).date()
    lab = lab_with(regime(per_hour.lower * 48, effective=day))
    lab.hours(30)
    assert of_type(lab.events, THRESHOLD_FORECAST) == []
    assert json.loads(lab.kept()[0].data)["lines"][0]["effective"] == day.isoformat()
    lab.hours(6)
    (event,) = of_type(lab.events, THRESHOLD_FORECAST)
    assert datetime.fromtimestamp(event.time_unix_ns // 10**9, UTC).date() == day
    lab.good()


def test_a_regime_that_has_ended_by_then_raises_nothing(lab_with, per_hour):
    ends = (datetime.fromtimestamp(BEGIN_NS // 10**9, UTC) + timedelta(days=2)).date()
    lab = lab_with(regime(per_hour.lower * 48, ends=ends))
    assert of_type(lab.hours(24), THRESHOLD_FORECAST) == []
    lab.good()


def test_far_from_every_line_nothing_is_priced_or_kept(lab_with, monkeypatch):
    lab = lab_with(regime(10**30))
    lab.hours(1)
    priced = []
    figures = Tally.figures
    monkeypatch.setattr(Tally, "figures", lambda *a: priced.append(1) or figures(*a))
    lab.hours(6)
    assert priced == []
    assert lab.every() == []
    lab.good()


def test_a_run_is_asked_once_an_hour(lab_with, per_hour, monkeypatch):
    lab = lab_with(regime(per_hour.lower * 48))
    lab.hours(16)
    asked = []
    watch = lab.desk.writer._forecasts
    forecast = watch._forecast
    monkeypatch.setattr(watch, "_forecast", lambda run, *a: asked.append(run) or forecast(run, *a))
    for _ in range(10):
        lab.desk.now += 60 * 10**9
        lab.commit()
    assert asked == []
    lab.hours(1)
    assert asked == ["r"]


def test_another_number_of_the_law_is_another_event(lab_with, per_hour):
    lab = lab_with(regime(per_hour.lower * 24))
    lab.say(declare(per_hour.lower * 100))
    lab.hours(10)
    lab.reopen([regime(per_hour.lower * 40)])
    lab.hours(14)
    told = [(e.data["basis"], e.data["threshold_flop"]) for e in of_type(lab.events, THRESHOLD_FORECAST)]
    lines = [str(per_hour.lower * n) for n in (24, 40)]
    assert sorted(told) == sorted((basis, line) for basis in ("plan", "forecast") for line in lines)


def test_clock_steps_of_the_collector(lab_with, per_hour):
    """A year ahead and back: no crash, no forecast twice for one hour, and it goes on."""
    lab = lab_with(regime(per_hour.lower * 48))
    lab.hours(18)
    lab.desk.now += 365 * DAY_NS
    lab.commit()
    lab.desk.now -= 365 * DAY_NS
    lab.commit()
    lab.hours(2)
    assert json.loads(lab.kept()[-1].data)["series"][0]["state"] == "going"
    assert len(of_type(lab.events, THRESHOLD_FORECAST)) == 1
    lab.good()


def test_late_records_of_a_whole_day_are_in_their_own_hours(lab_with, per_hour):
    """The node was cut off for a day and sends all at once: the rate is that of its hours."""
    lab = lab_with(regime(per_hour.lower * 48))
    lab.hours(24)
    lab.hours(24, commit=False)
    lab.commit()
    last = json.loads(lab.kept()[-1].data)
    rate = int(last["series"][0]["flop_per_hour"]["point"])
    assert abs(rate - per_hour.point) <= 1
    lab.good()


def test_modifications_are_foreseen_too(lab_with, per_hour):
    third = replace(
        next(r for r in shipped(MODIFICATION) if r.original == "known"),
        id="third",
        share=Fraction(1, 3),
        effective=BROAD.effective,
        early=(),
    )
    original = per_hour.lower * 48 * 3
    lab = lab_with(regime(10**30), third)
    lab.say(Declare("r", owner="lab"))
    lab.say(External("base", Figure(original, original, original), "their report"))
    lab.say(Link("r", Relation.FINE_TUNES, "base"))
    (event,) = of_type(lab.hours(20), THRESHOLD_FORECAST)
    assert event.data["regime"] == "third"
    assert event.data["original"] == "base"
    assert event.key == "forecast:third:r:forecast:>1/3:base"
    lab.good()


def test_what_it_stands_on_grows_with_it(lab_with, per_hour):
    """r continues q, which goes on beside it: by the profile both count, and so do both rates."""
    lab = lab_with(regime(per_hour.lower * 24 * 20))
    lab.say(Declare("r", owner="lab"))
    lab.say(Declare("q", owner="lab"))
    lab.say(Link("r", Relation.CONTINUES, "q"))
    for _ in range(8):
        lab.hours(1, workload=job("1", "r"))
        lab.hours(1, workload=job("2", "q"))
    last = json.loads(lab.kept("r")[-1].data)
    assert len(last["series"]) == 1
    rate = int(last["series"][0]["flop_per_hour"]["point"])
    assert abs(rate - per_hour.point) * 10 < per_hour.point  # both together: an hour's work each hour
    lab.good()


def test_what_was_declared_of_a_base_is_of_no_hour(lab_with, per_hour):
    """A model trained elsewhere is in the total, and in no rate."""
    lab = lab_with(regime(per_hour.lower * 240))
    base = per_hour.lower * 100
    lab.say(Declare("r", owner="lab"))
    lab.say(External("base", Figure(base, base, base), "their report"))
    lab.say(Link("r", Relation.CONTINUES, "base"))
    lab.hours(8)
    last = json.loads(lab.kept()[-1].data)
    (series,) = last["series"]
    assert int(series["total"]["lower"]) - int(series["own"]["lower"]) == base
    assert abs(int(series["flop_per_hour"]["point"]) - per_hour.point) <= 1
    lab.good()


def test_requirement_9_the_two_weeks_begin_when_it_is_known_and_not_at_the_crossing(lab_with, per_hour):
    lab = lab_with(regime(per_hour.lower * 48))
    lab.hours(60)
    (known,) = of_type(lab.events, THRESHOLD_FORECAST)
    (crossed,) = of_type(lab.events, THRESHOLD_CROSSED)
    due = lab.desk.rows("SELECT event_no, due_unix_ns FROM deadlines WHERE regime = 'line'")
    number = lab.desk.rows("SELECT event_no FROM events WHERE key = ?", known.key)[0][0]
    assert (number, known.time_unix_ns + 14 * DAY_NS) in due
    assert known.time_unix_ns < crossed.time_unix_ns - 24 * HOUR_NS
    lab.good()


# ---- by plan ------------------------------------------------------------------------------------------


def test_requirement_9_a_plan_makes_known_before_the_run_has_begun(lab_with):
    lab = lab_with(BROAD)
    lab.say(declare(10**25))
    assert lab.commit() == []  # at 10^25 sharp it is not greater
    lab.say(declare(10**25 + 1, BEGIN_NS + 40 * DAY_NS))
    (event,) = lab.commit()
    assert event.type == THRESHOLD_FORECAST
    assert event.data["basis"] == "plan"
    assert event.data["regime"] == BROAD.id
    assert event.data["planned"]["lower"] == str(10**25 + 1)
    assert event.data["plan"]["entries"] == [1, 2]
    assert event.time_unix_ns == lab.desk.now
    lab.desk.now += 3 * DAY_NS
    assert lab.commit() == []
    lab.reopen()
    lab.desk.now += 1
    assert of_type(lab.commit(), THRESHOLD_FORECAST) == []
    lab.good()


def test_a_plan_is_counted_as_the_regime_counts(lab_with):
    """What an external base took counts, by its lower bound."""
    lab = lab_with(BROAD)
    lab.say(Declare("s", budget_flop=10**24))
    assert lab.commit() == []
    lab.say(External("base", Figure(9 * 10**24, 10**25, 2 * 10**25), "their report"))
    lab.say(Link("s", Relation.CONTINUES, "base"))
    assert lab.commit() == []  # 10^25 sharp, by its lower bound
    lab.say(Declare("s", budget_flop=10**24 + 1))
    (event,) = lab.commit()
    assert event.subject == "s"
    assert event.data["stands_on"]["lower"] == str(9 * 10**24)
    lab.good()


def test_a_plan_that_is_taken_back_leaves_what_was_raised(lab_with):
    lab = lab_with(BROAD)
    entry = lab.say(declare(2 * 10**25))
    assert len(lab.commit()) == 1
    lab.say(Retract(entry.number))
    assert lab.commit() == []
    lab.say(declare(3 * 10**25))
    assert lab.commit() == []  # known is known: raised once
    lab.good()


def test_a_plan_is_asked_again_when_a_regime_comes_into_force(lab_with):
    day = (datetime.fromtimestamp(BEGIN_NS // 10**9, UTC) + timedelta(days=3)).date()
    lab = lab_with(replace(BROAD, effective=day))
    lab.say(declare(2 * 10**25))
    assert lab.commit() == []
    lab.desk.now += 3 * DAY_NS
    assert [e.type for e in lab.commit()] == [THRESHOLD_FORECAST]
    lab.good()


def test_a_plan_that_is_exceeded_and_one_that_will_be(lab_with, per_hour):
    lab = lab_with(regime(10**30))
    lab.say(declare(per_hour.lower * 24, BEGIN_NS + 10 * DAY_NS))
    will, done = of_type(lab.hours(30), PLAN_EXCEEDS)
    assert (will.data["basis"], done.data["basis"]) == ("forecast", "measured")
    assert int(done.data["executed"]["lower"]) > per_hour.lower * 24
    lab.say(declare(per_hour.lower * 60))
    (again,) = of_type(lab.hours(2), PLAN_EXCEEDS)
    assert again.data["budget_flop"] == str(per_hour.lower * 60)
    assert of_type(lab.hours(2), PLAN_EXCEEDS) == []
    lab.good()


def test_both_bases_are_told_apart(lab_with, per_hour):
    lab = lab_with(regime(per_hour.lower * 48))
    lab.say(declare(per_hour.lower * 50))
    assert [e.data["basis"] for e in of_type(lab.hours(20), THRESHOLD_FORECAST)] == ["plan", "forecast"]
    lab.good()


def test_exact_at_the_size_of_the_law(lab_with, per_hour):
    """A plan of 10^26 under Korea's `>=`, and one operation below it."""
    korea = replace(next(r for r in shipped() if r.comparison == ">="), early=())
    lab = lab_with(korea)
    lab.say(declare(10**26 - 1))
    assert lab.commit() == []
    lab.say(declare(10**26))
    assert [e.data["planned"]["lower"] for e in lab.commit()] == [str(10**26)]
    lab.good()


def test_a_thousand_plans_are_looked_at_a_few_a_commit(lab_with, monkeypatch):
    lab = lab_with(BROAD)
    for i in range(100):
        lab.say(Declare(f"p{i}", budget_flop=2 * 10**25))
    assert len(lab.commit()) == 100  # said just now: at once
    lab.reopen()
    monkeypatch.setattr("flopmeter.collector.forecast.watch.MAX_PLANS_PER_COMMIT", 30)
    watch = lab.desk.writer._forecasts
    left = []
    for _ in range(5):
        lab.desk.now += 1
        assert lab.commit() == []
        left.append(len(watch._plans))
    assert left == [70, 40, 10, 0, 0]
    lab.good()
