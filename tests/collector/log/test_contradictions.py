"""Nothing is signed, proven or exported over a contradiction: a bit that flipped, a row that somebody changed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from builders import Chain
from desk import Desk
from log_rig import now, opened, take, tamper

from flopmeter.collector.errors import LogForkedError
from flopmeter.collector.log.append import Appender


def sealed_store(path: Path, key, monkeypatch) -> None:
    """300 leaves under a head, and 300 more behind it, in many rows."""
    with Desk(path) as desk:
        take(desk, Chain(), 3)
        desk.commit()
    with opened(path) as log:
        db = log._connection
        for upto in (400, 700):
            db.execute("BEGIN IMMEDIATE")
            have = db.execute("SELECT coalesce(max(loss_no), 0) FROM losses").fetchone()[0]
            db.executemany(
                "INSERT INTO losses VALUES (?, 1, 1, 1, 1, 'x')", [(i,) for i in range(have + 1, upto + 1)]
            )
            Appender(db).append()
            db.execute("COMMIT")
            if upto == 400:
                log.seal(key, now)
            else:
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT INTO losses VALUES (701, 1, 1, 1, 1, 'x')")
                Appender(db).append()
                db.execute("COMMIT")


#: What is changed, and what is said of it. `?1` is a blob of the column with one bit turned.
BITS = {
    "hash of a new leaf": ("log", "hashes", "first_index >= {size} AND count > 1", -1, "which the row now gives"),
    "hash of an old leaf at the edge": ("log", "hashes", "first_index + count = {size}", -1, "continues|lead"),
    "hash in a tile": ("tiles", "hashes", "level = 1", 0, "continue"),
    "root of the last head": ("checkpoints", "root", "1", 5, "signed head"),
}  # fmt: skip


@pytest.mark.parametrize("what", BITS)
def test_a_flipped_bit_in_what_is_stored_is_found_before_anything_is_signed(path, key, monkeypatch, what):
    table, column, where, byte, said = BITS[what]
    sealed_store(path, key, monkeypatch)
    with opened(path) as log:
        where = where.format(size=log.latest().size)
    with closing(sqlite3.connect(path)) as db:
        blob = bytearray(db.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()[0])
    blob[byte] ^= 4
    tamper(path, f"UPDATE {table} SET {column} = ? WHERE {where}", bytes(blob))
    with opened(path) as log:
        with pytest.raises(LogForkedError, match=said):
            log.seal(key, now)
        assert len(list(log.checkpoints())) == 1
    blob[byte] ^= 4  # with the bit as it was, it goes on
    tamper(path, f"UPDATE {table} SET {column} = ? WHERE {where}", bytes(blob))
    with opened(path) as log:
        assert log.seal(key, now).size == log.size


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE losses SET reason = 'y' WHERE loss_no = 650", "which the row now gives"),
        ("DELETE FROM losses WHERE loss_no = 650", "expected loss_no 650, found none"),
        ("UPDATE log SET kind = 'event' WHERE first_number > 400", "expected event_no"),
        ("DELETE FROM log WHERE first_number = 701", "nothing"),
        ("DELETE FROM log WHERE first_number < 300 AND kind = 'loss'", "expected the hashes of leaves"),
        ("DELETE FROM tiles", "expected 1 hashes, got 0"),
        ("UPDATE tiles SET hashes = zeroblob(length(hashes))", "continue"),
        ("UPDATE checkpoints SET note = note || 'x'", "signed head"),
        ("UPDATE checkpoints SET size = size - 1", "signed head"),
        ("UPDATE log_identity SET salt = zeroblob(32)", "which the row now gives"),
    ],
)
def test_what_somebody_changed_in_the_store_is_not_signed(path, key, monkeypatch, sql, said):
    sealed_store(path, key, monkeypatch)
    tamper(path, sql)
    with opened(path) as log:
        if said == "nothing":  # what is gone behind the last head leaves a log that continues it: fsck tells
            assert log.seal(key, now).size == log.size
            return
        with pytest.raises(LogForkedError, match=said):
            log.seal(key, now)
        assert len(list(log.checkpoints())) == 1


def test_a_record_that_was_changed_after_it_was_logged_is_not_signed_over(path, key):
    with Desk(path) as desk:
        take(desk, Chain(), 3)
        desk.commit()
        raw = bytearray(desk.rows("SELECT record FROM records WHERE position = 2")[0][0])
    raw[-1] ^= 1
    tamper(path, "UPDATE records SET record = ? WHERE position = 2", bytes(raw))
    with opened(path) as log, pytest.raises(LogForkedError, match="which the row now gives"):
        log.seal(key, now)


def test_the_log_behind_a_head_that_is_gone_is_not_signed(path, key, monkeypatch):
    sealed_store(path, key, monkeypatch)
    tamper(path, "DELETE FROM log WHERE first_index > 0")
    with opened(path) as log, pytest.raises(LogForkedError, match="expected at least"):
        log.seal(key, now)


def test_a_proof_that_does_not_lead_to_a_signed_head_is_not_given_out(path, key, monkeypatch):
    sealed_store(path, key, monkeypatch)
    with opened(path) as log:
        size = log.seal(key, now).size
        old = [c.size for c in log.checkpoints()][-1]
    with closing(sqlite3.connect(path)) as db:
        first, blob = db.execute("SELECT first_index, hashes FROM log WHERE kind = 'loss' LIMIT 1").fetchone()
    tamper(path, "UPDATE log SET hashes = ? WHERE first_index = ?", bytes([blob[0] ^ 1]) + blob[1:], first)
    with opened(path) as log:
        for call in (
            lambda: log.inclusion(first, size),
            lambda: log.inclusion(first + 1, size),
            lambda: log.many([first, first + 7], size),
            lambda: log.leaf(first),
        ):
            with pytest.raises(LogForkedError):
                call()
        assert log.consistency(old, size)  # that part of the tree lies in a tile of its own


#: What is changed. Behind it the log goes on.
LASTING = {
    "hash in a tile": ["UPDATE tiles SET hashes = zeroblob(length(hashes))"],
    "hash of an old leaf": ["UPDATE log SET hashes = zeroblob(length(hashes)) WHERE first_index + count = 404"],
    "the log's end": ["DELETE FROM log WHERE first_index > 0", "DELETE FROM losses WHERE loss_no > 100"],
}  # fmt: skip


@pytest.mark.parametrize("what", LASTING)
def test_a_contradiction_is_said_alike_while_the_log_grows(path, key, monkeypatch, what):
    """Each text is an event: a log that goes on must not make one at each try."""
    sealed_store(path, key, monkeypatch)
    for sql in LASTING[what]:
        tamper(path, sql)
    said = set()
    with opened(path) as log:
        db = log._connection
        for _ in range(3):
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO losses SELECT max(loss_no) + 1, 1, 1, 1, 1, 'x' FROM losses")
            Appender(db).append()
            db.execute("COMMIT")
            with pytest.raises(LogForkedError) as failed:
                log.seal(key, now)
            said.add(str(failed.value))
    assert len(said) == 1
