"""fsck of answers, deadlines and what was told of them: what was changed behind the collector's back is named."""

import json
import sqlite3
from pathlib import Path

import pytest
from builders import Chain
from desk import DAY_NS
from duty_books import START, busy_minute, commit_at, fsck, opened, quarters, regime, rule
from relog import relog

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.duty.answers import DEADLINE, EVENT, AnswerRow, State, answer_hash
from flopmeter.collector.duty.deadlines import Deadline
from flopmeter.collector.duty.notices import notice
from flopmeter.collector.duty.saying import Person, answer, open_incident
from flopmeter.collector.law.events import event_id
from flopmeter.collector.law.judge import Moment
from flopmeter.collector.store.answers import DEADLINE_COLUMNS

LAW = regime(rule(), quarters(), rule("incident", "incident", after_days=None, after_hours=72))
MINUTE_NS = 60_000_000_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A store in which all of it happened: three kinds of deadlines, near, overdue, followed, acknowledged, resolved."""
    path = tmp_path_factory.mktemp("whole") / "books.db"
    chain = Chain("n")
    with opened(path, LAW) as desk:
        busy_minute(desk, chain)
        told = Person("ada", "seen", START + MINUTE_NS)
        ids = [i for (i,) in desk.rows("SELECT id FROM deadlines ORDER BY deadline_no")]
        open_incident(path, LAW, "incident", told, trigger_unix_ns=START)
        answer(path, DEADLINE, ids[0], State.ACKNOWLEDGED, told)
        answer(path, EVENT, event_id("threshold:eu-gpai:r1:crossed:crossed:>10^14"), State.RESOLVED, told)
        for day in range(1, 20):
            commit_at(desk, START + day * DAY_NS)
            busy_minute(desk, chain)
        answer(path, DEADLINE, ids[1], State.RESOLVED, told, outcome="done")
        for day in range(20, 40):
            commit_at(desk, START + day * DAY_NS)
            busy_minute(desk, chain)
    assert fsck(path, [LAW]).difference is None
    return path


@pytest.fixture
def store(whole, tmp_path) -> Path:
    path = tmp_path / "books.db"
    path.write_bytes(whole.read_bytes())
    return path


def changed(store, *statements):
    """Run statements on the store with its triggers out of the way, as somebody with the file at hand can."""
    db = sqlite3.connect(store)
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    for sql, *values in statements:
        assert db.execute(sql, values).rowcount, f"nothing was changed by {sql}"
    for _, sql in triggers:
        db.execute(sql)
    db.commit()
    db.close()


def difference(store):
    found = fsck(store, [LAW]).difference
    assert found is not None, "fsck did not see it"
    return found


def test_what_is_in_the_store(whole):
    db = sqlite3.connect(whole)
    keys = [k for (k,) in db.execute("SELECT key FROM deadlines ORDER BY deadline_no")]
    assert [k.split(":")[1] for k in keys] == ["run", "day", "incident", "day"]
    told = db.execute("SELECT type, count(*) FROM events WHERE type LIKE 'deadline.%' GROUP BY 1").fetchall()
    # Looked at once a day: three of the two weeks, one of the incident, one of the quarter's day; two came to their end.
    assert told == [("deadline.near", 5), ("deadline.overdue", 2)]
    assert db.execute("SELECT count(*) FROM answers").fetchone() == (4,)
    db.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("due_unix_ns", START + 20 * DAY_NS),
        ("trigger_unix_ns", START - DAY_NS),
        ("recipient", "nobody"),
        ("what", "Do nothing"),
        ("act", "coverage"),
        ("timezone", "UTC"),
        ("subject", "r2"),
        ("rule_digest", "00" * 32),
        ("event_no", 2),
        ("event_no", None),
        ("id", "0" * 32),
        ("key", "deadline:run:eu-gpai:notify:r2"),
        ("rule", "notified"),
        ("position", 99),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 3, 4], ids=["run", "day", "incident", "next-day"])
def test_a_deadline_that_was_changed_is_named(store, number, column, value):
    if column == "event_no" and value is None and number == 3:
        changed(store, ("UPDATE deadlines SET event_no = 1 WHERE deadline_no = 3",))
    else:
        changed(store, (f"UPDATE deadlines SET {column} = ? WHERE deadline_no = ?", value, number))
    found = difference(store)
    assert (found.table, found.key) in {
        ("deadlines", f"deadline_no {number}"),
        ("answers", "answer_no 1"),  # of the incident: what the person said of it
        ("deadlines", "deadline_no 4"),  # of the day before: its successor
    }, found


def test_a_day_that_was_opened_before_the_last_was_past_is_named(store):
    changed(store, ("UPDATE deadlines SET opened_unix_ns = ? WHERE deadline_no = 4", START))
    assert difference(store).column == "opened_unix_ns"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_deadline_that_is_gone_is_missed(store, number):
    changed(store, ("DELETE FROM deadlines WHERE deadline_no = ?", number))
    assert difference(store).table in ("deadlines", "answers")


def test_the_last_deadline_that_is_gone_is_missed_too(store):
    """The day that follows: nothing else rests on it."""
    changed(store, ("DELETE FROM deadlines WHERE deadline_no = 4",))
    found = difference(store)
    assert "behind that of" in found.expected


def told(store, kind="deadline.overdue"):
    db = sqlite3.connect(store)
    row = db.execute(
        "SELECT event_no, key, data FROM events WHERE type = ? ORDER BY 1 DESC", (kind,)
    ).fetchone()
    db.close()
    return row


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("time_unix_ns", START),
        ("subject", "r2"),
        ("type", "deadline.near"),
        ("position", 0),
    ],
)
def test_an_event_of_a_deadline_that_was_changed_is_named(store, column, value):
    number, _, _ = told(store)
    changed(store, (f"UPDATE events SET {column} = ? WHERE event_no = ?", value, number))
    found = difference(store)
    assert found.table == "events"
    assert found.key.startswith(f"event {number} ")


@pytest.mark.parametrize(
    "field", ["due", "recipient", "message", "deadline", "answers", "lead_seconds", "act"]
)
@pytest.mark.parametrize("kind", ["deadline.near", "deadline.overdue"])
def test_what_such_an_event_says_is_derived_again(store, field, kind):
    number, _, data = told(store, kind)
    said = json.loads(data)
    said[field] = "0" if field == "answers" else "else"
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    changed(store, ("UPDATE events SET data = ? WHERE event_no = ?", text, number))
    found = difference(store)
    assert (found.table, found.column) in {("events", "data"), ("events", "data.answers")}


def test_an_overdue_event_that_is_gone_is_missed(store):
    """The last event of the store, so that no number is missing."""
    db = sqlite3.connect(store)
    (last,) = db.execute("SELECT max(event_no) FROM events").fetchone()
    db.close()
    number, key, _ = told(store)
    changed(
        store,
        ("DELETE FROM events WHERE event_no = ?", number),
        *(
            [("UPDATE events SET event_no = event_no - 1 WHERE event_no > ?", number)]
            if last > number
            else []
        ),
    )
    found = difference(store)
    assert (found.table, found.key) == ("events", f"key {key}")


def test_an_event_of_a_deadline_that_is_not_there_is_named(store):
    number, key, _ = told(store)
    other = key.replace(":r1", ":r9").replace("incident:eu-gpai", "incident:eu-none")
    changed(store, ("UPDATE events SET key = ?, id = ? WHERE event_no = ?", other, event_id(other), number))
    assert difference(store).column == "key"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("who", "eve"),
        ("why", "else"),
        ("state", "open"),
        ("number", 1),
        ("about", "event"),
        ("unix_ns", 1),
        ("position", 0),
        ("detail", '{"outcome":"not-applicable"}'),
        ("hash", bytes(32)),
        ("prev_hash", bytes(32)),
    ],
)
def test_an_answer_that_was_changed_is_named(store, column, value):
    changed(store, (f"UPDATE answers SET {column} = ? WHERE answer_no = 4", value))
    found = difference(store)
    assert (found.table, found.key) == ("answers", "answer_no 4")


def rechained(store, change):
    """Change answers and hash them all again: the chain holds, and only what they say can be wrong."""
    db = sqlite3.connect(store)
    rows = [AnswerRow._make(r) for r in db.execute("SELECT * FROM answers ORDER BY answer_no")]
    db.close()
    before, fresh = NO_HASH, []
    for row in change(rows):
        sealed = row._replace(answer_no=len(fresh) + 1, prev_hash=before, hash=NO_HASH)
        sealed = sealed._replace(hash=answer_hash(sealed))
        before = sealed.hash
        fresh.append(sealed)
    marks = ", ".join("?" * len(AnswerRow._fields))
    changed(store, ("DELETE FROM answers",), *((f"INSERT INTO answers VALUES ({marks})", *r) for r in fresh))


@pytest.mark.parametrize(
    ("change", "table"),
    [
        (lambda rows: rows[1:], "answers"),  # nobody opened the incident
        (lambda rows: [rows[0]._replace(unix_ns=START), *rows[1:]], "answers"),
        (lambda rows: [*rows, rows[3]], "answers"),  # resolved twice
        (lambda rows: [*rows[:3], rows[3]._replace(detail="{}")], "answers"),  # without an outcome
        (lambda rows: [*rows[:3], rows[3]._replace(number=77)], "answers"),
        (lambda rows: rows[:3], "events"),  # the quarter's day was never resolved: then it was to be told of
        (lambda rows: [rows[0], rows[1], rows[3]._replace(position=2), rows[2]], "answers"),
    ],
    ids=["gone", "moved", "twice", "no-outcome", "of-nothing", "unsaid", "other-order"],
)
def test_answers_that_were_chained_anew_must_still_fit(store, change, table):
    rechained(store, change)
    assert difference(store).table == table


def test_an_event_about_what_was_resolved_is_named(store):
    """The chain says that the two weeks were resolved, and not only acknowledged, before they were told of."""

    def resolved(rows):
        return [rows[0], rows[1]._replace(state="resolved", detail='{"outcome":"done"}'), *rows[2:]]

    rechained(store, resolved)
    found = difference(store)
    assert (found.table, found.column) == ("events", "row")
    assert "answer 2 had resolved it" in found.expected


def test_an_event_that_was_told_when_a_later_one_had_been_is_named(store):
    """Everything about it is well made, but for its turn."""
    db = sqlite3.connect(store)
    d = Deadline._make(
        db.execute(f"SELECT {DEADLINE_COLUMNS} FROM deadlines WHERE deadline_no = 1").fetchone()
    )
    number, position = db.execute("SELECT max(event_no), max(position) FROM events").fetchone()
    db.close()
    made = notice(d, 3 * DAY_NS, 4, Moment(d.due_unix_ns - 3 * DAY_NS, position, position))
    row = (
        number + 1,
        made.id,
        made.key,
        made.type,
        made.subject,
        made.time_unix_ns,
        position,
        position,
        made.data_json,
    )
    changed(store, ("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *row))
    found = difference(store)
    assert (found.table, found.column) == ("events", "key")
    assert "told before" in found.expected


def test_deadlines_of_a_text_that_is_not_known_are_told_of(store):
    changed(
        store,
        ("UPDATE deadlines SET text_digest = ?", "77" * 32),
    )
    relog(store)
    result = fsck(store, [LAW])
    assert result.difference is None
    assert any("not known here" in note for note in result.notes)


def test_an_old_text_is_read_from_where_it_was_kept(store):
    """Today's file says thirty days: what was opened under the two weeks follows from the text of then."""
    result = fsck(store, [regime(rule(after_days=30), quarters())])
    assert result.difference is None or result.difference.table not in ("deadlines", "answers")
