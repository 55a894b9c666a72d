"""The SQLite driver: what it refuses to open, what it promises, and what it answers."""

import copy
import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from builders import Chain
from desk import Desk

from flopmeter.collector.books import GroupKey
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest import TAKEN
from flopmeter.collector.store.migrate import APPLICATION_ID
from flopmeter.collector.store.schema import MIGRATIONS
from flopmeter.collector.store.sqlite import SqliteStore, open_for_reading
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
    assert "never downgraded" in e.value.hint
    with pytest.raises(StoreError, match="expected schema version"):
        open_for_reading(path)


LATER = (*MIGRATIONS, ("0002-later", "CREATE TABLE later (x);\nCREATE INDEX later_x ON later (x);"))
BROKEN = (*LATER, ("0003-broken", "CREATE TABLE last (x);\nCREATE TABLE agents (x);"))


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


def test_a_store_that_is_up_to_date_opens_without_sqlite_utils(path):
    code = (
        "import sys; from pathlib import Path; from flopmeter.collector.store.sqlite import SqliteStore; "
        "SqliteStore(Path(sys.argv[1])).close(); print('sqlite_utils' in sys.modules)"
    )
    said = [subprocess.check_output([sys.executable, "-c", code, path], text=True) for _ in range(2)]
    assert said == ["True\n", "False\n"]


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
        assert look.workload_no(("c1", 3, "4711", "", "r1", "", "bf16", 0)) == 1
        assert look.workload_no(("c2", 3, "4711", "", "r1", "", "bf16", 0)) is None
        key = GroupKey(1, 1, 1, 1023, 0, 0)
        assert books.totals([key, key._replace(workload_no=9)]) == desk.totals()
        (total,) = books.run_totals("r1")
        assert (total.key, total.dtype, total.sums) == (key, "bf16", desk.totals()[key])
        assert books.run_totals("r2") == []
        assert books.workload_runs([1, 5]) == {1: ("r1", "bf16")}
        assert (books.next_position(), books.next_event_no()) == (3, 1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            look._connection.execute("DELETE FROM records")


def test_a_held_lock_is_waited_for_then_named(path, monkeypatch):
    monkeypatch.setattr("flopmeter.collector.store.sqlite.BUSY_TIMEOUT_S", 0.05)
    chain = Chain()
    with Desk(path) as desk:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        desk.agent(chain)
        with pytest.raises(StoreError, match="locked") as e:
            desk.commit()
        assert "another program holds the store" in e.value.hint
        with pytest.raises(StoreError, match="locked"):
            desk.store.books.probe()
        other.execute("COMMIT")
        other.close()
        desk.store.books.probe()
