"""CSV and JSON Lines: rows in, text out, a few at a time. Pure.

CSV is RFC 4180: commas, CRLF, a header line, quotes where they are needed. A spreadsheet takes a text that begins with
`=`, `+`, `-` or `@`, or with white space before one, for a formula, and may run it (OWASP, CSV injection). So a text that
begins with one of these, with anything that is not printed, or with an apostrophe gets an apostrophe in front; whoever
reads the file takes one apostrophe off a text that begins with one, and has the value to the character. Numbers, times
and flags never begin so.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from flopmeter.collector.spelling import time_text

from .columns import Column, Kind, Row, Rows, Schema

#: Rows that are put into text at once: some hundred kilobytes.
CHUNK_ROWS = 500
GUARD = "'"
#: First characters of formulas, half as wide and full, and the guard itself; `|` and `%` begin commands in old programs.
_FORMULA = frozenset("=+-@|%'＝＋－＠｜％＇")


def guarded(text: str) -> str:
    """The text as it may stand in a spreadsheet; `unguarded` gives it back."""
    first = text[:1]
    if first in _FORMULA or not first.isprintable() or first.isspace() or not first:
        return GUARD + text
    return text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if text.startswith(GUARD) else text


def csv_text(schema: Schema, rows: Rows) -> Iterator[str]:
    """The file, in pieces; the header is the first."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([c.name for c in schema.columns])
    write = [_CSV[c.kind] for c in schema.columns]
    while True:
        chunk = list(islice(rows, CHUNK_ROWS))
        for row in chunk:
            writer.writerow(["" if v is None else w(v) for w, v in zip(write, row, strict=True)])
        yield out.getvalue()
        if not chunk:
            return
        out.seek(0)
        out.truncate()


def json_lines(schema: Schema, rows: Rows) -> Iterator[str]:
    """The file, in pieces: an object a line, its first key "schema"."""
    write = [_JSON[c.kind] for c in schema.columns]
    names = [c.name for c in schema.columns]
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def line(row: Row) -> str:
        said = {n: None if v is None else w(v) for n, w, v in zip(names, write, row, strict=True)}
        return encode({"schema": schema.name, **said}) + "\n"

    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield "".join(map(line, chunk))


def _same(value: Any) -> Any:
    return value


_CSV: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: guarded,
    Kind.INTEGER: str,
    Kind.EXACT: str,
    Kind.TIME: time_text,
    Kind.FLAG: lambda flag: "true" if flag else "false",
}
_JSON: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _same,
    Kind.INTEGER: _same,
    Kind.EXACT: str,
    Kind.TIME: time_text,
    Kind.FLAG: bool,
}


def described(column: Column) -> str:
    """What a column says, with its unit."""
    return f"{column.text} [{column.unit}]" if column.unit else column.text
