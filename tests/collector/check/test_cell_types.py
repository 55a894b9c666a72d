"""fsck of a store in which a cell is of another type than any collector writes: named, and never a crash."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attest_books import LAWS
from export_books import export_store

from flopmeter.collector.check.cell_types import wrong_cell
from flopmeter.collector.check.fsck import Found, check_store
from flopmeter.collector.report.queries import reading


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "books.sqlite"
    export_store(path)
    return path


def found(made: Path, tmp_path: Path, change: str) -> Found:
    path = Path(shutil.copy(made, tmp_path / "books.sqlite"))
    with closing(sqlite3.connect(path)) as db, db:
        triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute('CREATE TABLE "some""body\'s own" (a, "b b" TEXT)')
        assert db.execute(change).rowcount == 1
        for _, sql in triggers:
            db.execute(sql)
    difference = check_store(path, LAWS).difference
    assert difference is not None
    return difference


@pytest.mark.parametrize(
    ("column", "value", "got"),
    [
        ("received_unix_ns", "'abc'", "of type text"),
        ("record", "'abc'", "of type text"),
        ("record", "1.5", "of type real"),
        ("hash", "CAST(x'ff4bfe' AS TEXT)", "of type text"),
    ],
)
def test_a_records_cell_of_another_type_is_named(
    made: Path, tmp_path: Path, column: str, value: str, got: str
) -> None:
    difference = found(made, tmp_path, f"UPDATE records SET {column} = {value} WHERE position = 3")
    assert (difference.table, difference.column, difference.got) == ("records", column, got)
    assert difference.key


def test_an_inventory_and_a_text_that_are_no_such_are_named_too(made: Path, tmp_path: Path) -> None:
    digest = "(SELECT min(digest) FROM inventories)"
    difference = found(made, tmp_path, f"UPDATE inventories SET bytes = -7 WHERE digest = {digest}")
    assert (difference.table, difference.column) == ("inventories", "bytes")
    assert difference.key.startswith("digest x")
    difference = found(
        made, tmp_path, "UPDATE workloads SET user = CAST(x'ff4bfe' AS TEXT) WHERE workload_no = 1"
    )
    assert (difference.table, difference.key, difference.column, difference.expected) == (
        "workloads",
        "workload_no 1",
        "user",
        "text in UTF-8",
    )


@pytest.mark.parametrize("data", ["-7", "[]", "null", "[" * 100_000])
def test_what_an_event_says_that_is_no_object_is_named(made: Path, tmp_path: Path, data: str) -> None:
    difference = found(made, tmp_path, f"UPDATE events SET data = '{data}' WHERE event_no = 1")
    assert (difference.table, difference.column) == ("events", "data")
    assert "JSON" in difference.expected


def test_in_a_good_store_no_cell_is_wrong(made: Path) -> None:
    with reading(made) as reader:
        assert wrong_cell(reader) is None
