"""fsck on the evidence log: one byte or row changed in any table of it, or in a row that it holds, is named."""

import hashlib
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import date

import pytest
from builders import Chain, busy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from relog import relog

from flopmeter.collector.check.fsck import check_store, result_document, result_text
from flopmeter.collector.check.log_tree import EMPTY, Growing
from flopmeter.collector.keys import LogKey
from flopmeter.collector.law import thresholds
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.log import checkpoint as notes
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.say import say
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.evidence import merkle
from flopmeter.witness.keys import _key as witness_key

LOW = tuple(
    replace(r, threshold_flop=6 * 10**16 + 10**15 * i, status_as_of=date(2026, 1, 22))
    for i, r in enumerate(shipped())
)
KEY = LogKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER_KEY = LogKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
ORIGIN = "log.example"
WITNESS = witness_key("w.example", 4, bytes(range(2, 34)))


def seal(path, key=KEY, unix_ns=1):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        log = EvidenceLog(db)
        log.fix_identity(ORIGIN, key)
        return log.seal(key, lambda: unix_ns)


def cosign(path, head, key=WITNESS):
    """As the collector keeps what a witness answered."""
    text = notes.body(ORIGIN, head.size, head.root)
    line = key.cosign(text, ORIGIN, head.size, head.root, 1_750_000_000).decode().removesuffix("\n")
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT OR REPLACE INTO witnesses VALUES (?, ?, ?, ?, ?, 1, '')",
            (key.name, key.vkey, head.size, head.size, 1_750_000_000),
        )
        db.execute("INSERT INTO cosignatures VALUES (?, ?, ?, 1)", (head.number, key.name, line))
        db.commit()


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    """300 records, events, what people said, three heads of which the second is cosigned, and a tail without one."""
    path = tmp_path_factory.mktemp("logged") / "books.sqlite"
    with Desk(path, LOW) as desk:
        chain = Chain("n1", gpus=1)
        agent = desk.agent(chain)

        def book(count):
            for _ in range(count):
                desk.offer(agent, chain.next([busy(0)]))
            desk.commit()

        book(1)
        seal(path)
        say(
            path,
            lambda _: Declare("r1", budget_flop=10**25),
            who="ann",
            why="planned",
            unix_ns=lambda: desk.now,
        )
        for _ in range(6):
            book(48)
        cosign(path, seal(path))
        book(10)
        seal(path)
        book(1)
        say(
            path,
            lambda _: Declare("r2", budget_flop=10**24),
            who="ann",
            why="planned",
            unix_ns=lambda: desk.now,
        )
    return path


@pytest.fixture
def copy(books, tmp_path):
    path = tmp_path / "books.sqlite"
    shutil.copy(books, path)
    return path


def changed(store, *statements):
    """Run statements with the triggers out of the way, as somebody with the file at hand can."""
    with closing(sqlite3.connect(store)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        for sql in statements:
            assert db.execute(sql).rowcount, f"nothing was changed by {sql}"
        for _, sql in triggers:
            db.execute(sql)
        db.commit()


def difference(path):
    found = check_store(path, LOW).difference
    return None if found is None else f"{found.table}, {found.key}: {found.column}"


def test_a_good_log_is_good_and_counted(books):
    result = check_store(books, LOW)
    assert result.difference is None, result_text(result)
    assert result.checkpoints == 3
    assert result.leaves > 300
    assert result.notes == ("the last 1 entries were not yet judged by: no collector has committed since",)
    assert result_document(result)["leaves"] == result.leaves
    assert "signed heads" in result_text(result)


# The last byte becomes another one, whatever it was: x'00' alone would leave one in 256 as it is.
ANOTHER = "CASE WHEN substr({0}, -1) = x'00' THEN x'01' ELSE x'00' END"
FLIP_HASHES = f"UPDATE log SET hashes = CAST(substr(hashes, 1, length(hashes) - 1) || {ANOTHER.format('hashes')} AS BLOB) WHERE {{}}"
FLIP_ROOT = f"UPDATE checkpoints SET root = CAST(substr(root, 1, 31) || {ANOTHER.format('root')} AS BLOB) WHERE checkpoint_no = {{}}"


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        # Leaves
        (FLIP_HASHES.format("kind = 'batch' AND first_number = 2"), "checkpoints, checkpoint_no 2: root"),
        (FLIP_HASHES.format("kind = 'event' AND first_number = 1"), "checkpoints, checkpoint_no"),
        (FLIP_HASHES.format("first_index = (SELECT max(first_index) FROM log)"), "log, leaf of batch 300: hashes"),
        ("DELETE FROM log WHERE first_index = (SELECT max(first_index) FROM log)", "log, leaf of batch 300: hashes"),
        ("DELETE FROM log WHERE kind = 'batch' AND first_number = 2", "log, first_index"),
        ("DELETE FROM log WHERE kind = 'entry'", "log, first_index"),
        ("UPDATE log SET kind = 'answer' WHERE kind = 'entry'", "answers, answer_no 1: row"),
        ("UPDATE log SET kind = 'mine' WHERE kind = 'entry'", "log, first_index"),
        ("UPDATE log SET first_number = first_number + 1 WHERE kind = 'entry'", "log, first_index"),
        ("UPDATE log_identity SET salt = zeroblob(32)", "log, leaf of batch 1: hashes"),
        # Tiles
        ("UPDATE tiles SET hashes = zeroblob(32) WHERE level = 1 AND number = 0", "tiles, level 1, number 0: hashes"),
        ("DELETE FROM tiles", "tiles, level 1: hashes"),
        ("INSERT INTO tiles VALUES (1, 1, zeroblob(32))", "tiles, level 1, number 1: number"),
        ("INSERT INTO tiles VALUES (2, 0, zeroblob(32))", "tiles, level 2, number 0: hashes"),
        # Heads
        (FLIP_ROOT.format(1), "checkpoints, checkpoint_no 1: note, its root"),
        (FLIP_ROOT.format(3), "checkpoints, checkpoint_no 3: note, its root"),
        ("UPDATE checkpoints SET size = size - 1 WHERE checkpoint_no = 3", "checkpoints, checkpoint_no 3: note, its size"),
        ("UPDATE checkpoints SET size = 1 WHERE checkpoint_no = 3", "checkpoints, checkpoint_no 3: size"),
        ("UPDATE checkpoints SET note = replace(note, 'log.example', 'log.examplf')", "checkpoints, checkpoint_no 1: note"),
        ("UPDATE checkpoints SET note = substr(note, 1, length(note) - 2) WHERE checkpoint_no = 2", "checkpoint_no 2: note"),
        ("UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE checkpoint_no = 1) WHERE checkpoint_no = 2", "checkpoint_no 2: note, its size"),
        ("DELETE FROM checkpoints WHERE checkpoint_no = 1", "checkpoints, checkpoint_no 2: checkpoint_no"),
        ("UPDATE log_identity SET origin = 'another'", "log_identity, one 1: vkey, its name"),
        ("UPDATE log_identity SET vkey = replace(vkey, '+', '-')", "log_identity, one 1: vkey"),
        ("UPDATE log_identity SET vkey = NULL, origin = NULL", "log_identity, checkpoint_no 1: vkey"),
        # Witnesses
        ("UPDATE cosignatures SET checkpoint_no = 3", "cosignatures, checkpoint_no 3, key_name w.example: line"),
        ("UPDATE cosignatures SET line = substr(line, 1, length(line) - 4) || 'AAA='", "cosignatures, checkpoint_no 2, key_name w.example: line"),
        ("UPDATE cosignatures SET key_name = 'v.example'", "cosignatures, checkpoint_no 2, key_name v.example: line, its key's name"),
        ("UPDATE cosignatures SET checkpoint_no = 9", "cosignatures, checkpoint_no 9: row"),
        ("UPDATE witnesses SET vkey = replace(vkey, 'w.', 'v.')", "witnesses, key_name w.example: vkey"),
        # Rows of which nothing but their leaf speaks
        ("UPDATE records SET received_unix_ns = received_unix_ns + 1 WHERE position = 7", "log, leaf of batch 7: hashes"),
        ("UPDATE law_changes SET from_unix_ns = from_unix_ns + 1 WHERE change_no = 1", "log, leaf of law 1: hashes"),
        ("DELETE FROM law_changes WHERE change_no = (SELECT max(change_no) FROM law_changes)", "law_changes, change_no"),
    ],
)  # fmt: skip
def test_what_was_got_at_is_named(copy, statement, named):
    changed(copy, statement)
    assert named in (difference(copy) or "nothing")


@pytest.mark.parametrize("kind", ["batch", "event", "entry", "law", "deadline", "access"])
def test_a_log_that_was_made_anew_over_changed_rows_does_not_fit_the_heads(copy, kind):
    """Whoever may write the file and has no key: leaves made to fit the rows again."""
    sql = {
        "batch": "UPDATE records SET received_unix_ns = received_unix_ns + 1 WHERE position = 7",
        "event": "UPDATE events SET data = replace(data, 'not a measure of risk', 'no matter') WHERE event_no = 1",
        "entry": "UPDATE entries SET why = 'never' WHERE entry_no = 1",
        "law": "UPDATE law_changes SET from_unix_ns = from_unix_ns + 1 WHERE change_no = 1",
        "deadline": "UPDATE deadlines SET opened_unix_ns = opened_unix_ns + 1 WHERE deadline_no = 1",
        "access": "UPDATE access SET unix_ns = unix_ns + 1 WHERE access_no = 1",
    }[kind]
    changed(copy, sql)
    assert difference(copy) is not None
    relog(copy)
    assert difference(copy) is not None


def test_heads_of_another_key_are_not_the_logs(copy):
    """The whole log made anew and signed with a key of one's own: it is another log, and says so."""
    changed(
        copy,
        "UPDATE records SET received_unix_ns = received_unix_ns + 1 WHERE position = 7",
        "DELETE FROM checkpoints",
        "DELETE FROM tiles",
        "DELETE FROM cosignatures",
    )
    relog(copy)
    with closing(sqlite3.connect(copy)) as db:
        (vkey,) = db.execute("SELECT vkey FROM log_identity").fetchone()
    changed(copy, f"UPDATE log_identity SET vkey = '{notes.vkey(ORIGIN, OTHER_KEY.public)}'")
    seal(copy, OTHER_KEY)
    assert (
        difference(copy) is None
    )  # it is good: under another key. Who knows the first one sees that it is not its log.
    changed(copy, f"UPDATE log_identity SET vkey = '{vkey}'")
    assert difference(copy) == "checkpoints, checkpoint_no 1: note"


def test_a_timestamp_over_something_else_is_named(copy):
    """Whose it is nobody here can say; that it is of that head, the digest in it does."""
    with closing(sqlite3.connect(copy)) as db:
        (note,) = db.execute("SELECT note FROM checkpoints WHERE checkpoint_no = 2").fetchone()
        text = note.encode().partition(b"\n\n")[0] + b"\n"
        token = b"\x30\x82" + hashlib.sha512(text).digest() + b"\0" * 8
        db.execute("INSERT INTO timestamps VALUES (2, 'https://tsa.example', ?, 1)", (token,))
        db.commit()
    result = check_store(copy, LOW)
    assert result.difference is None, result_text(result)
    assert any(note.startswith("timestamps that are of their heads: 1.") for note in result.notes)
    changed(copy, "UPDATE timestamps SET checkpoint_no = 3")
    assert difference(copy) == "timestamps, checkpoint_no 3, tsa https://tsa.example: token"


def test_records_without_leaves_are_told_of_where_no_head_was_signed_and_named_where_one_was(copy, tmp_path):
    """A start that was killed while it made the log of an older store: the next one goes on."""
    last = "DELETE FROM log WHERE first_index = (SELECT max(first_index) FROM log)"
    changed(copy, last)
    assert difference(copy) == "log, leaf of batch 300: hashes"
    changed(copy, "DELETE FROM checkpoints", "DELETE FROM tiles", "DELETE FROM cosignatures")
    result = check_store(copy, LOW)
    assert result.difference is None, result_text(result)
    assert any("no head was ever signed: 1" in note for note in result.notes)
    store = SqliteStore(copy)
    store.backfill_log()
    store.close()
    assert not any("no head" in note for note in check_store(copy, LOW).notes)


# ---- sentences -----------------------------------------------------------------------------------


def reworded(patch):
    """A flopmeter that words its events otherwise."""
    patch.setattr(thresholds, "NOT_RISK", "Compute says nothing of risk.")


def test_a_store_with_other_sentences_passes_once_a_signed_head_holds_them(tmp_path):
    path = tmp_path / "books.sqlite"
    with pytest.MonkeyPatch.context() as then:
        reworded(then)
        with Desk(path, LOW) as desk:
            chain = Chain("n1", gpus=1)
            agent = desk.agent(chain)
            for _ in range(30):
                desk.offer(agent, chain.next([busy(0)]))
                desk.commit()
            assert desk.rows("SELECT count(*) FROM events WHERE data LIKE '%says nothing of risk%'")[0][0] > 3
        assert difference(path) is None
    assert (difference(path) or "").startswith(
        "events, event 1"
    )  # nothing yet says that these were the words of then
    head = seal(path)
    assert difference(path) is None
    assert head.size

    for sql, named in (
        # A sentence that was changed since it was logged …
        (
            "UPDATE events SET data = replace(data, 'says nothing of', 'is no') WHERE event_no = 1",
            "events, event 1",
        ),
        # … and facts, each in an event whose leaf was made to fit, so that nothing but the books speaks against it.
        (
            "UPDATE events SET data = json_set(data, '$.counted.lower', '1') WHERE event_no = 2",
            "events, event 2",
        ),
        (
            "UPDATE events SET data = json_set(data, '$.verdict', 'below') WHERE event_no = 2",
            "events, event 2",
        ),
        ("UPDATE events SET data = json_remove(data, '$.due') WHERE event_no = 2", "events, event 2"),
        ("UPDATE events SET data = json_set(data, '$.more', '1') WHERE event_no = 2", "events, event 2"),
    ):
        copy = tmp_path / "copy.sqlite"
        shutil.copy(path, copy)
        changed(copy, sql)
        assert named in (difference(copy) or "nothing"), sql
        copy.unlink()


@pytest.mark.parametrize("change", ["$.counted.lower", "$.entries", "$.threshold_flop"])
def test_a_fact_that_was_false_when_it_was_logged_is_named_whatever_signed_it(tmp_path, change):
    """The collector itself wrote it so, and signed it: its leaf is good, and the books say otherwise."""
    path = tmp_path / "books.sqlite"
    with Desk(path, LOW) as desk:
        chain = Chain("n1", gpus=1)
        agent = desk.agent(chain)
        for _ in range(30):
            desk.offer(agent, chain.next([busy(0)]))
            desk.commit()
    changed(path, f"UPDATE events SET data = json_set(data, '{change}', '7') WHERE event_no = 2")
    relog(path)
    seal(path)
    assert "event 2" in (difference(path) or "nothing")


# ---- the tree ------------------------------------------------------------------------------------


def slow_root(leaves):
    """MTH of RFC 6962 2.1, as it is written there."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return merkle.node_hash(slow_root(leaves[:k]), slow_root(leaves[k:]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700))
def test_the_tree_is_that_of_rfc_6962_at_every_size(size):
    tree, leaves = Growing(), [merkle.leaf_hash(b"%d" % i) for i in range(size)]
    for leaf in leaves:
        tree.add(leaf)
    assert tree.root == slow_root(leaves)
    assert bytes(tree.levels.get(1, b"")) == b"".join(
        slow_root(leaves[i : i + 256]) for i in range(0, size // 256 * 256, 256)
    )
