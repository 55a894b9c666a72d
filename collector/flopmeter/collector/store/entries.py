"""Entries in the store: what a person says is appended here, also while a collector runs."""

from collections.abc import Callable, Iterable
from typing import Any

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.registry.codec import EntryRow

from .appending import Appender, blob
from .base import LastEntry
from .told import told

COLUMNS = ", ".join(EntryRow._fields)
INSERT = f"INSERT INTO entries ({COLUMNS}) VALUES ({', '.join('?' * len(EntryRow._fields))})"  # noqa: S608
SELECT = f"SELECT {COLUMNS} FROM entries WHERE entry_no > ? ORDER BY entry_no"  # noqa: S608
_LAST = (
    "SELECT coalesce(max(entry_no), 0), (SELECT hash FROM entries ORDER BY entry_no DESC LIMIT 1), "
    "(SELECT coalesce(max(position), 0) FROM records) FROM entries"
)


def entry_rows(rows: Iterable[Any]) -> list[EntryRow]:
    """What SELECT found."""
    return [EntryRow._make((*r[:6], blob(r[6]), blob(r[7]))) for r in rows]


class SqliteEntries(Appender):
    """store.base.EntryLog on a connection of its own. Use as a context manager."""

    def entries(self, after_no: int = 0) -> list[EntryRow]:
        with told(self._path, "read"):
            return entry_rows(self._connection.execute(SELECT, (after_no,)).fetchall())

    def append_entry(self, make: Callable[[LastEntry], EntryRow]) -> EntryRow:
        with self._writing() as execute:
            number, last_hash, position = execute(_LAST).fetchone()
            row = make(LastEntry(number, NO_HASH if last_hash is None else bytes(last_hash), position))
            execute(INSERT, row)
        return row
