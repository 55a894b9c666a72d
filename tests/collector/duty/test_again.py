"""A line that is met after a person has said that its deadline does not apply: another deadline, and fsck knows why."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from builders import TRAINING, Chain
from desk import DAY_NS
from duty_books import START, busy_minute, commit_at, deadlines, fsck, opened, regime, rule

from flopmeter.collector.duty.answers import DEADLINE, State
from flopmeter.collector.duty.saying import Person, answer
from flopmeter.collector.registry.entries import Declare, Retract
from flopmeter.collector.registry.say import say

KEY = "deadline:run:eu-gpai:notify:r1"
LATER = START + 30 * DAY_NS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.db"


def said(path, statement, now=START):
    say(path, lambda _: statement, "ada", "as it is", lambda: now)


def resolve(path, outcome, number=1, now=START, state=State.RESOLVED):
    with closing(sqlite3.connect(path)) as db:
        (found,) = db.execute("SELECT id FROM deadlines WHERE deadline_no = ?", (number,)).fetchone()
    answer(path, DEADLINE, found, state, Person("ada", "said", now), outcome=outcome)


def withdrawn(path, law, outcome):
    """A plan that meets the line, and is taken back; its deadline is resolved so."""
    desk = opened(path, law)
    said(path, Declare("r1", budget_flop=10**20))
    desk.commit()
    assert [key for key, _ in deadlines(desk)] == [KEY]
    said(path, Retract(1))
    desk.commit()
    resolve(path, outcome)
    return desk


@pytest.mark.parametrize("restart", [False, True])
def test_a_line_that_is_met_after_its_plan_was_withdrawn_starts_a_clock(path, restart):
    desk = withdrawn(path, regime(), "not-applicable")
    if restart:
        desk.close()
        desk = opened(path)
    with desk:
        desk.now = LATER
        busy_minute(desk, Chain("n"))
        ((event_no,),) = desk.rows("SELECT event_no FROM events WHERE type = 'threshold.crossed'")
        assert deadlines(desk)[1:] == [
            (f"deadline:again:{event_no}:run:eu-gpai:notify:r1", LATER + 14 * DAY_NS)
        ]
        assert [e.type for e in commit_at(desk, LATER + 14 * DAY_NS)] == ["deadline.overdue"]
    assert fsck(path, [regime()]).difference is None


@pytest.mark.parametrize("outcome", ["done", "reopened"])
def test_what_was_done_or_is_open_is_not_started_again(path, outcome):
    with withdrawn(path, regime(), "done" if outcome == "done" else "not-applicable") as desk:
        if outcome == "reopened":
            resolve(path, "", state=State.OPEN)
        desk.now = LATER
        busy_minute(desk, Chain("n"))
        assert [key for key, _ in deadlines(desk)] == [KEY]
    assert fsck(path, [regime()]).difference is None


def test_an_organisation_that_was_said_not_to_be_covered_is_when_another_run_crosses(path):
    law = regime(rule("first-audit", "first-covered", after_days=90))
    with opened(path, law) as desk:
        busy_minute(desk, Chain("n"))
        resolve(path, "not-applicable")
        chain = Chain("m")
        desk.now = LATER
        agent = desk.agent(chain)
        chain.unix_ns += LATER - START
        desk.offer(agent, chain.next(workloads=[replace(TRAINING, run="r2")]))
        desk.commit()
        assert [due for _, due in deadlines(desk)] == [START + 90 * DAY_NS, LATER + 90 * DAY_NS]
    assert fsck(path, [law]).difference is None


def test_rules_that_are_read_anew_do_not_ask_again_what_was_answered(path):
    """The crossing came while the deadline stood, and the answer was given in the knowledge of it."""
    with opened(path) as desk:
        said(path, Declare("r1", budget_flop=10**20))
        desk.commit()
        busy_minute(desk, Chain("n"))
        resolve(path, "not-applicable")
        desk.commit()
    law = regime(rule(what="In other words"))
    with opened(path, law) as desk:
        desk.commit()
        assert [key for key, _ in deadlines(desk)] == [KEY]
    assert fsck(path, [law]).difference is None


def tampered(path, sql):
    """What fsck finds after somebody who knows the schema was there."""
    with withdrawn(path, regime(), "not-applicable") as desk:
        idle = Chain("idle")
        for _ in range(2):  # the word was surely heard before the crossing
            desk.offer(desk.agent(idle), idle.next([], ()))
            desk.commit()
        desk.now = LATER
        busy_minute(desk, Chain("n"))
    assert fsck(path, [regime()]).difference is None
    with closing(sqlite3.connect(path)) as db, db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(sql)
        for _, made in triggers:
            db.execute(made)
    return fsck(path, [regime()]).difference


def test_a_deadline_that_was_opened_again_and_is_gone_is_missed(path):
    found = tampered(path, "DELETE FROM deadlines WHERE deadline_no = 2")
    assert (found.table, found.column, found.got) == ("deadlines", "row", "none")
    assert found.key.startswith("key deadline:again:")


@pytest.mark.parametrize(
    ("column", "named"),
    [("due_unix_ns", "due_unix_ns"), ("trigger_unix_ns", "trigger_unix_ns"), ("event_no", "id")],
)
def test_a_deadline_that_was_opened_again_is_derived_from_its_event(path, column, named):
    found = tampered(path, f"UPDATE deadlines SET {column} = {column} - 1 WHERE deadline_no = 2")
    assert (found.table, found.column) == ("deadlines", named)


def test_a_deadline_that_was_opened_again_without_a_word_is_named(path):
    """Nobody had said that the first does not apply: the clock runs since then."""
    found = tampered(path, "DELETE FROM answers")
    assert (found.table, found.column) == ("deadlines", "row")
    assert "nobody had said" in found.expected
