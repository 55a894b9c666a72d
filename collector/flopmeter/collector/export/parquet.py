"""Parquet by pyarrow: a row group at a time, so that no more than one is in memory."""

from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from flopmeter.collector.errors import ExportError

from .columns import Column, Kind, Rows, Schema
from .formats import described

#: Rows of a row group: some tens of megabytes while it is made, and readers can skip what is of other hours.
GROUP_ROWS = 10_000
#: Digits of decimal128. The largest figure that signed records can come to (63-bit cycles by the highest rate, of
#: 10^15 records) has 37.
DIGITS = 38
_MS = 1_000_000


class _Counting:
    """A file that cannot be sought in, as Parquet's writer wants to see one."""

    closed = False

    def __init__(self, to: BinaryIO) -> None:
        self._to = to
        self._at = 0

    def write(self, data: Any) -> int:
        self._to.write(data)
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None: ...
    def close(self) -> None: ...
    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


def write_parquet(to: BinaryIO, schema: Schema, rows: Rows, software: str) -> None:
    """The whole file. Raises OSError of `to`, ExportError for a number that no column can hold."""
    said = {"flopmeter.schema": schema.name, "flopmeter.version": software}
    arrow = pa.schema([_field(c) for c in schema.columns], metadata=said)
    sink = pa.PythonFile(_Counting(to), mode="w")
    with pq.ParquetWriter(sink, arrow, compression="zstd", version="2.6") as writer:
        while chunk := list(islice(rows, GROUP_ROWS)):
            columns = zip(*chunk, strict=True)
            arrays = [_array(c, f.type, v) for c, f, v in zip(schema.columns, arrow, columns, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=arrow), row_group_size=GROUP_ROWS)


def _field(column: Column) -> pa.Field:
    return pa.field(
        column.name, _TYPES[column.kind], metadata={"description": described(column), "unit": column.unit}
    )


def _array(column: Column, kind: pa.DataType, values: tuple[Any, ...]) -> pa.Array:
    if column.kind is Kind.TIME:
        values = tuple(None if v is None else v // _MS for v in values)
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowInvalid, OverflowError) as e:
        raise ExportError(
            f"column {column.name}: expected numbers of at most {DIGITS} digits, got one that is longer",
            "as CSV or JSON Lines it can be written; `flopmeter collector fsck` says what is wrong with it",
        ) from e


_TYPES = {
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.EXACT: pa.decimal128(DIGITS, 0),
    Kind.TIME: pa.timestamp("ms", tz="UTC"),
    Kind.FLAG: pa.bool_(),
}
