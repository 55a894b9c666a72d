"""Schema versions. Migrations run by sqlite-utils, which notes each by name in `_sqlite_migrations`.

All that are pending, their notes and `user_version` commit in one transaction. `user_version` is what is looked at
when a store is opened, so that one that is up to date opens without importing sqlite-utils (0.1 s); and one that is
made anew gets the same statements and notes without it, so that a first start listens as soon (tests/store).
"""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flopmeter.collector.errors import StoreError

from .backfill import BACKFILLS
from .schema import MIGRATIONS

if TYPE_CHECKING:
    from sqlite_utils import Database

#: "flop" in ASCII: marks a SQLite file as ours, so that another program's file is never written to.
APPLICATION_ID = 0x666C6F70
MIGRATION_SET = "flopmeter"
#: The oldest schema that readers, and people's words, are at home in: what came behind it are views, which nothing of
#: flopmeter reads, and the clocks of agents, which are not known then. So a collector need not be started again before its
#: books can be looked at.
AT_HOME_FROM = 17
#: The table in which sqlite-utils notes what ran, in its own words.
NOTES = """\
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
"""
#: A store is never taken back to an older schema: it would have to forget what the newer one holds.
NEWER_HINT = (
    "use the flopmeter that wrote it, or a later one (`flopmeter --version` says which this is); to go back to this "
    "version, restore a copy of the store from before the upgrade: agents send again what they still hold"
)


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
            NEWER_HINT,
        )
    if version == len(MIGRATIONS):
        return
    # One transaction around all: sqlite-utils makes its own table outside of those that it opens, and a store
    # with that table alone would be taken for another program's.
    connection.execute("BEGIN IMMEDIATE")
    try:
        if tables:
            _apply(connection)
        else:
            _make(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make(connection: sqlite3.Connection) -> None:
    """All migrations on an empty file, noted as sqlite-utils notes them, for the next one to go on from."""
    for statement in _statements(NOTES):
        connection.execute(statement)
    for name, script in MIGRATIONS:
        for statement in _statements(script):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
            (MIGRATION_SET, name, str(datetime.now(UTC))),
        )


def _apply(connection: sqlite3.Connection) -> None:
    """Run what `_sqlite_migrations` does not name. Inside a transaction sqlite-utils nests by savepoints."""
    from sqlite_utils import Database, Migrations

    migrations = Migrations(MIGRATION_SET)
    for name, script in MIGRATIONS:
        migrations(name=name)(_runner(name, script))
    migrations.apply(Database(connection, recursive_triggers=False, execute_plugins=False))


def _runner(name: str, script: str) -> "Callable[[Database], None]":
    def run(db: "Database") -> None:
        for statement in _statements(script):
            db.execute(statement)
        if name in BACKFILLS:
            BACKFILLS[name](db.execute)

    return run


def check(connection: sqlite3.Connection, path: str) -> None:
    """For readers, who never migrate: raises StoreError unless the schema's tables are exactly this version's."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application_id != APPLICATION_ID:
        raise StoreError(
            f"{path}: expected a flopmeter store, got another SQLite file",
            "name the collector's store with --store or FLOPMETER_STORE",
        )
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{path}: expected schema version {len(MIGRATIONS)}, got {version}: a newer flopmeter has written it",
            NEWER_HINT,
        )
    if version < AT_HOME_FROM:
        raise StoreError(
            f"{path}: expected schema version {len(MIGRATIONS)}, got {version}: an older flopmeter has written it",
            "copy the store, then start `flopmeter collector serve` of this version on it once: that migrates it",
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
