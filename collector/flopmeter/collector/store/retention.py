"""The retention table: what people said of keeping, appended by their commands while a collector runs."""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from flopmeter.collector.retention.words import SaidRow

from .entries import SqliteEntries, blob
from .told import told

_COLUMNS = ", ".join(SaidRow._fields)
#: All of it, in order.
SELECT = f"SELECT {_COLUMNS} FROM retention ORDER BY said_no"  # noqa: S608
INSERT = f"INSERT INTO retention ({_COLUMNS}) VALUES ({', '.join('?' * len(SaidRow._fields))})"  # noqa: S608
_POSITION = "SELECT coalesce(max(position), 0) FROM records"

#: A statement, run in the transaction in which a word is appended.
Ask = Callable[..., sqlite3.Cursor]


def said_rows(rows: Iterable[Any]) -> list[SaidRow]:
    """What SELECT found."""
    return [SaidRow._make((*r[:8], blob(r[8]), blob(r[9]))) for r in rows]


class SqliteRetention(SqliteEntries):
    """A person's connection, of its own. Use as a context manager."""

    def append_said(self, make: Callable[[Ask, list[SaidRow], int], SaidRow]) -> SaidRow:
        """Append what `make` returns, given all that was said and the last record's position; on return it is durable.

        `make` runs while nobody else can write. Raises StoreError, and whatever `make` raises: then nothing was said.
        """
        connection = self._connection
        with told(self._path, "commit"):
            connection.execute("BEGIN IMMEDIATE")
            try:
                before = said_rows(connection.execute(SELECT).fetchall())
                row = make(connection.execute, before, connection.execute(_POSITION).fetchone()[0])
                connection.execute(INSERT, row)
                connection.execute("COMMIT")
                # D2: durable from here (synchronous=FULL). A crash before this line leaves no word, and nobody was
                # told of one; a crash after it leaves all of it.
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        self._place.check()
        return row
