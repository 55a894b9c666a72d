"""A store's evidence log for tests: opened, tampered with, and held against a slow reference."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

from builders import UNIX_NS, Chain
from desk import Desk
from evidence_reference import tree_root
from registry_entries import entry

from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.registry.codec import to_row
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.store.entries import SqliteEntries
from flopmeter.evidence.merkle import leaf_hash
from flopmeter.evidence.note import parse_checkpoint, parse_key, signers


@contextmanager
def opened(path: Path) -> Iterator[EvidenceLog]:
    """As a command opens it."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        yield EvidenceLog(connection)


def leaves_of(path: Path) -> list[bytes]:
    with opened(path) as log:
        return list(log.leaves(0, log.size))


def tamper(path: Path, sql: str, *values: object) -> None:
    """Change what is stored as somebody does who can write the file: past every trigger, which then stand again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        assert db.execute(sql, values).rowcount > 0, "nothing was changed"
        for _, text in triggers:
            db.execute(text)


def check_whole(path: Path) -> None:
    """All that the log says of itself, against the definitions: leaves, indexes, roots, heads, signatures."""
    with opened(path) as log:
        leaves = list(log.leaves(0, log.size))
        hashes = [leaf_hash(leaf) for leaf in leaves]
        assert [log.leaf_hash(i) for i in range(log.size)] == hashes
        next_of: dict[str, int] = {}
        for index, leaf in enumerate(leaves):
            said = json.loads(leaf)
            assert len(leaf) <= 1024
            assert all(isinstance(value, str) for value in said.values())
            kind = said["kind"]
            number = int(said.get("number", next_of.get(kind, 1)))
            assert number == next_of.get(kind, 1)  # each kind by its numbers, without holes
            next_of[kind] = number + 1
            assert log.index_of(kind, number) == index
            assert log.at(index)[1] == number
        for kind, number in next_of.items():
            assert log.index_of(kind, number) is None
        identity = log.identity
        before = 0
        for number, head in enumerate(log.checkpoints(newest_first=False), 1):
            assert identity is not None
            assert (head.number, head.origin) == (number, identity.origin)
            assert before < head.size <= log.size
            assert head.root == tree_root(hashes[: head.size])
            note = parse_checkpoint(head.note)
            assert (note.origin, note.size, note.root) == (head.origin, head.size, head.root)
            assert set(signers(note, [parse_key(identity.vkey)])) == {parse_key(identity.vkey)}
            before = head.size


def now() -> int:
    return UNIX_NS


def say(path: Path, run: str = "r1") -> None:
    """An entry, as a command beside the collector makes it."""
    with SqliteEntries(path) as log:
        log.append_entry(lambda last: to_row(entry(last.entry_no + 1, Declare(run, owner="ada")), last.hash))


def insert(path: Path, table: str, key: str, **values: object) -> None:
    """A row of another table of words, chained as its trigger asks."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as db:
        db.execute("BEGIN IMMEDIATE")
        last = db.execute(f"SELECT {key}, hash FROM {table} ORDER BY {key} DESC LIMIT 1").fetchone()
        number, prev = (last[0] + 1, last[1]) if last else (1, bytes(32))
        row = {key: number, **values, "prev_hash": prev, "hash": sha256(prev).digest()}
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        db.execute("COMMIT")


def answer(path: Path) -> None:
    said = {"state": "acknowledged", "who": "ada", "why": "seen", "detail": "{}"}
    insert(path, "answers", "answer_no", about="event", number=1, unix_ns=7, position=0, **said)


def keep(path: Path) -> None:
    said = {"kind": "hold", "run": "r1", "value": "", "who": "ada", "why": "court"}
    insert(path, "retention", "said_no", unix_ns=7, position=0, **said)


def take(desk: Desk, chain: Chain, count: int = 1) -> None:
    agent = desk.agent(chain)
    for _ in range(count):
        assert desk.offer(agent, chain.next()) is TAKEN


def kinds(path: Path) -> list[str]:
    return [json.loads(leaf)["kind"] for leaf in leaves_of(path)]
