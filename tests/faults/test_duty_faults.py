"""The store fails, and the collector dies, around deadlines: none is lost, none is opened or told of twice."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from builders import Chain
from desk import DAY_NS
from duty_books import START, busy_minute, commit_at, fsck, opened, quarters, regime, rule
from faulty_sqlite import Crash, Faults

from flopmeter.collector.duty.answers import DEADLINE, State
from flopmeter.collector.duty.saying import Person, answer, open_incident
from flopmeter.collector.errors import StoreError
from flopmeter.collector.store.answers import INSERT, INSERT_DEADLINE, SqliteAnswers
from flopmeter.collector.store.sqlite import WRITES

LAW = regime(rule(), quarters(), rule("incident", "incident", after_days=None, after_hours=72))
SQL = dict(WRITES)
#: Of a commit in which one deadline is near, one is past, and a calendar's next day is opened.
STATEMENTS = {
    "begin": "BEGIN IMMEDIATE",
    "events": SQL["events"],
    "deadlines": SQL["deadlines"],
    "outbox": SQL["outbox"],
    "commit": "COMMIT",
}
DAY = 25  # days behind START: 16 October, the quarter's day is past


def everything(desk):
    """What was opened, and what was told."""
    return (
        desk.rows("SELECT key, due_unix_ns FROM deadlines ORDER BY 1"),
        desk.rows("SELECT key FROM events WHERE type LIKE 'deadline.%' ORDER BY 1"),
        desk.rows("SELECT count(*) FROM events") == desk.rows("SELECT count(*) FROM outbox"),
    )


def begun(path, **settings):
    desk = opened(path, LAW, sinks=("s",), **settings)
    busy_minute(desk, Chain("n"))
    return desk


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a collector comes to that nothing happened to."""
    with begun(tmp_path_factory.mktemp("calm") / "b.db") as desk:
        commit_at(desk, START + DAY * DAY_NS)
        return everything(desk)


@pytest.mark.parametrize("dies", [False, True], ids=["error", "crash"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("name", STATEMENTS)
def test_a_commit_of_deadlines_that_fails_is_all_or_nothing(tmp_path, undisturbed, name, before, dies):
    path, faults = tmp_path / "b.db", Faults()
    desk = begun(path, connect=faults.connect)
    before_it = everything(desk)
    faults.plan(STATEMENTS[name], before=before, error=Crash() if dies else None)
    with pytest.raises(Crash if dies else StoreError):
        commit_at(desk, START + DAY * DAY_NS)
    assert faults.error is None, "the statement did not run: this case tests nothing"
    if dies:
        desk.close()
        desk = opened(path, LAW, sinks=("s",), connect=faults.connect, now=START + DAY * DAY_NS)
    else:
        desk.recover()
    with desk:
        assert everything(desk) == (undisturbed if (name, before) == ("commit", False) else before_it)
        commit_at(desk, START + DAY * DAY_NS)
        commit_at(desk, START + DAY * DAY_NS)
        assert everything(desk) == undisturbed
    assert fsck(path, [LAW]).difference is None


def test_what_the_table_is_about(undisturbed):
    keys, told, all_sent = undisturbed
    assert [k.split(":")[1] for k, _ in keys] == ["day", "day", "run"]
    assert [k.split(":")[0] for (k,) in told] == ["overdue", "overdue"]
    assert all_sent


@pytest.mark.parametrize("dies", [False, True], ids=["error", "crash"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", INSERT_DEADLINE, INSERT, "COMMIT"])
def test_a_persons_word_is_all_there_or_not_at_all(tmp_path, monkeypatch, statement, before, dies):
    """An incident is a deadline and what was said of it: never one of the two."""
    path, faults = tmp_path / "b.db", Faults()
    begun(path).close()
    plain = SqliteAnswers
    monkeypatch.setattr(
        "flopmeter.collector.duty.saying.SqliteAnswers", lambda p: plain(p, connect=faults.connect)
    )
    person = Person("ada", "leak", START)
    faults.plan(statement, before=before, error=Crash() if dies else None)
    with pytest.raises(Crash if dies else StoreError):
        open_incident(path, LAW, "incident", person, trigger_unix_ns=START)
    assert faults.error is None
    db = sqlite3.connect(path)
    there = db.execute(
        "SELECT (SELECT count(*) FROM deadlines WHERE key LIKE '%:incident:%'), (SELECT count(*) FROM answers)"
    ).fetchone()
    db.close()
    persisted = statement == "COMMIT" and not before
    assert there == ((1, 1) if persisted else (0, 0))
    with opened(path, LAW) as desk:
        commit_at(desk, START)
    assert fsck(path, [LAW]).difference is None


LIVING = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from desk import DAY_NS
from duty_books import START, commit_at, opened
from test_duty_faults import LAW
desk = opened(Path(sys.argv[2]), LAW, sinks=("s",), now=START)
for hour in range(int(sys.argv[3]), 40 * 24, 4):
    commit_at(desk, START + hour * DAY_NS // 24)
    print(hour, flush=True)
"""


@pytest.mark.faults
def test_killed_again_and_again_a_month_of_deadlines_is_told_once(tmp_path):
    """SIGKILL at any moment of forty days in steps of four hours; the next one takes up where it was."""
    calm, path = tmp_path / "calm.db", tmp_path / "b.db"
    with begun(calm) as desk:
        for hour in range(0, 40 * 24, 4):
            commit_at(desk, START + hour * DAY_NS // 24)
        expected = everything(desk)
    begun(path).close()
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}
    hour, lives = 0, 0
    while hour < 40 * 24 - 4:
        process = subprocess.Popen(
            [sys.executable, "-c", LIVING, here.parent, path, str(hour)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert process.stdout is not None
        for _ in range(17 + lives * 7 % 29):
            line = process.stdout.readline()
            if not line:
                break
            hour = int(line)
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        hour = max([hour, *(int(x) for x in rest.split(b"\n")[:-1])])
        lives += 1
        assert lives < 40
    assert lives > 3
    with opened(path, LAW) as desk:
        assert everything(desk) == expected
    assert fsck(path, [LAW]).difference is None


def test_a_resolution_that_was_lost_was_never_confirmed(tmp_path):
    """The command fails before its commit: the deadline is told of; behind it: it is not."""
    path = tmp_path / "b.db"
    with begun(path) as desk:
        (deadline,) = desk.rows("SELECT id FROM deadlines WHERE key LIKE 'deadline:run:%'")[0]
        person = Person("ada", "handed in", START)
        answer(path, DEADLINE, deadline, State.RESOLVED, person._replace(keep=False), outcome="done")
        assert [e.data["rule"] for e in commit_at(desk, START + 8 * DAY_NS)] == ["notify"]
        answer(path, DEADLINE, deadline, State.RESOLVED, person, outcome="done")
        assert [e.data["rule"] for e in commit_at(desk, START + 20 * DAY_NS)] == ["quarterly"]
