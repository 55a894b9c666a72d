"""The database's errors as ours, with what an operator can do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from flopmeter.collector.errors import StoreError


@contextmanager
def told(path: str, what: str) -> Iterator[None]:
    """Translate sqlite3's errors into ours, with what to do."""
    try:
        yield
    except sqlite3.Error as e:
        raise StoreError(f"{path}: cannot {what}: {e}", hint_for(e)) from e


def hint_for(e: sqlite3.Error) -> str:
    """What an operator can do about an error of the database."""
    text = str(e)
    if "full" in text:
        return "free space on the store's file system; agents keep their records meanwhile"
    if "locked" in text:
        return "another program holds the store for writing; close it"
    if "malformed" in text or "not a database" in text:
        return (
            "the file is damaged, or is no SQLite file: keep it as evidence, and serve a backup, or a new store, in its "
            "place: agents send again what they still hold"
        )
    return "check the store's file system (a full one cannot even be read from) and permissions"
