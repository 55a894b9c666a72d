"""The iCalendar file: by the bytes that RFC 5545 asks for, and as another program reads it."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from duty_books import HOUR_NS, START, regime, rule
from hypothesis import given
from hypothesis import strategies as st
from icalendar import Calendar

from flopmeter.collector.duty.answers import State
from flopmeter.collector.duty.deadlines import DEFAULT_LEADS_NS, Opening, incident
from flopmeter.collector.duty.ics import Entry, calendar

NASTY = 'Notify; the "Commission", now\\n: \u00fcber \u59d4\u5458\u4f1a \U0001f4c5 ' + "x" * 200


def entry(
    what="Notify", *, state=State.OPEN, outcome="", answers=0, act="notification", subject="r1", **changed
):
    law = regime(rule("notify", "incident", **changed), act=act)
    d = incident(law, law.deadlines[0], subject, START, Opening(START, 1))._replace(what=what)
    return Entry(d, state, outcome, answers, START)


def written(*entries):
    return calendar(entries, DEFAULT_LEADS_NS, START + HOUR_NS)


def read(raw):
    parsed = Calendar.from_ical(raw)
    assert parsed["VERSION"] == "2.0"
    assert parsed["PRODID"]
    return list(parsed.walk("VEVENT"))


def unfolded(raw):
    return raw.replace(b"\r\n ", b"").decode().split("\r\n")


@given(st.text(max_size=300), st.text(max_size=80))
def test_every_line_is_as_rfc_5545_wants_it(what, recipient):
    raw = written(
        entry(what)._replace(deadline=entry(what).deadline._replace(recipient=recipient, subject=what))
    )
    assert raw.endswith(b"END:VCALENDAR\r\n")
    lines = raw.split(b"\r\n")
    assert all(len(line) <= 75 for line in lines)
    assert not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]", raw)
    assert raw.count(b"\n") == raw.count(b"\r\n") == raw.count(b"\r")
    for line in lines:  # no character was cut through
        line.decode()
    assert unfolded(raw)[0] == "BEGIN:VCALENDAR"
    for line in unfolded(raw)[:-1]:
        assert re.match(r"[A-Z-]+:", line)
        name, _, value = line.partition(":")
        if name in {"SUMMARY", "DESCRIPTION", "CATEGORIES"}:  # TEXT: what has a meaning is escaped
            assert not re.search(r"(?<!\\)(\\\\)*[;,]", value)
            assert not re.search(r"(?<!\\)(\\\\)*\\[^\\;,nN]", value)


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=300))
def test_another_program_reads_the_words_as_they_are(what):
    plain = "".join(c if c.isprintable() else " " for c in what)
    (event,) = read(written(entry(what)))
    assert str(event["SUMMARY"]) == f"Due: {plain} (eu-gpai)"


def test_what_another_program_reads():
    d = entry(NASTY).deadline
    (event,) = read(written(entry(NASTY, answers=2)))
    assert event["UID"] == f"{d.id}@flopmeter"
    assert event["DTSTAMP"].dt == datetime.fromtimestamp((START + HOUR_NS) // 10**9, UTC)
    assert event["DTSTART"].dt == datetime.fromtimestamp(d.due_unix_ns // 10**9, UTC)
    assert event["SEQUENCE"] == 2
    assert event["STATUS"] == "CONFIRMED"
    alarms = event.walk("VALARM")
    assert [a["TRIGGER"].dt for a in alarms] == [timedelta(days=-7), timedelta(days=-2), timedelta(days=-1)]
    assert {str(a["ACTION"]) for a in alarms} == {"DISPLAY"}
    assert all(a["DESCRIPTION"] for a in alarms)
    assert "CEST (Europe/Brussels)" in event["DESCRIPTION"]


def test_alarms_of_what_is_due_in_a_day_come_within_it():
    (event,) = read(written(entry(after_days=None, after_hours=24)))
    assert [a["TRIGGER"].dt for a in event.walk("VALARM")] == [
        timedelta(hours=-12),
        -timedelta(seconds=12_342),
        -timedelta(seconds=6_171),
    ]


def test_a_uid_stays_whatever_becomes_of_the_deadline():
    first, second = written(entry()), written(entry(state=State.RESOLVED, outcome="done", answers=1))
    assert [e["UID"] for e in read(first)] == [e["UID"] for e in read(second)]
    assert len({e["UID"] for e in read(written(entry(), entry(subject="r2")))}) == 2


@pytest.mark.parametrize(("outcome", "status"), [("done", "CONFIRMED"), ("not-applicable", "CANCELLED")])
def test_what_is_resolved_rings_no_more(outcome, status):
    (event,) = read(written(entry(state=State.RESOLVED, outcome=outcome, answers=1)))
    assert event.walk("VALARM") == []
    assert event["STATUS"] == status
    assert f"resolved ({outcome})" in event["DESCRIPTION"]


def test_coverage_is_worded_apart_in_the_calendar_too():
    (event,) = read(written(entry(act="coverage")))
    assert "asks for no report of the figure itself" in event["DESCRIPTION"]
    (event,) = read(written(entry()))
    assert "asks for no report" not in event["DESCRIPTION"]


def test_a_file_without_a_deadline_is_a_calendar_still():
    assert read(written()) == []
