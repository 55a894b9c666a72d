"""Entries in the store: what a person says is appended here, also while a collector runs.

A person's command has a connection of its own: the collector holds the store's lock file, which keeps a second
collector out, but SQLite's own lock is free between its commits, and that is all an append takes.
"""

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from flopmeter.collector.errors import StoreError
from flopmeter.collector.registry.codec import NO_HASH, EntryRow

from .base import LastEntry
from .migrate import check
from .place import Place
from .told import told

COLUMNS = ", ".join(EntryRow._fields)
INSERT = f"INSERT INTO entries ({COLUMNS}) VALUES ({', '.join('?' * len(EntryRow._fields))})"  # noqa: S608
SELECT = f"SELECT {COLUMNS} FROM entries WHERE entry_no > ? ORDER BY entry_no"  # noqa: S608
_LAST = (
    "SELECT coalesce(max(entry_no), 0), (SELECT hash FROM entries ORDER BY entry_no DESC LIMIT 1), "
    "(SELECT coalesce(max(position), 0) FROM records) FROM entries"
)
#: A collector's commit takes a fraction of a second, its checkpoint seconds on a slow disk.
BUSY_TIMEOUT_S = 10.0


def entry_rows(rows: Iterable[Any]) -> list[EntryRow]:
    """What SELECT found."""
    return [EntryRow._make((*r[:6], blob(r[6]), blob(r[7]))) for r in rows]


def blob(value: Any) -> bytes:
    """A column of bytes. SQLite takes any type in any column; what is none of ours is then no hash of anything."""
    return value if isinstance(value, bytes) else repr(value).encode()


class SqliteEntries:
    """store.base.EntryLog on a connection of its own. Use as a context manager."""

    def __init__(self, path: Path, *, connect: Callable[..., sqlite3.Connection] = sqlite3.connect) -> None:
        """Open the store at `path` for appending; never makes or migrates one. Raises StoreError."""
        self._path = str(path)
        if not path.is_file():
            raise StoreError(
                f"{path}: expected a store, found no such file",
                "start `flopmeter collector serve` once: it makes one; or name another with --store",
            )
        with told(self._path, "open"):
            self._connection = connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            try:
                check(self._connection, self._path)
                self._connection.execute("PRAGMA synchronous = FULL")
                self._place = Place(path)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def entries(self, after_no: int = 0) -> list[EntryRow]:
        with told(self._path, "read"):
            return entry_rows(self._connection.execute(SELECT, (after_no,)).fetchall())

    def append_entry(self, make: Callable[[LastEntry], EntryRow]) -> EntryRow:
        connection = self._connection
        with told(self._path, "commit"):
            connection.execute("BEGIN IMMEDIATE")
            try:
                number, last_hash, position = connection.execute(_LAST).fetchone()
                row = make(LastEntry(number, NO_HASH if last_hash is None else bytes(last_hash), position))
                connection.execute(INSERT, row)
                connection.execute("COMMIT")
                # D2: durable from here (synchronous=FULL). A crash before this line leaves no entry, and nobody was
                # told of one; a crash after it leaves all of it.
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        self._place.check()
        return row
