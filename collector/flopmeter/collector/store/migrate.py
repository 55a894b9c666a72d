"""Schema versions. Migrations run by sqlite-utils, which notes each by name in `_sqlite_migrations`.

All that are pending, their notes and `user_version` commit in one transaction. `user_version` is what is looked at
when a store is opened, so that one that is up to date opens without importing sqlite-utils (0.1 s).
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

from flopmeter.collector.errors import StoreError

from .schema import MIGRATIONS

if TYPE_CHECKING:
    from sqlite_utils import Database

#: "flop" in ASCII: marks a SQLite file as ours, so that another program's file is never written to.
APPLICATION_ID = 0x666C6F70
MIGRATION_SET = "flopmeter"


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the store to this version's schema. `connection` is in autocommit mode.

    Raises StoreError for a file that is not ours, or one that a newer flopmeter wrote.
    """
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != APPLICATION_ID and (application_id or tables or version):
        raise StoreError(
            f"{path}: expected a flopmeter store, got another program's SQLite file "
            f"(application_id {application_id:#x})",
            "name another file with --store",
        )
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: expected schema version {len(MIGRATIONS)} or older, got {version}: "
            "a newer flopmeter has written it",
            "run that version again; a store is never downgraded",
        )
    if version == len(MIGRATIONS):
        return
    # One transaction around all: sqlite-utils makes its own table outside of those that it opens, and a store
    # with that table alone would be taken for another program's.
    connection.execute("BEGIN IMMEDIATE")
    try:
        _apply(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _apply(connection: sqlite3.Connection) -> None:
    """Run what `_sqlite_migrations` does not name. Inside a transaction sqlite-utils nests by savepoints."""
    from sqlite_utils import Database, Migrations

    migrations = Migrations(MIGRATION_SET)
    for name, script in MIGRATIONS:
        migrations(name=name)(_runner(script))
    migrations.apply(Database(connection, recursive_triggers=False, execute_plugins=False))


def _runner(script: str) -> "Callable[[Database], None]":
    def run(db: "Database") -> None:
        for statement in _statements(script):
            db.execute(statement)

    return run


def check(connection: sqlite3.Connection, path: str) -> None:
    """For readers, who never migrate: raises StoreError unless the schema is exactly this version's."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise StoreError(f"{path}: expected a flopmeter store, got another SQLite file", "name another file")
    if version != len(MIGRATIONS):
        raise StoreError(
            f"{path}: expected schema version {len(MIGRATIONS)}, got {version}",
            "start `flopmeter collector serve` of this version once to migrate, or use the newer flopmeter",
        )


def _statements(script: str) -> list[str]:
    """Split at semicolons that end a statement; executescript would commit in between."""
    found, begun = [], ""
    for line in script.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    return found
