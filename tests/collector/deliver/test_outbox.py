"""The outbox's table over an upgrade: what waited is still delivered, what was delivered is not again."""

import sqlite3
from contextlib import closing

from sinks import FakeClock, FakeSender, outbox_rows, store_with_events, worker_of

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.store.migrate import _statements
from flopmeter.collector.store.schema import MIGRATIONS


def test_a_store_from_before_dead_letters_keeps_what_waits(tmp_path):
    """Rows as the JSON Lines sink of schema 6 left them: delivered; failed thrice; never tried."""
    path = store_with_events(tmp_path / "b.sqlite")
    (script,) = (script for name, script in MIGRATIONS if name == "0010-delivery")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for table in ("outbox", "sinks"):
            db.execute(f"DROP TABLE {table}")
        db.execute(
            "CREATE TABLE outbox (event_no INTEGER NOT NULL, sink TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, "
            "delivered_unix_ns INTEGER, PRIMARY KEY (event_no, sink)) WITHOUT ROWID"
        )
        db.execute(
            "INSERT INTO outbox VALUES (1, 'pager', 1, 5), (2, 'pager', 3, NULL), (3, 'pager', 0, NULL)"
        )
        for statement in _statements(script):
            db.execute(statement)
    assert outbox_rows(path, "event_no, attempts, first_unix_ns, delivered_unix_ns") == [
        (1, 1, 5, 5),
        (2, 0, None, None),
        (3, 0, None, None),
    ]
    sender = FakeSender()
    assert worker_of(path, sender, FakeClock()).deliver() == 2
    assert [m.event_no for m in sender.got] == [2, 3]
    assert check_store(path, shipped()).difference is None


def test_what_is_due_is_found_by_its_index(tmp_path):
    """Ten years of deliveries lie in the table; a look for what is due reads none of them."""
    path = store_with_events(tmp_path / "b.sqlite")
    from flopmeter.collector.deliver import outbox

    with outbox.opened(path) as db:
        seen = []
        db.set_trace_callback(seen.append)
        outbox.due(db, "pager", 1, 10)
        outbox.standing(db, "pager")
        db.set_trace_callback(None)
        plans = [
            row[3]
            for sql in seen
            if "outbox" in sql
            for row in db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        ]
    assert any("outbox_due" in step for step in plans)
    assert not [step for step in plans if step.startswith("SCAN outbox") or step == "SCAN o"]
