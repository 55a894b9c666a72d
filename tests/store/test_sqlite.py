"""The SQLite driver: what it refuses to open, what it promises, and what it answers."""

import copy
import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime

import pytest
from builders import UNIX_NS, Chain
from desk import Desk
from old_stores import first_schema

from flopmeter.collector.books import HOUR_NS, GroupKey, HourKey, Slot
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.ingest.identity_rules import shipped
from flopmeter.collector.store import migrate
from flopmeter.collector.store.base import Held, JobRow
from flopmeter.collector.store.migrate import APPLICATION_ID
from flopmeter.collector.store.reading import open_for_reading
from flopmeter.collector.store.schema import MIGRATIONS
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.contract.record import record_hash


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "books.db"


def pragma(path, name):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


def test_a_new_store_is_made_marked_and_durable(path):
    store = SqliteStore(path)
    connection = store.books._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    store.close()
    assert pragma(path, "application_id") == APPLICATION_ID
    assert pragma(path, "user_version") == len(MIGRATIONS)


def test_opening_again_changes_nothing(path):
    SqliteStore(path).close()
    before = pragma(path, "schema_version")
    SqliteStore(path).close()
    assert pragma(path, "schema_version") == before


def test_a_second_collector_is_refused_and_told_who_has_it(path):
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=f"another collector \\(pid {os.getpid()}\\)") as e:
        SqliteStore(path)
    assert "stop it first" in e.value.hint
    store.close()
    SqliteStore(path).close()


def test_the_lock_dies_with_its_process(path):
    code = (
        "import os, sys, signal; from pathlib import Path; from flopmeter.collector.store.sqlite import SqliteStore; "
        "s = SqliteStore(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    SqliteStore(path).close()


def test_a_failed_opening_gives_the_lock_back(path):
    path.parent.mkdir()
    path.write_bytes(b"not a database, and longer than a hundred bytes" * 10)
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database") as e:
            SqliteStore(path)
        assert "backup" in e.value.hint
    with path.with_name(path.name + ".lock").open("rb") as f:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_another_programs_database_is_left_alone(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="another program's SQLite file"):
        SqliteStore(path)
    assert pragma(path, "user_version") == 0


def test_a_newer_schema_is_refused_with_a_hint(path):
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="a newer flopmeter has written it") as e:
        SqliteStore(path)
    assert "use the flopmeter that wrote it" in e.value.hint
    with pytest.raises(StoreError, match="a newer flopmeter has written it") as e:
        open_for_reading(path)
    assert "use the flopmeter that wrote it" in e.value.hint
    first_schema(path)
    with pytest.raises(StoreError, match="an older flopmeter has written it") as e:
        open_for_reading(path)
    assert "serve" in e.value.hint


LATER = (*MIGRATIONS, ("9998-later", "CREATE TABLE later (x);\nCREATE INDEX later_x ON later (x);"))
BROKEN = (*LATER, ("9999-broken", "CREATE TABLE last (x);\nCREATE TABLE agents (x);"))


def applied(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT migration_set, name FROM _sqlite_migrations ORDER BY id").fetchall()


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_migration_that_fails_leaves_no_trace_of_it_nor_of_those_before(path, monkeypatch):
    SqliteStore(path).close()
    before = tables(path)
    monkeypatch.setattr("flopmeter.collector.store.migrate.MIGRATIONS", BROKEN)
    with pytest.raises(StoreError, match="already exists"):
        SqliteStore(path)
    assert pragma(path, "user_version") == len(MIGRATIONS)
    assert tables(path) == before
    assert applied(path) == [("flopmeter", name) for name, _ in MIGRATIONS]


def test_a_new_store_whose_migration_fails_is_still_ours_to_make(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("flopmeter.collector.store.migrate.MIGRATIONS", BROKEN)
        with pytest.raises(StoreError, match="already exists"):
            SqliteStore(path)
    assert tables(path) == set()
    SqliteStore(path).close()
    assert pragma(path, "application_id") == APPLICATION_ID


def test_a_later_migration_is_applied_to_books_that_hold_something(path, monkeypatch):
    chain = Chain()
    with Desk(path) as desk:
        assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
    monkeypatch.setattr("flopmeter.collector.store.migrate.MIGRATIONS", LATER)
    with Desk(path) as desk:
        assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
        assert desk.rows("SELECT count(*) FROM records") == [(2,)]
    assert pragma(path, "user_version") == len(LATER)
    assert applied(path) == [("flopmeter", name) for name, _ in LATER]


def everything(path):
    with closing(sqlite3.connect(path)) as connection:
        notes = connection.execute(
            "SELECT id, migration_set, name FROM _sqlite_migrations ORDER BY id"
        ).fetchall()
        dates = [d for (d,) in connection.execute("SELECT applied_at FROM _sqlite_migrations")]
        schema = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
        ).fetchall()
        data = {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()
            for kind, name, *_ in schema
            if kind == "table" and name != "_sqlite_migrations"
        }
    return notes, [datetime.fromisoformat(d).tzinfo for d in dates], schema, data


def test_a_store_made_anew_is_the_one_that_migrations_make(path, tmp_path, monkeypatch):
    """To the letter of every statement: from the first schema on, by sqlite-utils, and at once, without it."""
    SqliteStore(path).close()
    migrated = tmp_path / "migrated.db"
    with closing(sqlite3.connect(migrated, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        migrate._apply(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    assert everything(path) == everything(migrated)
    monkeypatch.setattr(
        "flopmeter.collector.store.migrate.MIGRATIONS", LATER
    )  # and sqlite-utils goes on from both
    for store in (path, migrated):
        SqliteStore(store).close()
    assert everything(path) == everything(migrated)
    assert applied(path) == [("flopmeter", name) for name, _ in LATER]


def test_a_store_of_the_first_schema_goes_on_and_what_was_booked_stays_booked(path):
    """Records from before claims were kept: two agents on one node may be in the totals, and stay there."""
    one, two = Chain("n", key_seed="one"), Chain("n", key_seed="two")
    with pytest.MonkeyPatch.context() as patch, Desk(path) as desk:
        patch.setattr("flopmeter.collector.ingest.claims.Claims._met", lambda *_: (None, 0))
        for chain in (one, two):
            assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
        before = desk.totals()
    first_schema(path)
    with Desk(path) as desk:
        assert desk.totals() == before
        assert check_store(path, ()).difference is None
        for chain in (one, two):
            assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        assert len(desk.commit().events) == 2
        assert desk.rows("SELECT from_position FROM claimed") == [(3,)]
        assert sum(s[0] for s in desk.totals().values()) == sum(s[0] for s in before.values()) * 3 // 2
        assert check_store(path, ()).difference is None


def test_a_new_store_is_made_without_sqlite_utils_and_an_older_one_migrated_with_it(path):
    code = (
        "import sys; from pathlib import Path; from flopmeter.collector.store.sqlite import SqliteStore; "
        "SqliteStore(Path(sys.argv[1])).close(); print('sqlite_utils' in sys.modules)"
    )
    said = [subprocess.check_output([sys.executable, "-c", code, path], text=True) for _ in range(2)]
    first_schema(path)
    said.append(subprocess.check_output([sys.executable, "-c", code, path], text=True))
    assert said == ["False\n", "False\n", "True\n"]


def test_readers_need_a_store(path, tmp_path):
    with pytest.raises(StoreError, match="found no such file"):
        open_for_reading(path)
    foreign = tmp_path / "x.db"
    sqlite3.connect(foreign).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(StoreError, match="expected a flopmeter store"):
        open_for_reading(foreign)


def test_readers_read_while_the_collector_writes_and_cannot_write(path):
    chain = Chain()
    with Desk(path) as desk:
        reader = open_for_reading(path)
        agent = desk.agent(chain)
        assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()
        assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM records")
        reader.close()


def test_look_ups(path):
    chain = Chain("n", gpus=1)
    with Desk(path) as desk:
        agent = desk.agent(chain)
        for _ in range(2):
            assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()
        look, books = desk.store.catalogue, desk.store.books
        (stored,) = look.agents()
        assert (stored.agent_id, stored.node, stored.lost) == (chain.agent_id, "n", [])
        assert record_hash(stored.last_record) == agent.head.last_hash
        assert stored.last_received_unix_ns == desk.now
        taken = copy.copy(agent.head)
        desk.intake.reset()
        assert agent.head == taken  # read from the record again, it is the same in every field
        assert agent.durable_seq == 2
        assert look.next_numbers() == (2, 2, 2)
        assert look.inventory(chain.digest) == chain.inventory
        assert look.inventory(bytes(32)) is None
        identity = ("c1", 3, "4711", "", "r1", "", "bf16", 0)
        assert look.workload_no((*identity, "")) == 1
        assert look.workload_no((*identity, '{"env:X":"y"}')) is None
        assert look.workload_no(("c2", *identity[1:], "")) is None
        assert look.job_rows("c1", 3, "4711") == [JobRow(1, "r1", "label", 0, UNIX_NS, "")]
        assert look.job_rows("c1", 3, "471") == []
        key = GroupKey(1, 1, 1, 1023, 0, 0)
        assert books.totals([key, key._replace(workload_no=9)]) == desk.totals()
        assert list(books.workload_totals([1, 5])) == [(key, desk.totals()[key])]
        assert list(books.workload_hours([1, 5])) == [
            (HourKey(Slot(UNIX_NS // HOUR_NS), key), desk.totals()[key])
        ]
        assert books.workloads([1, 5]) == {1: Held("r1", "bf16", "c1", 3, "4711", "")}
        assert (books.workloads_of_run("r1"), books.workloads_of_run("r2")) == ([1], [])
        assert (books.workloads_of_job("c1", 3, "4711"), books.workloads_of_job("c1", 4, "4711")) == ([1], [])
        assert books.identity_rules() == shipped().digest
        assert (books.next_position(), books.next_event_no()) == (3, 1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            look._connection.execute("DELETE FROM records")


def test_a_held_lock_is_waited_for_then_named(path, monkeypatch):
    monkeypatch.setattr("flopmeter.collector.store.sqlite.BUSY_TIMEOUT_S", 0.05)
    chain = Chain()
    with Desk(path) as desk:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        desk.hello(chain)
        with pytest.raises(StoreError, match="locked") as e:
            desk.commit()
        assert "another program holds the store" in e.value.hint
        with pytest.raises(StoreError, match="locked"):
            desk.store.books.probe()
        other.execute("COMMIT")
        other.close()
        desk.store.books.probe()
