"""When something is due: exact durations, days of the calendar in their own time zone, and when a person is told."""

from calendar import isleap
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from duty_books import HOUR_NS, quarters, regime, rule
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.duty.deadlines import (
    CROSSED,
    DAY_NS,
    DEFAULT_LEADS_NS,
    FORECAST,
    LEADS_ARE_OF_NS,
    MAX_UNIX_NS,
    OVERDUE,
    Opening,
    Trigger,
    due_lead,
    due_unix_ns,
    following,
    leads_of,
    next_day,
    next_look,
    opened,
    rule_digest,
    rules_mark,
    trigger_of,
)
from flopmeter.collector.duty.notices import due_text

ZONES = (
    "UTC",
    "Europe/Brussels",
    "America/New_York",
    "America/Santiago",  # sets its clocks at midnight: a day can end at 01:00 of the next
    "America/Havana",
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # has no 30 December 2011
    "Asia/Kathmandu",
    "Africa/Casablanca",
)
TIMES = st.integers(0, 4_000_000_000_000_000_000)  # 1970 to 2096
DAYS = st.dates(date(2024, 1, 1), date(2024, 12, 31)).map(lambda d: (d.month, d.day))


def ns(text: str) -> int:
    """RFC 3339 as unix ns."""
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


def made(*rules, trigger="2026-09-22T10:00:00+00:00", kind=CROSSED, subject="r1"):
    law = regime(*rules)
    return opened(Trigger(1, kind, law.id, subject, ns(trigger)), {law.id: law}, Opening(ns(trigger), 1))


@pytest.mark.parametrize(
    ("changed", "trigger", "due"),
    [
        # n days are n x 86,400 s, also over a change of the clocks (25 October 2026) and a leap day
        ({}, "2026-10-20T12:00:00+02:00", "2026-11-03T11:00:00+01:00"),
        ({}, "2028-02-20T00:00:00+00:00", "2028-03-05T00:00:00+00:00"),
        ({}, "2027-02-20T00:00:00+00:00", "2027-03-06T00:00:00+00:00"),
        ({"after_days": None, "after_hours": 72}, "2026-10-24T12:00:00+02:00", "2026-10-27T11:00:00+01:00"),
        ({"after_days": None, "after_hours": 24}, "2027-03-27T20:00:00+01:00", "2027-03-28T21:00:00+02:00"),
        ({"after_days": 15}, "2026-12-25T08:00:00-08:00", "2027-01-09T08:00:00-08:00"),
        ({"after_days": 90}, "2027-12-15T00:00:00+00:00", "2028-03-14T00:00:00+00:00"),
    ],
)
def test_a_duration_is_exact_whatever_the_clocks_do(changed, trigger, due):
    assert due_unix_ns(rule(**changed), ns(trigger)) == ns(due)


@pytest.mark.parametrize(
    ("zone", "trigger", "day", "due"),
    [
        # BIS quarters (regulations.md section 2), due when the day is over where the recipient is
        ("America/New_York", "2026-11-20T00:00:00+00:00", "2027-01-15", "2027-01-16T00:00:00-05:00"),
        ("America/New_York", "2027-01-16T04:59:59+00:00", "2027-01-15", "2027-01-16T00:00:00-05:00"),
        ("America/New_York", "2027-01-16T05:00:00+00:00", "2027-04-15", "2027-04-16T00:00:00-04:00"),
        ("UTC", "2027-10-15T23:59:59+00:00", "2027-10-15", "2027-10-16T00:00:00+00:00"),
        ("UTC", "2027-10-16T00:00:00+00:00", "2028-01-15", "2028-01-16T00:00:00+00:00"),
    ],
)
def test_a_day_of_the_calendar_ends_in_its_own_zone(zone, trigger, day, due):
    asked = rule(trigger="calendar", after_days=None, timezone=zone, calendar=quarters().calendar)
    assert next_day(asked, ns(trigger)) == (date.fromisoformat(day), ns(due))


@pytest.mark.parametrize(
    ("zone", "day", "ends"),
    [
        ("Europe/Brussels", "2027-03-28", "2027-03-29T00:00:00+02:00"),  # 23 hours long
        ("Europe/Brussels", "2026-10-25", "2026-10-26T00:00:00+01:00"),  # 25 hours long
        # The clocks go from 24:00 to 01:00: the day ends at the instant of the change.
        ("America/Santiago", "2026-09-05", "2026-09-06T04:00:00+00:00"),
        # They go from 01:00 back to 00:00: midnight comes twice, and the first one counts.
        ("America/Havana", "2026-10-31", "2026-11-01T00:00:00-04:00"),
        ("Pacific/Apia", "2011-12-29", "2011-12-30T10:00:00+00:00"),  # the next day was never there
    ],
)
def test_days_that_are_not_24_hours_long(zone, day, ends):
    asked = date.fromisoformat(day)
    found = rule(trigger="calendar", after_days=None, timezone=zone, calendar=((asked.month, asked.day),))
    assert next_day(found, ns(f"{day}T12:00:00+00:00") - 20 * HOUR_NS) == (asked, ns(ends))


def test_people_are_shown_the_day_that_the_law_names_and_not_the_next():
    (quarter,) = made(quarters())
    assert due_text(quarter) == "2026-10-15 24:00 CEST (Europe/Brussels)"
    assert due_text(quarter._replace(due_unix_ns=quarter.due_unix_ns - 1)).startswith("2026-10-15 23:59 ")
    assert due_text(quarter._replace(due_unix_ns=quarter.due_unix_ns + 10**9)).startswith("2026-10-16 00:00 ")


def test_a_day_that_most_years_lack_is_the_last_of_its_month():
    """The files refuse it; if one had it, the earlier reading is the safe one."""
    leap = rule(trigger="calendar", after_days=None, timezone="UTC", calendar=((2, 29),))
    ends = [next_day(leap, ns(f"{year}-01-10T00:00:00+00:00"))[0] for year in range(2026, 2030)]
    assert [str(d) for d in ends] == ["2026-02-28", "2027-02-28", "2028-02-29", "2029-02-28"]


@given(TIMES, st.sampled_from(ZONES), st.lists(DAYS, min_size=1, max_size=4, unique=True))
def test_the_next_day_is_the_first_that_ends_later(unix_ns, zone, days):
    asked = rule(trigger="calendar", after_days=None, timezone=zone, calendar=tuple(sorted(days)))
    day, end = next_day(asked, unix_ns)
    leap_shifted = {(2, 28)} if (2, 29) in days and not isleap(day.year) else set()
    assert (day.month, day.day) in set(days) | leap_shifted
    assert unix_ns < end <= unix_ns + 367 * DAY_NS
    zoned = ZoneInfo(zone)
    # A second before the end it is that day there (or one before it, where the zone skipped it); at the end it is not.
    before = datetime.fromtimestamp(end // 10**9 - 1, UTC).astimezone(zoned).date()
    at = datetime.fromtimestamp(end // 10**9, UTC).astimezone(zoned).date()
    assert before <= day < at
    assert at - day <= timedelta(days=2)
    # None of the calendar's days lies between the two.
    here = datetime.fromtimestamp(unix_ns // 10**9, UTC).astimezone(zoned).date()
    between = [here + timedelta(days=n) for n in range((day - here).days)]
    assert not [d for d in between if (d.month, d.day) in days and d > here]


@given(TIMES, st.integers(1, 36_525))
def test_a_duration_never_ends_later_than_a_calendar_counts(unix_ns, days):
    due = due_unix_ns(rule(after_days=days), unix_ns)
    assert due == min(unix_ns + days * DAY_NS, MAX_UNIX_NS)


def test_requirement_11_deadlines_are_objects():
    """Trigger, due time, recipient: of each kind of rule that the law has."""
    (eu,) = made(rule())
    assert (eu.subject, eu.event_no, eu.recipient) == ("r1", 1, "the authority")
    assert eu.due_unix_ns - eu.trigger_unix_ns == 14 * DAY_NS
    (bis,) = made(quarters(), trigger="2026-09-22T10:00:00+00:00")
    assert bis.key.endswith(":2026-10-15")
    assert not bis.subject
    (illinois,) = made(rule("audit", "first-covered", after_days=90))
    assert illinois.key == "deadline:organisation:eu-gpai:audit"
    assert illinois.due_unix_ns - illinois.trigger_unix_ns == 90 * DAY_NS


def test_which_events_start_which_clocks():
    rules = (
        rule("k"),
        rule("m", "met"),
        rule("f", "first-covered"),
        quarters("c"),
        rule("i", "incident"),
    )
    assert [d.rule for d in made(*rules)] == ["k", "m", "f", "c"]
    assert [d.rule for d in made(*rules, kind=FORECAST)] == ["k", "c"]
    assert made(*rules, kind="threshold.undetermined") == []


def test_a_calendar_goes_on_from_its_last_day():
    law = regime(quarters())
    (first,) = opened(
        Trigger(1, CROSSED, law.id, "r1", ns("2026-09-22T10:00:00+00:00")), {law.id: law}, Opening(0, 1)
    )
    keys = [first.key]
    for _ in range(4):
        first = following(first, law, law.deadlines[0], Opening(0, 1))
        keys.append(first.key)
    assert [k.rsplit(":", 1)[1] for k in keys] == [
        "2026-10-15",
        "2027-01-15",
        "2027-04-15",
        "2027-07-15",
        "2027-10-15",
    ]


def test_a_clock_does_not_run_before_the_law_binds():
    """A forecast knows in November what a law of January will want: its two weeks begin with the law."""
    rules = (rule(), quarters())
    law = replace(regime(*rules), effective=date(2027, 1, 16))
    early = Trigger(1, FORECAST, law.id, "r1", ns("2026-11-20T10:00:00+00:00"))
    weeks, day = opened(early, {law.id: law}, Opening(early.unix_ns, 1))
    assert weeks.trigger_unix_ns == early.unix_ns
    assert weeks.due_unix_ns == ns("2027-01-16T00:00:00+00:00") + 14 * DAY_NS
    assert day.key.endswith(":2027-04-15")
    later = early._replace(unix_ns=ns("2027-02-01T00:00:00+00:00"))
    assert opened(later, {law.id: law}, Opening(0, 1))[0].due_unix_ns == later.unix_ns + 14 * DAY_NS


@pytest.mark.parametrize(
    ("kind", "data", "starts"),
    [
        (CROSSED, {"regime": "x"}, CROSSED),
        (FORECAST, {"regime": "x"}, FORECAST),
        ("fleet.capacity", {"regime": "x", "verdict": "crossed"}, CROSSED),
        ("fleet.capacity", {"regime": "x", "verdict": "undetermined"}, None),
        ("threshold.undetermined", {"regime": "x"}, None),
        ("plan.exceeds", {"regime": "x"}, None),
        ("deadline.near", {"regime": "x"}, None),
    ],
)
def test_what_may_start_a_clock(kind, data, starts):
    found = trigger_of(7, kind, "s", 5, data)
    assert found == (None if starts is None else Trigger(7, starts, "x", "s", 5))


def test_a_crossing_that_late_records_brought_starts_its_clock_when_it_was_met():
    data = {"regime": "x", "met_since": "2026-09-20T10:00:00.000Z"}
    met, heard = ns("2026-09-20T10:00:00+00:00"), ns("2026-09-22T10:00:00+00:00")
    assert trigger_of(1, CROSSED, "s", heard, data).unix_ns == met
    assert trigger_of(1, CROSSED, "s", met - 1, data).unix_ns == met - 1
    assert trigger_of(1, CROSSED, "s", heard, data | {"met_since": None}).unix_ns == heard


def test_people_are_told_in_proportion_of_what_is_due_soon():
    def told(**changed):
        (d,) = made(rule(**changed))
        return [lead // HOUR_NS for lead in leads_of(d, DEFAULT_LEADS_NS)]

    assert told() == [168, 48, 24]
    assert told(after_days=90) == [168, 48, 24]
    assert told(after_days=None, after_hours=72) == [36, 10, 5]
    assert told(after_days=None, after_hours=24) == [12, 3, 1]


@given(st.integers(1, 2_000), st.lists(st.integers(1, 400 * 24), max_size=6), st.integers(0, 3_000))
def test_what_is_told_only_ever_comes_closer(hours, leads, passed):
    (d,) = made(rule(after_days=None, after_hours=hours))
    leads_ns = [lead * HOUR_NS for lead in leads]
    mine = leads_of(d, leads_ns)
    assert all(a > b for a, b in pairwise(mine))
    assert all(0 < lead < d.due_unix_ns - d.trigger_unix_ns for lead in mine)
    now = d.trigger_unix_ns + passed * HOUR_NS
    lead = due_lead(d, leads_ns, now)
    if lead is None:
        assert now < next_look(d, leads_ns, None)
    else:
        assert now >= d.due_unix_ns - lead
        assert (lead == OVERDUE) == (now >= d.due_unix_ns)
        after = next_look(d, leads_ns, lead)
        assert after is None if lead == OVERDUE else now < after <= d.due_unix_ns


def test_nothing_is_told_before_its_time_by_a_nanosecond():
    (d,) = made(rule())
    for lead in (*DEFAULT_LEADS_NS, OVERDUE):
        assert due_lead(d, DEFAULT_LEADS_NS, d.due_unix_ns - lead) == lead
        assert due_lead(d, DEFAULT_LEADS_NS, d.due_unix_ns - lead - 1) != lead
    assert LEADS_ARE_OF_NS == 14 * DAY_NS


def test_a_rule_has_one_digest_and_any_word_changes_it():
    plain = rule_digest(rule())
    assert plain == rule_digest(rule())
    others = [rule(what="Else"), rule(after_days=13), rule(timezone="UTC"), rule(recipient="x"), rule("n")]
    assert len({plain, *map(rule_digest, others)}) == 6
    assert rules_mark(regime(rule())) != rules_mark(regime(rule(), rule("n")))
    assert 0 <= rules_mark(regime()) < 1 << 62


def test_a_time_that_no_store_holds_is_the_last_one_that_it_does():
    assert due_unix_ns(rule(after_days=36_525), MAX_UNIX_NS - 1) == MAX_UNIX_NS
    last = rule(trigger="calendar", after_days=None, calendar=((12, 31),), timezone="UTC")
    assert due_unix_ns(last, ns("2262-04-01T00:00:00+00:00")) == MAX_UNIX_NS
