"""The retention table: what people said of keeping, appended by their commands while a collector runs."""

from collections.abc import Callable, Iterable
from typing import Any

from flopmeter.collector.retention.words import SaidRow

from .appending import Appender, Execute, blob

_COLUMNS = ", ".join(SaidRow._fields)
#: All of it, in order.
SELECT = f"SELECT {_COLUMNS} FROM retention ORDER BY said_no"  # noqa: S608
INSERT = f"INSERT INTO retention ({_COLUMNS}) VALUES ({', '.join('?' * len(SaidRow._fields))})"  # noqa: S608
_POSITION = "SELECT coalesce(max(position), 0) FROM records"


def said_rows(rows: Iterable[Any]) -> list[SaidRow]:
    """What SELECT found."""
    return [SaidRow._make((*r[:8], blob(r[8]), blob(r[9]))) for r in rows]


class SqliteRetention(Appender):
    """A person's connection, of its own. Use as a context manager."""

    def append_said(self, make: Callable[[Execute, list[SaidRow], int], SaidRow]) -> SaidRow:
        """Append what `make` returns, given all that was said and the last record's position; on return it is durable.

        `make` runs while nobody else can write. Raises StoreError, and whatever `make` raises: then nothing was said.
        """
        with self._writing() as execute:
            before = said_rows(execute(SELECT).fetchall())
            row = make(execute, before, execute(_POSITION).fetchone()[0])
            execute(INSERT, row)
        return row
