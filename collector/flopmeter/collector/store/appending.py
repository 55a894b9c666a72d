"""A connection of its own beside a collector that runs: what people say is appended by it.

The collector holds the store's lock file, which keeps a second collector out, but SQLite's own lock is free between its
commits, and that is all an append takes.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from flopmeter.collector.errors import StoreError

from .migrate import check
from .place import Place
from .told import told

#: A collector's commit takes a fraction of a second, its checkpoint seconds on a slow disk.
BUSY_TIMEOUT_S = 10.0
#: A statement, run in the transaction that something is appended in.
Execute = Callable[..., sqlite3.Cursor]


def blob(value: Any) -> bytes:
    """A column of bytes. SQLite takes any type in any column; what is none of ours is then no hash of anything."""
    return value if isinstance(value, bytes) else repr(value).encode()


class Appender:
    """What the tables that people append to have in common. Use as a context manager."""

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

    @contextmanager
    def _writing(self, *, keep: bool = True) -> Iterator[Execute]:
        """The write lock: nobody else can write meanwhile, and a collector's commit waits, so it must not take long.

        What the block wrote is durable behind it; nothing of it is there where the block raised, or with `keep` False,
        which is what a dry run shows. Raises StoreError.
        """
        connection = self._connection
        with told(self._path, "commit"):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection.execute
                connection.execute("COMMIT" if keep else "ROLLBACK")
                # D2: durable from here (synchronous=FULL). A crash before this line leaves nothing, and nobody was
                # told of anything; a crash after it leaves all of it.
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        self._place.check()
