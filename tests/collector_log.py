"""A collector's store with its evidence log, for tests of what stands beside it: records in, heads out, copies made."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from builders import Chain
from desk import Desk

from flopmeter.collector.keys import log_key
from flopmeter.collector.log.checkpoint import Checkpoint
from flopmeter.collector.log.evidence_log import EvidenceLog


class LoggedStore:
    """A store whose log has the key in `keys`; every call opens and closes it, as processes do."""

    def __init__(self, folder: Path, keys: Path, node: str = "n1", origin: str = "lab.example/log") -> None:
        self.folder, self.path, self.node = folder, folder / "books.db", node
        self.signer = log_key(keys)
        self._chain = Chain(node)
        self._origin = origin
        self._now_ns = 0
        folder.mkdir(parents=True, exist_ok=True)

    def grow(self, records: int = 1) -> "LoggedStore":
        """That many more records in the books, each a leaf; committed, under no head yet."""
        with Desk(self.path) as desk:
            desk.now += self._now_ns
            agent = desk.agent(self._chain)
            for _ in range(records):
                desk.offer(agent, self._chain.next())
                desk.now += 60_000_000_000
                self._now_ns += 60_000_000_000
            desk.commit()
        return self

    def seal(self) -> Checkpoint:
        with closing(self.open()) as db:
            log = EvidenceLog(db)
            if log.identity is None:
                log.fix_identity(self._origin, self.signer)
            return log.seal(self.signer, lambda: 1_790_000_000_000_000_000 + self._now_ns)

    def open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, isolation_level=None)

    @property
    def vkey(self) -> str:
        with closing(self.open()) as db:
            identity = EvidenceLog(db).identity
            assert identity is not None
            return identity.vkey

    def latest(self) -> Checkpoint:
        with closing(self.open()) as db:
            found = EvidenceLog(db).latest()
            assert found is not None
            return found

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with closing(self.open()) as db:
            return db.execute(sql).fetchall()

    def copy(self, folder: Path, node: str | None = None) -> "LoggedStore":
        """As a backup is made, or a fork begins: the same log and key, another place. `node`: whose records come there."""
        folder.mkdir(parents=True, exist_ok=True)
        with closing(self.open()) as db, closing(sqlite3.connect(folder / "books.db")) as to:
            db.backup(to)
        other = LoggedStore.__new__(LoggedStore)
        other.__dict__.update(self.__dict__)
        other.folder, other.path = folder, folder / "books.db"
        if node is not None:
            other.node, other._chain = node, Chain(node)
        return other

    def restore(self, backup: "LoggedStore") -> "LoggedStore":
        """The store as it was when the copy was made. From now on another agent's records come."""
        for part in self.folder.glob("books.db*"):
            part.unlink()
        shutil.copy(backup.path, self.path)
        self._chain = Chain(f"{self.node}-later")
        return self
