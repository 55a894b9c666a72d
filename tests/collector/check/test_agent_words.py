"""fsck on what agents say outside their records: a name that no record has is noted, a clock that none writes is named."""

import shutil
import sqlite3
from contextlib import closing

import pytest
from builders import Chain
from desk import Desk

from flopmeter.collector.check.fsck import check_store, result_text


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "books.sqlite"
    with Desk(path, ()) as desk:
        for name in ("n1", "n2"):
            chain = Chain(name)
            agent = desk.agent(chain)
            desk.offer(agent, chain.next())
            desk.offer(agent, chain.next())
        desk.commit()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO clocks VALUES (1, -5, 7, 1790000000000000000)")
    return path


@pytest.fixture
def copy(books, tmp_path):
    return shutil.copy(books, tmp_path / "copy.sqlite")


def checked(path, sql):
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute(sql).rowcount == 1
    return check_store(path, ())


def test_as_it_is_there_is_nothing_to_say(books):
    result = check_store(books, ())
    assert result.difference is None
    assert result.notes == ()


@pytest.mark.parametrize("column", ["node", "version"])
def test_what_no_record_says_is_noted_and_is_no_difference(copy, column):
    result = checked(copy, f"UPDATE agents SET {column} = 'renamed' WHERE agent_no = 2")
    assert result.difference is None
    (note,) = result.notes
    assert note.startswith("agents whose node or version is in none of their records")
    assert f"{column} 'renamed'" in note
    assert "renamed" in result_text(result)


def test_an_agent_without_a_record_says_what_it_likes(tmp_path):
    path = tmp_path / "books.sqlite"
    with Desk(path, ()) as desk:
        desk.agent(Chain("n3"))
        desk.commit()
    assert check_store(path, ()).notes == ()


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ("UPDATE clocks SET lower_ns = 8", "lower_ns"),
        ("UPDATE clocks SET agent_no = 77", "agent_no"),
        ("UPDATE clocks SET measured_unix_ns = 0", "measured_unix_ns"),
    ],
)
def test_a_clock_that_no_collector_writes_is_named(copy, sql, column):
    found = checked(copy, sql).difference
    assert found is not None
    assert (found.table, found.column) == ("clocks", column)
