"""The store's tables, indexes and triggers against the migrations' own text: a trigger that is gone guards nothing."""

import re
import sqlite3

from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.schema import MIGRATIONS

from .rederive import Difference

_SQL = (
    "SELECT type, name, coalesce(sql, '') FROM main.sqlite_master WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~'"
)
#: sqlite-utils makes its own table, in its own words.
_NOTES = "_sqlite_migrations"


def check_schema(reader: Reader) -> None:
    """Raises Difference at the first thing that is missing, other, or not ours.

    Against the version that the store says it has: views are younger than the tables (store.migrate.AT_HOME_FROM).
    """
    applied = MIGRATIONS[: reader.rows("PRAGMA user_version").fetchone()[0]]
    with sqlite3.connect(":memory:") as db:
        for _, script in applied:
            db.executescript(script)
        expected = _of(db.execute(_SQL).fetchall())
    db.close()
    stored = _of(reader.rows(_SQL).fetchall())
    for kind, name in sorted(expected.keys() | stored.keys()):
        ours, got = expected.get((kind, name)), stored.get((kind, name))
        if ours != got:
            raise Difference(
                "sqlite_master", f"{kind} {name}", "sql", ours or f"no such {kind}", got or f"no such {kind}"
            )
    names = sorted(name for (name,) in reader.rows(f"SELECT name FROM main.{_NOTES}"))  # noqa: S608
    if names != (wanted := sorted(name for name, _ in applied)):
        raise Difference(_NOTES, "rows", "name", wanted, names)


def _of(rows: list[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    """Without quotes, comments and spaces, which versions of SQLite and sqlite-utils put differently."""
    return {(kind, name): _plain(sql) for kind, name, sql in rows if _NOTES not in name}


def _plain(sql: str) -> str:
    return " ".join(re.sub(r"--[^\n]*", "", sql).replace('"', "").split())
