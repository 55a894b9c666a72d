"""The store as whoever asks opens it: read-only, while a collector writes it and after it has stopped."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flopmeter.collector.errors import StoreChangedError, StoreError

from .migrate import check
from .told import hint_for, told

#: How a query asks: SQL, and the values bound to it.
Rows = Callable[..., sqlite3.Cursor]
#: How long a connection waits for another process's lock (an fsck or a backup that checkpoints).
BUSY_TIMEOUT_S = 5.0


@contextmanager
def one_state(file: Path) -> Iterator[sqlite3.Connection]:
    """One consistent state of the store: a transaction that is open until the end. Raises StoreError if it cannot be read."""
    still = not _wal(file).exists()
    before = _stamp(file)
    connection = _open_still(file) if still else open_for_reading(file)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        yield connection
    except sqlite3.Error as e:
        raise StoreError(f"{file}: cannot read: {e}", hint_for(e)) from e
    finally:
        connection.close()
    if still and (_stamp(file) != before or _wal(file).exists()):
        raise StoreChangedError(
            f"{file}: a collector or a command started on it while it was read", "ask again"
        )


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection to a store that a collector may be writing. Raises StoreError."""
    if not path.is_file():
        raise StoreError(f"{path}: expected a store, found no such file", "name the collector's --store file")
    with told(str(path), "read"):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
        check(connection, str(path))
        return connection


def _open_still(file: Path) -> sqlite3.Connection:
    """A store that nobody has open (no WAL beside it): read without leaving files there.

    An ordinary read-only connection would leave a -shm and a -wal of this user, which a collector of another
    user could then not open; and it cannot read at all where this user may not write.
    """
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True, timeout=BUSY_TIMEOUT_S
    )
    try:
        check(connection, str(file))
    except sqlite3.Error as e:
        connection.close()
        raise StoreError(f"{file}: cannot read: {e}", hint_for(e)) from e
    except BaseException:
        connection.close()
        raise
    return connection


def _wal(file: Path) -> Path:
    return file.with_name(file.name + "-wal")


def _stamp(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_mtime_ns, state.st_size
