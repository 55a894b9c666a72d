"""Parquet: exact, self-describing, a row group at a time."""

import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flopmeter.collector.errors import ExportError
from flopmeter.collector.export import parquet
from flopmeter.collector.export.columns import SCHEMAS, Column, Kind, Schema
from flopmeter.collector.export.parquet import write_parquet

SCHEMA = Schema("test/1", (Column("n", Kind.EXACT, "FLOP", "what"), Column("at", Kind.TIME, "UTC", "when")))


def written(rows, schema=SCHEMA) -> pq.ParquetFile:
    out = io.BytesIO()
    write_parquet(out, schema, iter(rows), "9.9")
    return pq.ParquetFile(io.BytesIO(out.getvalue()))


def test_numbers_are_exact_and_times_are_instants() -> None:
    most = 10**38 - 1
    table = written([(most, 1_500_000_000), (0, 0), (None, None)]).read()
    assert table["n"].to_pylist() == [Decimal(most), Decimal(0), None]
    assert table.schema.field("n").type == pa.decimal128(38, 0)
    assert table.schema.field("at").type == pa.timestamp("ms", tz="UTC")
    assert table["at"].cast(pa.int64()).to_pylist() == [1_500, 0, None]


def test_a_number_that_no_column_holds_is_refused() -> None:
    with pytest.raises(ExportError, match="column n: expected numbers of at most 38 digits"):
        written([(10**38, 0)])


def test_schema_and_units_are_in_the_file() -> None:
    for schema in SCHEMAS.values():
        file = written([], schema)
        assert file.metadata.num_rows == 0
        assert file.schema_arrow.metadata == {
            b"flopmeter.schema": schema.name.encode(),
            b"flopmeter.version": b"9.9",
        }
        for column, field in zip(schema.columns, file.schema_arrow, strict=True):
            assert field.name == column.name
            assert field.metadata[b"unit"].decode() == column.unit
            assert column.text in field.metadata[b"description"].decode()


def test_no_more_than_a_row_group_is_asked_for_at_once(monkeypatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 7)
    out, asked, ahead = io.BytesIO(), [0], []

    class Sink(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            ahead.append(asked[0])
            return out.write(data)

    def rows():
        for i in range(50):
            asked[0] += 1
            yield (i, i)

    write_parquet(Sink(), SCHEMA, rows(), "9.9")
    file = pq.ParquetFile(io.BytesIO(out.getvalue()))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [7] * 7 + [1]
    assert [int(n) for n in file.read()["n"].to_pylist()] == list(range(50))
    assert sorted(set(ahead)) == [0, *range(7, 50, 7), 50]  # written as each group is whole
