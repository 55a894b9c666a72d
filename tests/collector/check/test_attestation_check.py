"""fsck on attestations: what a record was made of, its order in the log, and the head that a statement names."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from attest_books import LAWS, attest, full_store
from log_rig import tamper
from relog import relog

from flopmeter.collector.attest.said import AttestationRow, row_hash
from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.store.attestations import INSERT, SELECT, attestation_rows


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """A record and two statements about it."""
    path = tmp_path_factory.mktemp("attested") / "books.sqlite"
    full_store(path)
    first = attest(path, "auditor", path.parent / "a.zip")
    attest(path, "downstream", path.parent / "d.zip", record=first.row.record_digest)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def copy(books, tmp_path):
    path = tmp_path / "books.sqlite"
    shutil.copy(books, path)
    return path


def difference(path):
    found = check_store(path, LAWS).difference
    return None if found is None else f"{found.table}, {found.key}: {found.column}"


def test_what_was_attested_is_good_and_counted(books):
    result = check_store(books, LAWS)
    assert result.difference is None, result_text(result)
    assert result.attestations == 3
    assert "attestations and records are as they were made" in result_text(result)


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE attestations SET why = 'another' WHERE attestation_no = 2", "attestations, attestation_no 2: hash"),
        ("DELETE FROM attestations WHERE attestation_no = 1", "attestations, attestation_no 1: attestation_no"),
        ("DELETE FROM attested", "attested, attestation_no 1: row"),
        ("INSERT INTO attested VALUES (2, '{}')", "attested, attestation_no 2: row"),
        ("UPDATE attested SET material = '{}'", "attested, attestation_no 1: material"),
        ("UPDATE attested SET material = 'x'", "attested, attestation_no 1: material"),
        ("DELETE FROM attestations WHERE attestation_no = 3", "attestations, attestation_no 3: row"),  # its leaf is there
    ],
)  # fmt: skip
def test_what_was_got_at_is_named(copy, sql, named):
    tamper(copy, sql)
    assert (difference(copy) or "nothing").startswith(named)


def test_a_field_of_a_record_that_was_changed_in_its_material_is_named(copy):
    with closing(sqlite3.connect(copy)) as db:
        ((text,),) = db.execute("SELECT material FROM attested").fetchall()
    document = json.loads(text)
    document["record"]["decoys"][0] = "A" * 43
    tamper(copy, "UPDATE attested SET material = ?", json.dumps(document))
    assert (difference(copy) or "nothing").startswith("attested, attestation_no 1: material, its digest")


def rewritten(path, change):
    """The table as `change` would have it, chained anew, in a log that was made anew; heads as they were."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        rows = attestation_rows(db.execute(SELECT).fetchall())
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DELETE FROM attestations")
        before = NO_HASH
        for row in rows:
            bare: AttestationRow = change(row)._replace(prev_hash=before)
            sealed = bare._replace(hash=row_hash(bare))
            db.execute(INSERT, sealed)
            before = sealed.hash
        for name in ("checkpoints", "tiles"):
            db.execute(f"DELETE FROM {name}")  # else the heads say it first
        for _, sql in triggers:
            db.execute(sql)
    relog(path)


def test_a_statement_that_names_a_head_that_was_never_signed_is_named(copy):
    rewritten(copy, lambda row: row)
    assert (difference(copy) or "nothing").startswith("attestations, attestation_no 2: detail, its head")


def test_a_statement_that_was_logged_before_its_record_is_named(copy):
    """The leaves of both, in the other order, under heads that were never signed."""
    with closing(sqlite3.connect(copy)) as db:
        ranges = db.execute(
            "SELECT first_index, first_number, count, hashes FROM log WHERE kind = 'attestation' ORDER BY 1"
        ).fetchall()
    assert len(ranges) == 3
    from flopmeter.collector.check.attestation_check import check_attestations
    from flopmeter.collector.check.rederive import Difference
    from flopmeter.collector.report.queries import reading

    order = {1: 9, 2: 5, 3: 12}
    with reading(copy) as reader, pytest.raises(Difference, match="leaf's index"):
        check_attestations(reader, lambda _kind, number: order[number])
    with reading(copy) as reader, pytest.raises(Difference, match="leaf's index"):
        check_attestations(reader, lambda _kind, number: None if number == 1 else 20)
