"""Stores as older versions of flopmeter left them, for tests of what becomes of them."""

import sqlite3
from contextlib import closing
from pathlib import Path

from flopmeter.collector.store.schema import MIGRATIONS


def first_schema(path: Path) -> None:
    """Take the store at `path` back to the first schema, with all its records."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as first:
        first.executescript(MIGRATIONS[0][1])
        was = dict(first.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index')"))
        tables = {name for (name,) in first.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        now = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        for kind in ("view", "trigger"):
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = ?", (kind,)
            ).fetchall():
                connection.execute(f"DROP {kind} {name}")
        for name in now.keys() - tables - {"_sqlite_migrations"}:
            connection.execute(f"DROP TABLE {name}")
        for name in sorted(tables):
            connection.execute(f"ALTER TABLE {name} RENAME TO later")
            for (index,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'later' AND sql IS NOT NULL"
            ).fetchall():
                connection.execute(f"DROP INDEX {index}")
            connection.execute(was[name])
            columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({name})").fetchall())
            connection.execute(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM later")
            connection.execute("DROP TABLE later")
        for name, sql in was.items():
            if name not in tables and sql is not None:
                connection.execute(sql)
        connection.execute("DELETE FROM _sqlite_migrations WHERE name != '0001-books'")
        connection.execute("PRAGMA user_version = 1")
