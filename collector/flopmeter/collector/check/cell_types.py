"""Cells of a type that no collector writes: SQLite takes any in any column, and then a check may end in the midst of it."""

from collections.abc import Iterator

from flopmeter.collector.report.queries import Reader

from .rederive import Difference

_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB '*sqlite_*' ORDER BY name"
_TYPES = frozenset({"INTEGER", "TEXT", "BLOB"})
_COLUMNS = 'SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY cid'


def wrong_cell(reader: Reader) -> Difference | None:
    """The first cell that is not as its column is declared, or a text that is no UTF-8. Reads all tables: asked when a check
    could not go on, and not before.
    """
    return next((d for (table,) in reader.rows(_TABLES).fetchall() for d in _of_table(reader, table)), None)


def _of_table(reader: Reader, table: str) -> Iterator[Difference]:
    columns = [c for c in reader.rows(_COLUMNS, (table,)).fetchall() if c[1] in _TYPES]
    if not columns:  # none of ours
        return
    keys = [name for name, _, _, pk in columns if pk] or [columns[0][0]]
    # By its bytes: a key may be what is wrong.
    shown = " || ', ' || ".join(
        f"CASE typeof({k}) WHEN 'integer' THEN {k} ELSE 'x' || substr(hex({k}), 1, 64) END"
        for k in map(_quoted, keys)
    )
    named = ", ".join(keys)
    for name, declared, not_null, pk in columns:
        kind = declared.lower()
        taken = f"'{kind}'" if not_null or pk else f"'{kind}', 'null'"
        typed = f"typeof({_quoted(name)})"
        sql = f"SELECT {shown}, {typed} FROM {_quoted(table)} WHERE {typed} NOT IN ({taken}) LIMIT 1"  # noqa: S608
        for key, got in reader.rows(sql):
            yield Difference(table, f"{named} {key}", name, f"of type {kind}", f"of type {got}")
    for name in [name for name, declared, _, _ in columns if declared == "TEXT"]:
        sql = f"SELECT {shown}, CAST({_quoted(name)} AS BLOB) FROM {_quoted(table)}"  # noqa: S608
        for key, raw in reader.rows(sql):
            try:
                (raw or b"").decode()
            except UnicodeDecodeError as e:
                yield Difference(table, f"{named} {key}", name, "text in UTF-8", f"other bytes ({e.reason})")


def _quoted(name: str) -> str:
    """Of a table or column that somebody else may have made."""
    return '"' + name.replace('"', '""') + '"'
