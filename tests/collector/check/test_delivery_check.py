"""fsck of the outbox: each note must follow from the others, and each row be about something."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from sinks import FakeClock, FakeSender, answer, store_with_events, worker_of

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.deliver.answer import failed, refused
from flopmeter.collector.duty.answers import State
from flopmeter.collector.law.regimes import shipped


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """Delivered, with an answer; put aside; tried and waiting; and one that another sink was never tried with."""
    path = store_with_events(tmp_path_factory.mktemp("lived") / "b.sqlite", ["n1", "n2", "n3"])
    clock = FakeClock()
    sender = FakeSender()

    def send(messages):
        (message,) = messages
        if message.event_no == 2:
            return [refused("no")]
        return [failed("later")] if message.event_no == 3 else [FakeSender().send(messages)[0]]

    sender.send = send
    worker = worker_of(path, sender, clock, states=True)
    worker.deliver()
    answer(path, 1, State.ACKNOWLEDGED)
    while not worker.counters.standing.dead:
        clock.pass_s(900)
        worker.deliver()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO outbox (event_no, sink) VALUES (3, 'another')")
    return path


def checked(path):
    return check_store(path, shipped()).difference


def test_what_came_about_is_good(lived):
    assert checked(lived) is None


@pytest.mark.parametrize(
    ("sql", "table", "column", "expected"),
    [
        ("INSERT INTO outbox (event_no, sink) VALUES (99, 'pager')", "outbox", "event_no", "an event"),
        (
            "INSERT INTO outbox (event_no, sink, answer_no) VALUES (1, 'pager', 9)",
            "outbox",
            "answer_no",
            "an answer",
        ),
        (
            "INSERT INTO outbox (event_no, sink, answer_no) VALUES (2, 'pager', 1)",
            "outbox",
            "answer_no",
            "an answer",
        ),
        (
            "INSERT INTO outbox (event_no, sink, answer_no) VALUES (1, 'x', 1)",
            "outbox",
            "answer_no",
            "the event itself",
        ),
        (
            "UPDATE outbox SET refusals = attempts + 1 WHERE event_no = 3",
            "outbox",
            "refusals",
            "no more than",
        ),
        (
            "UPDATE outbox SET first_unix_ns = NULL WHERE event_no = 1",
            "outbox",
            "first_unix_ns",
            "a time once",
        ),
        (
            "UPDATE outbox SET first_unix_ns = 1 WHERE sink = 'another'",
            "outbox",
            "first_unix_ns",
            "a time once",
        ),
        (
            "UPDATE outbox SET delivered_unix_ns = 1 WHERE sink = 'another'",
            "outbox",
            "delivered_unix_ns",
            "no note",
        ),
        (
            "UPDATE outbox SET dead_unix_ns = 1 WHERE event_no = 1 AND answer_no = 0",
            "outbox",
            "dead_unix_ns",
            "no dead",
        ),
        ("UPDATE outbox SET dead_unix_ns = 1 WHERE sink = 'another'", "outbox", "dead_unix_ns", "no dead"),
        ("UPDATE sinks SET answer_no = 2", "sinks", "answer_no", "an answer up to 1"),
    ],
)
def test_what_cannot_be_is_named(  # noqa: PLR0917 - pytest passes them by name
    lived, tmp_path, sql, table, column, expected
):
    path = tmp_path / "b.sqlite"
    shutil.copy(lived, path)
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(sql).rowcount >= 1
    found = checked(path)
    assert (found.table, found.column) == (table, column)
    assert str(found.expected).startswith(expected)
