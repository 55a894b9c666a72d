"""A collector that nobody reports to tells of deadlines all the same: a real one, on a clock of the test's."""

import sqlite3

import pytest
from desk import DAY_NS
from duty_books import HOUR_NS, START

from flopmeter.collector.duty.answers import State
from flopmeter.collector.duty.saying import Person, answer, open_incident
from flopmeter.collector.law.regimes import every_shipped
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings

CALIFORNIA = next(r for r in every_shipped() if r.id == "us-ca-sb53")


class Clock:
    now = START

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.db"


def told(path):
    db = sqlite3.connect(path)
    rows = db.execute("SELECT type, time_unix_ns FROM events WHERE type LIKE 'deadline.%' ORDER BY event_no")
    found = [(kind.removeprefix("deadline."), (at - START) // HOUR_NS) for kind, at in rows]
    db.close()
    return found


def test_an_incident_of_an_idle_fleet_is_told_of_to_the_quarter_of_a_minute(path):
    """24 hours under California, opened beside the collector while it runs; each look is one of its 15 s."""
    clock = Clock()
    with run_collector(
        CollectorSettings(store=path, listen="127.0.0.1:0", http=""), clock, review_s=None
    ) as c:
        c.review()
        clock.now += HOUR_NS
        opened, _ = open_incident(
            path, CALIFORNIA, "imminent-incident", Person("ada", "leak", clock.now), trigger_unix_ns=START
        )
        for _ in range(30):
            c.review()
            clock.now += HOUR_NS
    assert told(path) == [("near", 12), ("near", 21), ("near", 23), ("overdue", 24)]
    assert opened.due_unix_ns == START + DAY_NS


def test_what_is_answered_meanwhile_is_heard(path):
    clock = Clock()
    with run_collector(
        CollectorSettings(store=path, listen="127.0.0.1:0", http=""), clock, review_s=None
    ) as c:
        c.review()
        person = Person("ada", "leak", clock.now)
        opened, _ = open_incident(path, CALIFORNIA, "imminent-incident", person, trigger_unix_ns=START)
        clock.now += 13 * HOUR_NS
        c.review()
        answer(path, "deadline", opened.id, State.RESOLVED, person, outcome="done")
        clock.now += 12 * HOUR_NS
        c.review()
        assert told(path) == [("near", 13)]
        answer(path, "deadline", opened.id, State.OPEN, person)
        c.review()
        assert told(path) == [("near", 13), ("overdue", 25)]
