"""Schema versions. A migration and the note that it ran (user_version) commit in one transaction."""

import sqlite3

from flopmeter.collector.errors import StoreError

from .schema import MIGRATIONS

#: "flop" in ASCII: marks a SQLite file as ours, so that another program's file is never written to.
APPLICATION_ID = 0x666C6F70


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
    for number in range(version, len(MIGRATIONS)):
        _name, script = MIGRATIONS[number]
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


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
