"""The witness's memory: the latest head of each log that it cosigned, one row per log, in SQLite.

What is checked and what is written lie in one transaction (BEGIN IMMEDIATE), so that neither two requests at once nor two
processes on one file can cosign two heads of which one is no continuation of the other. It is fsynced when the transaction
ends, and only then does a cosignature leave.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import StateError

#: "FMwt"; another program's database is not taken for ours.
APPLICATION_ID = 0x464D7774
SCHEMA_VERSION = 1
#: How long a second process on the same file is waited for.
BUSY_TIMEOUT_MS = 5_000
#: Refused heads kept of each log: each was signed by its key.
MAX_REFUSED = 100

_SCHEMA = f"""
CREATE TABLE heads (
    origin TEXT PRIMARY KEY NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    root BLOB NOT NULL CHECK (length(root) = 32),
    unix_s INTEGER NOT NULL,
    note BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER heads_only_grow BEFORE UPDATE ON heads
WHEN NEW.origin <> OLD.origin OR NEW.size < OLD.size OR NEW.unix_s < OLD.unix_s
     OR (NEW.size = OLD.size AND NEW.root <> OLD.root)
BEGIN SELECT RAISE(ABORT, 'a head that was cosigned never shrinks and never changes'); END;
CREATE TRIGGER heads_stay BEFORE DELETE ON heads
BEGIN SELECT RAISE(ABORT, 'a head that was cosigned is never forgotten'); END;
CREATE TABLE refused (
    origin TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    head_size INTEGER NOT NULL,
    unix_s INTEGER NOT NULL,
    note BLOB NOT NULL,
    PRIMARY KEY (origin, size, root)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The latest head of one log that was cosigned; `note` with the log's signatures and ours."""

    origin: str
    size: int
    root: bytes
    unix_s: int
    note: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A head that the log's key signed and that was not shown to follow from the one of `head_size`, which was cosigned.

    At the same size it has another root, and both together prove that the log forked. A larger one may only have come with
    a wrong proof, which anybody can send who has seen it.
    """

    origin: str
    size: int
    root: bytes
    head_size: int
    unix_s: int
    note: bytes


class Heads:
    """Opened once, used from many threads: one at a time."""

    def __init__(self, path: Path) -> None:
        """Open `path`, or make it. Raises StateError."""
        self._path, self._lock = path, threading.Lock()
        try:
            _make_private(path)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as e:
            raise StateError(
                f"state {path}: cannot be opened: {_reason(e)}", "name a file that this user may write"
            ) from e
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        try:
            self._db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            with self.transaction():
                mark = self._db.execute("PRAGMA application_id").fetchone()[0]
                empty = not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
                if mark == 0 and empty:
                    for statement in _statements(_SCHEMA):
                        self._db.execute(statement)
                    return
                version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as e:
            raise StateError(
                f"state {self._path}: cannot be read: {_reason(e)}",
                "restore nothing older: a witness that forgets can be made to cosign a fork; take a new key and a new state",
            ) from e
        if mark != APPLICATION_ID or version != SCHEMA_VERSION:
            raise StateError(
                f"state {self._path}: expected a witness's state of version {SCHEMA_VERSION}, got another database",
                "name another file with --state",
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, with nobody else in between. Durable when it has ended; raises sqlite3.Error if it is not."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")  # D2: the head is durable; only now may the cosignature leave
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def head(self, origin: str) -> Head | None:
        """The latest cosigned head of a log. To be called within a transaction."""
        row = self._db.execute(
            "SELECT origin, size, root, unix_s, note FROM heads WHERE origin = ?", (origin,)
        ).fetchone()
        return Head(*row) if row is not None else None

    def put(self, head: Head) -> None:
        """Within a transaction. Raises sqlite3.Error if it is smaller or older than what stands, or another at its size."""
        self._db.execute(
            "INSERT INTO heads (origin, size, root, unix_s, note) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (origin) DO UPDATE SET size = excluded.size, root = excluded.root,"
            " unix_s = excluded.unix_s, note = excluded.note",
            (head.origin, head.size, head.root, head.unix_s, head.note),
        )

    def keep(self, found: Refused) -> None:
        """Within a transaction, as far as there is room."""
        row = (found.origin, found.size, found.root, found.head_size, found.unix_s, found.note)
        self._db.execute(
            "INSERT INTO refused (origin, size, root, head_size, unix_s, note) SELECT ?, ?, ?, ?, ?, ?"
            " WHERE (SELECT count(*) FROM refused WHERE origin = ?) < ? ON CONFLICT DO NOTHING",
            (*row, found.origin, MAX_REFUSED),
        )

    def all(self) -> tuple[list[Head], list[Refused]]:
        """What is remembered, for people."""
        with self.transaction():
            heads = [
                Head(*row)
                for row in self._db.execute(
                    "SELECT origin, size, root, unix_s, note FROM heads ORDER BY origin"
                )
            ]
            found = [
                Refused(*row)
                for row in self._db.execute(
                    "SELECT origin, size, root, head_size, unix_s, note FROM refused ORDER BY origin, unix_s, size"
                )
            ]
        return heads, found

    def close(self) -> None:
        """After a request that runs has ended."""
        with self._lock:
            self._db.close()


def _make_private(path: Path) -> None:
    """The file, for its owner alone. Raises OSError, also for what is no regular file."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600))


def _statements(script: str) -> Iterator[str]:
    """One by one: executescript would end the transaction."""
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _reason(e: Exception) -> str:
    return str(getattr(e, "strerror", None) or e)
