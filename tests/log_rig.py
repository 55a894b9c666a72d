"""A store's evidence log for tests: opened, tampered with, and held against a slow reference."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from evidence_reference import tree_root

from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.evidence.merkle import leaf_hash
from flopmeter.evidence.note import parse_checkpoint, parse_key, signers


@contextmanager
def opened(path: Path) -> Iterator[EvidenceLog]:
    """As a command opens it."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
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
