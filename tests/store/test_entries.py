"""Entries in the store: appended by whoever, never changed, durable when said, beside a collector that runs."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from builders import Chain
from desk import Desk
from faulty_sqlite import COMMIT, Crash, Faults
from registry_entries import entry

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import EntryRefused, StoreError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.registry.codec import EntryRow, to_entry, to_row
from flopmeter.collector.registry.entries import Assign, Declare, JobKey, Link, Purpose, Relation, Tag
from flopmeter.collector.store.base import LastEntry
from flopmeter.collector.store.entries import SqliteEntries
from flopmeter.collector.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "books.sqlite"
    SqliteStore(path).close()
    return path


def next_row(last: LastEntry, run: str = "r1") -> EntryRow:
    made = entry(last.entry_no + 1, Declare(run, owner="ada"))
    return to_row(replace(made, position=last.position), last.hash)


def rows(path) -> list[EntryRow]:
    with SqliteEntries(path) as log:
        return log.entries()


def test_what_is_appended_is_read_again_in_order_by_every_reader(path):
    with SqliteEntries(path) as log:
        assert log.entries() == []
        first, second = log.append_entry(next_row), log.append_entry(next_row)
        assert log.entries() == [first, second]
        assert log.entries(after_no=1) == [second]
        assert first.prev_hash == NO_HASH
        assert second.prev_hash == first.hash
    store = SqliteStore(path)
    assert store.books.entries() == store.catalogue.entries() == [first, second]
    assert store.books.entries(1) == store.catalogue.entries(1) == [second]
    store.close()


def test_an_entry_is_made_beside_a_collector_that_runs_and_knows_the_last_record(path):
    chain = Chain()
    with Desk(path) as desk:
        agent = desk.agent(chain)
        for said in (1, 2, 3):
            assert desk.offer(agent, chain.next()) is TAKEN
            desk.commit()
            with SqliteEntries(path) as log:
                assert log.append_entry(next_row).position == said
            assert desk.store.books.entries()[-1].position == said
        assert desk.rows("SELECT count(*) FROM records") == [(3,)]
    assert [r.entry_no for r in rows(path)] == [1, 2, 3]


def test_it_is_synced_before_anybody_is_told(path):
    with SqliteEntries(path) as log:
        assert log._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert log._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE entries SET why = 'other' WHERE entry_no = 1", "never changed"),
        ("DELETE FROM entries WHERE entry_no = 2", "never deleted"),
        ("DELETE FROM entries", "never deleted"),
        ("INSERT OR REPLACE INTO entries SELECT 1, 0, 0, 'eve', 'x', '{}', prev_hash, hash FROM entries", "next"),
        ("INSERT INTO entries SELECT 4, 0, 0, 'eve', 'x', '{}', hash, hash FROM entries", "next number"),
        ("INSERT INTO entries SELECT 3, 0, 0, 'eve', 'x', '{}', prev_hash, hash FROM entries", "last hash"),
        ("INSERT INTO entries SELECT 4, 0, 0, 'eve', 'x', '{}', hash, x'00' FROM entries WHERE entry_no = 2", "next"),
        ("INSERT INTO entries VALUES (NULL, 0, 0, 'eve', 'x', '{}', zeroblob(32), zeroblob(32))", "next number"),
        ("INSERT INTO entries VALUES (3, 0, 0, 'eve', 'x', '{}', NULL, zeroblob(32))", "last hash"),
    ],
)  # fmt: skip
def test_the_database_itself_refuses_to_forget(path, sql, said):
    with SqliteEntries(path) as log:
        before = [log.append_entry(next_row), log.append_entry(next_row)]
    with closing(sqlite3.connect(path)) as db:
        with pytest.raises(sqlite3.IntegrityError, match=said):
            db.execute(sql)
        db.rollback()
    assert rows(path) == before


def test_a_row_that_is_not_the_next_one_is_refused_and_nothing_stays(path):
    with SqliteEntries(path) as log:
        first = log.append_entry(next_row)
        with pytest.raises(StoreError, match="expected the next number"):
            log.append_entry(lambda last: first)
        with pytest.raises(EntryRefused):
            log.append_entry(refuse)
        assert log.entries() == [first]
        log.append_entry(next_row)


def refuse(_: LastEntry) -> EntryRow:
    raise EntryRefused("no")


def test_two_people_at_once_each_get_a_number_of_their_own(path):
    """More of them than either could do in one turn, each with a connection of its own, as two commands have."""
    failed: list[StoreError] = []

    def say(name: str) -> None:
        try:
            with SqliteEntries(path) as log:
                for _ in range(20):
                    log.append_entry(lambda last: next_row(last, name))
        except StoreError as e:
            failed.append(e)

    people = [threading.Thread(target=say, args=(name,)) for name in ("ada", "bob")]
    for p in people:
        p.start()
    for p in people:
        p.join()
    assert failed == []
    said = rows(path)
    assert [r.entry_no for r in said] == list(range(1, 41))
    assert {name: sum(to_entry(r).statement.run == name for r in said) for name in ("ada", "bob")} == {
        "ada": 20,
        "bob": 20,
    }


def test_a_full_disk_says_so_and_leaves_nothing_half_done(path):
    faults = Faults()
    with SqliteEntries(path, connect=faults.connect) as log:
        first = log.append_entry(next_row)
        for at in ("BEGIN", "INSERT", COMMIT):
            faults.plan(at, before=True)
            with pytest.raises(StoreError, match="cannot commit: database or disk is full") as e:
                log.append_entry(next_row)
            assert "free space" in e.value.hint
            assert log.entries() == [first]
        assert log.append_entry(next_row).entry_no == 2


@pytest.mark.parametrize("before", [True, False])
def test_a_crash_around_the_commit_leaves_all_of_it_or_nothing(path, before):
    faults = Faults()
    log = SqliteEntries(path, connect=faults.connect)
    faults.plan(COMMIT, before=before, error=Crash())
    with pytest.raises(Crash):
        log.append_entry(next_row)
    log._connection.close()
    assert len(rows(path)) == (0 if before else 1)
    assert check_store(path, ()).difference is None


def test_a_killed_command_leaves_the_store_usable(path):
    code = (
        "import os, sys, signal; from pathlib import Path; from flopmeter.collector.store.entries import *\n"
        "log = SqliteEntries(Path(sys.argv[1]))\n"
        "log.append_entry(lambda last: os.kill(os.getpid(), signal.SIGKILL))"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    with SqliteEntries(path) as log:
        assert log.append_entry(next_row).entry_no == 1


def test_a_writer_that_holds_the_lock_is_waited_for_then_named(path, monkeypatch):
    monkeypatch.setattr("flopmeter.collector.store.appending.BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as other, SqliteEntries(path) as log:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as e:
            log.append_entry(next_row)
        assert "another program holds the store" in e.value.hint
        other.execute("COMMIT")
        log.append_entry(next_row)


def test_no_store_is_made_and_none_migrated_by_what_somebody_says(tmp_path, path):
    missing = tmp_path / "no.sqlite"
    with pytest.raises(StoreError, match="found no such file") as e:
        SqliteEntries(missing)
    assert "collector serve" in e.value.hint
    assert not missing.exists()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreError, match="an older flopmeter has written it"):
        SqliteEntries(path)
    foreign = tmp_path / "x.db"
    sqlite3.connect(foreign).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(StoreError, match="expected a flopmeter store"):
        SqliteEntries(foreign)


def test_an_entry_is_not_lost_when_the_store_is_put_aside(path, tmp_path):
    """The file is moved while somebody speaks: what was said went into what nobody will read again."""
    with SqliteEntries(path) as log:
        log.append_entry(next_row)
        path.rename(tmp_path / "aside.sqlite")
        with pytest.raises(StoreError, match="found no file in its place"):
            log.append_entry(next_row)


# ---- fsck --------------------------------------------------------------------------------------------------


def tampered(path, sql: str) -> None:
    """Change entries as one who owns the file can."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute(sql)
        for _, text in triggers:
            db.execute(text)


@pytest.mark.parametrize(
    ("sql", "number", "column"),
    [
        ("UPDATE entries SET who = 'eve@lab' WHERE entry_no = 2", 2, "hash"),
        ("UPDATE entries SET why = 'because' WHERE entry_no = 3", 3, "hash"),
        ("UPDATE entries SET unix_ns = unix_ns + 1 WHERE entry_no = 1", 1, "hash"),
        ("UPDATE entries SET position = 1 WHERE entry_no = 1", 1, "hash"),
        ("UPDATE entries SET statement = replace(statement, 'ada', 'eve') WHERE entry_no = 1", 1, "hash"),
        ("UPDATE entries SET statement = '{}' WHERE entry_no = 1", 1, "statement"),
        ("UPDATE entries SET statement = statement || ' ' WHERE entry_no = 1", 1, "statement"),
        ("UPDATE entries SET prev_hash = zeroblob(32) WHERE entry_no = 2", 2, "prev_hash"),
        ("DELETE FROM entries WHERE entry_no = 2", 2, "entry_no"),
        ("DELETE FROM entries WHERE entry_no = 1", 1, "entry_no"),
    ],
)
def test_fsck_names_the_first_entry_that_is_not_what_was_said(path, sql, number, column):
    with SqliteEntries(path) as log:
        for _ in range(3):
            log.append_entry(next_row)
    assert check_store(path, ()).difference is None
    tampered(path, sql)
    found = check_store(path, ()).difference
    assert found is not None
    assert (found.table, found.key, found.column) == ("entries", f"entry_no {number}", column)


def test_fsck_names_an_entry_that_must_not_have_been_made(path):
    """The chain is whole: whoever wrote it went around the checks."""
    with SqliteEntries(path) as log:
        log.append_entry(next_row)

        def silent_exclusion(last: LastEntry) -> EntryRow:
            return to_row(entry(last.entry_no + 1, Tag("r1", Purpose.EVALUATION)), last.hash)

        log.append_entry(silent_exclusion)
    found = check_store(path, ()).difference
    assert found is not None
    assert (found.key, found.column) == ("entry_no 2", "statement")
    assert "expected evidence" in found.got


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        (Assign(JobKey("c1", 3, "9"), "r1"), "job '9' of c1"),
        (Assign(JobKey("c1", 3, "4711"), "r9"), "run 'r9'"),
        (Assign(JobKey("c1", 3, "4711"), "r1", "7"), "expected a step"),
        (Tag("r9", Purpose.RL), "run 'r9'"),
        (Link("r1", Relation.MERGES, "r9"), "parent 'r9'"),
    ],
)
def test_fsck_names_an_entry_about_what_the_books_never_held(path, statement, said):
    chain = Chain()
    with Desk(path) as desk:
        assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
    with SqliteEntries(path) as log:
        log.append_entry(next_row)
        good = Tag("r1", Purpose.RL, job=JobKey("c1", 3, "4711"))
        log.append_entry(lambda last: to_row(entry(2, good), last.hash))
        assert check_store(path, ()).difference is None
        log.append_entry(lambda last: to_row(entry(3, statement), last.hash))
    found = check_store(path, ()).difference
    assert found is not None
    assert (found.key, found.column) == ("entry_no 3", "statement")
    assert said in found.got
