"""The evidence log of a store: what is appended when, what it proves, and that nothing is signed over a contradiction."""

import sqlite3
from hashlib import sha256

import duty_books
import pytest
import rfc8785
from builders import UNIX_NS, Chain
from desk import Desk
from evidence_reference import tree_root
from faulty_sqlite import COMMIT, Crash, Faults
from hypothesis import given, settings
from hypothesis import strategies as st
from log_rig import answer, check_whole, insert, keep, kinds, leaves_of, now, opened, say, take
from old_stores import first_schema

from flopmeter.collector.errors import LogError, StoreError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.log import seal as seal_module
from flopmeter.collector.log.append import ROW_LEAVES, Appender, waiting
from flopmeter.collector.log.entry import KINDS, Salts, row_body
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.evidence.merkle import (
    leaf_hash,
    root_from_many,
    verify_consistency,
    verify_inclusion,
)

# --- leaves ---


def test_a_batch_leaf_says_what_the_record_says_and_its_hash(path):
    chain = Chain()
    with Desk(path) as desk:
        take(desk, chain)
        desk.commit()
        raw, received = desk.rows("SELECT record, received_unix_ns FROM records")[0]
        secret = desk.rows("SELECT salt FROM log_identity")[0][0]
    (leaf,) = (leaf for leaf in leaves_of(path) if b'"kind":"batch"' in leaf)
    expected = {
        "agent": chain.agent_id.hex(),
        "hash": sha256(raw).hexdigest(),
        "kind": "batch",
        "received": str(received),
        "salt": Salts(secret).of("batch", 1),
        "seq": "1",
        "v": "1",
        "windowEnd": str(UNIX_NS + 60_000_000_000),
        "windowStart": str(UNIX_NS),
    }
    assert leaf == rfc8785.dumps(expected)


def test_another_leaf_says_the_hash_of_its_row_as_canonical_json(path):
    say(path)
    with opened(path) as log:
        log._connection.execute("BEGIN IMMEDIATE")
        assert log.append_waiting() == 1
        log._connection.execute("COMMIT")
        columns = ["entry_no", "unix_ns", "position", "who", "why", "statement", "prev_hash", "hash"]
        row = log._connection.execute(f"SELECT {', '.join(columns)} FROM entries").fetchone()
        secret = log._connection.execute("SELECT salt FROM log_identity").fetchone()[0]
    body = {
        name: value.hex() if isinstance(value, bytes) else str(value)
        for name, value in zip(columns, row, strict=True)
    }
    expected = {
        "body": sha256(rfc8785.dumps(body)).hexdigest(),
        "kind": "entry",
        "number": "1",
        "salt": Salts(secret).of("entry", 1),
        "v": "1",
    }
    assert leaves_of(path)[-1] == rfc8785.dumps(expected)


def test_a_salt_is_half_of_an_hmac():
    import hmac

    secret = bytes(range(32))
    expected = hmac.new(secret, b"batch:17", "sha256").hexdigest()[:32]
    assert Salts(secret).of("batch", 17) == expected
    assert Salts(secret).of("batch", 18) != expected != Salts(secret).of("event", 17)


def test_every_kinds_columns_are_its_tables(path):
    """A column that is not in the leaf could be changed and nobody would see it."""
    with opened(path) as log:
        for kind in KINDS:
            columns = [r[1] for r in log._connection.execute(f"PRAGMA table_info({kind.table})")]
            if (
                kind.name == "attestation"
            ):  # names are in its row's hash, with a salt: docs/attestation-format.md 7
                assert "hash" in kind.columns
                assert set(kind.columns) < set(columns)
            elif kind.name == "batch":  # the leaf has them from the record's own bytes
                assert set(columns) - set(kind.columns) == {"window_start_s", "hash"}
            else:
                assert list(kind.columns) == columns, kind.name


def test_a_missing_value_is_not_an_empty_one():
    (law,) = (k for k in KINDS if k.name == "law")
    assert b'"until_position":null' in row_body(law, (1, "r", "d", "w", 1, 2, None))
    assert row_body(law, (1, "r", "d", "w", 1, 2, None)) != row_body(law, (1, "r", "d", "w", 1, 2, ""))


# --- when they are appended ---


def test_what_is_committed_is_in_the_log_in_the_same_transaction(path):
    """An ack means an index: not one moment in which a record is stored and not logged."""
    chain = Chain()
    with Desk(path) as desk:
        agent = desk.agent(chain)
        for count in range(1, 4):
            assert desk.offer(agent, chain.next()) is TAKEN
            desk.commit()
            assert desk.rows("SELECT sum(count) FROM log WHERE kind = 'batch'") == [(count,)]
    check_whole(path)


def test_a_failed_commit_leaves_no_leaf_and_the_next_one_takes_its_index(path):
    faults, chain = Faults(), Chain()
    with Desk(path, connect=faults.connect) as desk:
        for before in (True, False):
            agent = desk.agent(chain)
            raw = chain.next()
            assert desk.offer(agent, raw) is TAKEN
            faults.plan(COMMIT, before=before, error=sqlite3.OperationalError("disk I/O error"))
            with pytest.raises(StoreError):
                desk.commit()
            desk.recover()
            agent = desk.agent(chain, oldest_seq=1)
            desk.offer(agent, raw)
            desk.commit()
        for at in (
            "INSERT INTO log",
            "SELECT coalesce",
        ):  # and where it cannot be appended, nothing is stored
            agent = desk.agent(chain, oldest_seq=1)
            assert desk.offer(agent, chain.next()) is TAKEN
            faults.plan(at, before=True)
            with pytest.raises(StoreError):
                desk.commit()
            chain.seq, chain.prev_hash = (
                agent.durable_seq,
                desk.rows("SELECT hash FROM records ORDER BY position DESC")[0][0],
            )
            desk.recover()
        assert desk.rows("SELECT count(*) FROM records") == [(2,)]
    check_whole(path)
    assert kinds(path).count("batch") == 2


def test_one_commit_appends_in_the_order_in_which_it_applies(path):
    one, two = Chain("n", key_seed="1"), Chain("n", key_seed="2")
    with duty_books.opened(path, duty_books.regime()) as desk:
        agents = [desk.agent(chain) for chain in (one, two)]
        desk.commit()
        before = len(leaves_of(path))
        say(path)
        answer(path)
        keep(path)
        token = {"kind": "token-made", "agent_id": b"", "subject": "", "detail": "{}"}
        insert(path, "access", "access_no", unix_ns=1, position=0, **token)
        desk.intake.group.access_no = 3  # it is applied: two agents' admissions, and this
        for agent, chain in zip(agents, (one, two), strict=True):
            assert desk.offer(agent, chain.next()) is TAKEN
        desk.store.books._connection.execute("INSERT INTO judged VALUES ('r', 'd', 'w', 1, 2, NULL)")
        desk.commit()
        order = kinds(path)[before:]
    first = {kind: order.index(kind) for kind in order}
    assert sorted(first, key=first.__getitem__) == [k.name for k in KINDS if k.name in first]
    assert {"access", "entry", "answer", "keeping", "law", "batch", "event"} <= set(first)
    check_whole(path)


def test_changes_of_the_law_are_leaves_and_so_is_their_end(path):
    with Desk(path) as desk:
        desk.commit()
    with opened(path) as log:
        db = log._connection
        db.execute("INSERT INTO judged VALUES ('r', 'd', 'w', 1, 2, NULL)")
        db.execute("UPDATE judged SET until_position = 5 WHERE regime = 'r'")
        assert waiting(db) == {"law": 2}
        db.execute("BEGIN IMMEDIATE")
        assert log.append_waiting() == 2
        db.execute("COMMIT")
        assert waiting(db) == {}
    check_whole(path)


def test_access_rows_wait_until_they_are_applied(path):
    with Desk(path) as desk:
        take(desk, Chain())
        desk.commit()
    for _ in range(2):
        insert(
            path,
            "access",
            "access_no",
            unix_ns=1,
            position=1,
            kind="revoked",
            agent_id=b"",
            subject="",
            detail="{}",
        )
    with opened(path) as log:
        db = log._connection
        db.execute("BEGIN IMMEDIATE")
        assert Appender(db).append_waiting() == 0  # not anybody's to apply
        assert Appender(db).append(access_upto=2) == 1
        assert Appender(db).append(access_upto=2) == 0
        assert Appender(db).append() == 1
        db.execute("COMMIT")
    check_whole(path)


@pytest.mark.parametrize(("applied", "logged"), [(1, 3), (0, 0), (3, 3)])
def test_access_rows_of_the_transaction_itself_are_applied_unless_one_before_them_is_not(
    path, applied, logged
):
    """Row 1 was there; 2 and 3 are written by the transaction that appends: an agent is in the log before its records."""
    for _ in range(3):
        insert(
            path,
            "access",
            "access_no",
            unix_ns=1,
            position=1,
            kind="admitted",
            agent_id=b"",
            subject="",
            detail="{}",
        )
    with opened(path) as log:
        log._connection.execute("BEGIN IMMEDIATE")
        assert Appender(log._connection).append(access_upto=applied, access_new=2) == logged
        log._connection.execute("COMMIT")


def test_the_database_itself_refuses_to_forget(path, key):
    with Desk(path) as desk:
        take(desk, Chain(), 3)
        desk.commit()
    with opened(path) as log:
        log.seal(key, now)
        db = log._connection
        size = log.size
        for sql, said in (
            ("DELETE FROM log", "never deleted"),
            ("UPDATE log SET hashes = zeroblob(32 * count)", "never changed"),
            (f"INSERT INTO log VALUES ({size + 1}, 'batch', 4, 1, zeroblob(32))", "next index"),
            (f"INSERT INTO log VALUES ({size}, 'batch', 5, 1, zeroblob(32))", "next number"),
            (f"INSERT INTO log VALUES ({size}, 'batch', 4, 2, zeroblob(32))", "CHECK"),
            ("INSERT OR REPLACE INTO log SELECT * FROM log LIMIT 1", "next index"),
            ("DELETE FROM checkpoints", "never deleted"),
            ("UPDATE checkpoints SET size = size + 1", "never changed"),
            (f"INSERT INTO checkpoints VALUES (2, {size}, zeroblob(32), 0, 'x')", "larger size"),
            (f"INSERT INTO checkpoints VALUES (3, {size + 9}, zeroblob(32), 0, 'x')", "next number"),
            ("UPDATE log_identity SET origin = 'another'", "keeps its name"),
            ("UPDATE log_identity SET salt = zeroblob(32)", "keeps its name"),
            ("DELETE FROM log_identity", "keeps its name"),
            ("DELETE FROM law_changes", "never deleted"),
        ):
            if "law_changes" in sql and not db.execute("SELECT count(*) FROM law_changes").fetchone()[0]:
                continue
            with pytest.raises(sqlite3.IntegrityError, match=said):
                db.execute(sql)
    check_whole(path)


@pytest.mark.parametrize("kills", [0, 2])
def test_an_older_store_gets_its_log_of_what_is_there(path, monkeypatch, kills):
    """Also when the start that makes it is killed again and again: it goes on where it was."""
    chain = Chain()
    with Desk(path) as desk:
        take(desk, chain, 7)
        desk.commit()
    first_schema(path)
    SqliteStore(path).close()
    with opened(path) as log:
        owed = sum(waiting(log._connection).values())
    assert owed > 7
    if kills:
        monkeypatch.setattr("flopmeter.collector.log.append.BACKFILL_LEAVES", 3)
    for _ in range(kills):  # each start gets one step done, and dies in the second
        faults = Faults()
        store = SqliteStore(path, connect=faults.connect)
        faults.plan(COMMIT, before=True, error=Crash(), skip=1)
        with pytest.raises(Crash):
            store.backfill_log()
        store.close()
    store = SqliteStore(path)
    assert store.backfill_log() == owed - 3 * kills
    assert store.backfill_log() == 0
    store.close()
    check_whole(path)
    with Desk(path) as desk:  # and it goes on from there
        take(desk, chain)
        desk.commit()
    check_whole(path)
    assert kinds(path).count("batch") == 8


def test_a_commit_on_a_store_without_backfill_logs_what_was_left(path):
    chain = Chain()
    with Desk(path) as desk:
        take(desk, chain, 2)
        desk.commit()
    first_schema(path)
    with Desk(path) as desk:
        take(desk, chain)
        desk.commit()
    check_whole(path)
    assert kinds(path).count("batch") == 3


# --- heads and proofs ---


@settings(max_examples=12, deadline=None)
@given(steps=st.lists(st.sampled_from("rrreakscx"), min_size=1, max_size=25), data=st.data())
def test_any_course_of_events_gives_the_log_of_the_definition(steps, data, tmp_path_factory, key):
    """Commits of records, people's words, seals in any order; every proof that is made is accepted, at every size."""
    path = tmp_path_factory.mktemp("log") / "books.sqlite"
    chains = [Chain(f"n{i}", key_seed=str(i)) for i in range(2)]
    with Desk(path) as desk:
        for step in steps:
            match step:
                case "r":
                    take(desk, data.draw(st.sampled_from(chains)))
                case "e":
                    say(path)
                case "a":
                    answer(path)
                case "k":
                    keep(path)
                case "c":
                    desk.commit()
                case "s" | "x":
                    with opened(path) as log:
                        if step == "x":  # another process that appends
                            log._connection.execute("BEGIN IMMEDIATE")
                            log.append_waiting()
                            log._connection.execute("COMMIT")
                        if log.size:
                            assert log.seal(key, now).size == log.size
        say(path)  # something at least
        desk.commit()
    check_whole(path)
    with opened(path) as log:
        size = log.size
        hashes = [leaf_hash(leaf) for leaf in log.leaves(0, size)]
        for n in range(1, size + 1):
            root = tree_root(hashes[:n])
            assert log.root(n) == root
            index = data.draw(st.integers(0, n - 1))
            verify_inclusion(index, n, hashes[index], log.inclusion(index, n), root)
            old = data.draw(st.integers(1, n))
            verify_consistency(old, tree_root(hashes[:old]), n, root, log.consistency(old, n))
        wanted = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
        assert root_from_many(size, {i: hashes[i] for i in wanted}, log.many(wanted, size)) == log.root(size)


def test_proofs_over_many_tiles_and_heads_between(path, key, monkeypatch):
    """Past two levels of tiles, with heads at odd sizes; bulk rows, so that it takes a second."""
    monkeypatch.setattr(seal_module, "STEP_LEAVES", 30_000)
    with opened(path) as log:
        db = log._connection
        for upto in (1, 255, 256, 300, 66_000, 70_001):
            db.execute("BEGIN IMMEDIATE")
            have = db.execute("SELECT coalesce(max(loss_no), 0) FROM losses").fetchone()[0]
            db.executemany(
                "INSERT INTO losses VALUES (?, 1, 1, 1, 1, '')", [(i,) for i in range(have + 1, upto + 1)]
            )
            Appender(db).append()
            db.execute("COMMIT")
            assert log.seal(key, now).size == log.size == upto
        assert [c.size for c in log.checkpoints(newest_first=False)] == [
            1,
            255,
            256,
            300,
            30_300,
            60_300,
            66_000,
            70_001,
        ]
        assert db.execute("SELECT max(count) FROM log").fetchone() == (ROW_LEAVES,)
        assert db.execute(
            "SELECT level, count(*), sum(length(hashes)) / 32 FROM tiles GROUP BY level"
        ).fetchall() == [
            (1, 2, 70_001 // 256),
            (2, 1, 1),
        ]
        hashes = [log._tree._hashes.hashes(0, i, i + 1) for i in (0, 255, 256, 65_535, 65_536, 70_000)]
        for index, found in zip((0, 255, 256, 65_535, 65_536, 70_000), hashes, strict=True):
            for size in (66_000, 70_001):
                if index < size:
                    verify_inclusion(index, size, found, log.inclusion(index, size), log.root(size))
        leaves = [leaf_hash(leaf) for leaf in log.leaves(0, log.size)]
        assert log.latest().root == tree_root(leaves)


def test_nothing_new_gives_the_head_that_there_is(path, key):
    with Desk(path) as desk:
        take(desk, Chain())
        desk.commit()
    with opened(path) as log:
        first = log.seal(key, now)
        assert log.seal(key, lambda: now() + 1) == first
        assert list(log.checkpoints()) == [first]


def test_an_empty_log_is_not_signed(path, key):
    with opened(path) as log, pytest.raises(LogError, match="empty"):
        log.seal(key, now)
    with opened(path) as log:
        assert (log.size, log.identity, log.latest(), log.index_of("batch", 1)) == (0, None, None, None)


def test_what_the_log_has_not_is_named(path, key):
    with Desk(path) as desk:
        take(desk, Chain(), 2)
        desk.commit()
    with opened(path) as log:
        size = log.size
        for call in (
            lambda: log.inclusion(size, size),
            lambda: log.inclusion(-1, size),
            lambda: log.inclusion(0, size + 1),
            lambda: log.consistency(0, size),
            lambda: log.consistency(size, size - 1),
            lambda: log.many([size], size),
            lambda: log.leaf(size),
            lambda: log.leaf_hash(-1),
            lambda: log.root(-1),
        ):
            with pytest.raises(LogError, match="expected"):
                call()


def test_a_log_keeps_its_name_and_its_key(path, key):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from flopmeter.collector.keys import LogKey

    with Desk(path) as desk:
        take(desk, Chain())
        desk.commit()
    with opened(path) as log:
        with pytest.raises(LogError, match="without space and plus"):
            log.fix_identity("a log", key)
        assert log.fix_identity("lab.example/log", key).origin == "lab.example/log"
        assert log.fix_identity("", key).origin == "lab.example/log"
        with pytest.raises(LogError, match="under which this log was begun"):
            log.fix_identity("other.example/log", key)
        other = LogKey(Ed25519PrivateKey.generate())
        for call in (lambda: log.fix_identity("", other), lambda: log.seal(other, now)):
            with pytest.raises(LogError, match="log key: expected"):
                call()
        assert log.latest() is None
        assert log.seal(key, now).note.startswith(b"lab.example/log\n")


def test_cosignatures_stand_under_the_note(path, key):
    with Desk(path) as desk:
        take(desk, Chain())
        desk.commit()
    with opened(path) as log:
        plain = log.seal(key, now).note
        line = "\N{EM DASH} witness.example AAAA"
        log._connection.execute("INSERT INTO cosignatures VALUES (1, 'witness.example', ?, 5)", (line,))
        assert log.latest().note == plain + f"{line}\n".encode()
        assert log.seal(key, now).note == plain + f"{line}\n".encode()
