"""Files of periods (TOML or CSV) and of declared estimates (TOML): read, and every fault given its line.

docs/estimate.md has both schemas.
"""

import csv
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from flopmeter.collector.errors import CollectorError, EstimateError
from flopmeter.contract.w_table import WTable

from .declared import Declared, declared
from .fields import Entry, as_entry
from .hardware import Period, period

SCHEMA = "flopmeter-estimates/1"
MAX_FILE_BYTES = 8 << 20
_HINT = "see docs/estimate.md"


def read_periods(path: Path, table: WTable) -> list[Period]:
    """The periods of a TOML file ([[period]]) or a CSV file (one a row). Raises EstimateError, CollectorError."""
    text = _text(path)
    if path.suffix.lower() == ".csv":
        return _csv_periods(path, text, table)
    data = _toml(path, text)
    entries = _tables(path, text, data, "period", allowed={"period"})
    return [period(entry, where, table) for entry, where in entries]


def _csv_periods(path: Path, text: str, table: WTable) -> list[Period]:
    rows = csv.reader(text.splitlines(), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        if not header or len(set(header)) != len(header) or "" in header:
            raise EstimateError(f"{path}, line 1: expected the columns' names, each once", _HINT)
        found = []
        for row in rows:
            line = rows.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise EstimateError(
                    f"{path}, line {line}: expected {len(header)} cells, got {len(row)}", _HINT
                )
            entry = {name: cell.strip() for name, cell in zip(header, row, strict=True) if cell.strip()}
            found.append(period(entry, _at(f"{path}, line {line}: "), table))
    except csv.Error as e:
        raise EstimateError(f"{path}, line {rows.line_num}: expected CSV, got {e}", _HINT) from e
    if not found:
        raise EstimateError(f"{path}: expected one period a row below the header, got none", _HINT)
    return found


def read_estimates(path: Path, table: WTable) -> tuple[Declared, ...]:
    """The declared estimates of a site. Raises EstimateError naming line and key, CollectorError if unreadable."""
    text = _text(path)
    data = _toml(path, text)
    if data.get("schema") != SCHEMA:
        raise EstimateError(f"{path}: key schema: expected {SCHEMA!r}, got {data.get('schema')!r}", _HINT)
    found: dict[str, Declared] = {}
    for entry, where in _tables(path, text, data, "estimate", allowed={"schema", "estimate"}):
        d = declared(entry, where, table)
        if d.digest in found:
            raise EstimateError(
                f"{where('run')}expected each estimate once, got one of run {d.run!r} twice", _HINT
            )
        found[d.digest] = d
    return tuple(found.values())


def _text(path: Path) -> str:
    try:
        with path.open("rb") as f:
            raw = f.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise CollectorError(f"{path}: cannot read: {e.strerror}", _HINT) from e
    if len(raw) > MAX_FILE_BYTES:
        raise EstimateError(f"{path}: expected at most {MAX_FILE_BYTES >> 20} MiB, got more", _HINT)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise EstimateError(
            f"{path}: expected UTF-8 text, got byte {raw[e.start]:#04x} at {e.start}", _HINT
        ) from e


def _toml(path: Path, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text, parse_float=str)
    except (
        tomllib.TOMLDecodeError,
        RecursionError,
        ValueError,
    ) as e:  # ValueError: an integer too long to read
        raise EstimateError(f"{path}: expected TOML, got {e}", _HINT) from e


def _tables(
    path: Path, text: str, data: dict[str, object], name: str, *, allowed: set[str]
) -> list[tuple[Entry, Callable[[str], str]]]:
    """Each [[name]] table as an entry, and what says where its keys stand."""
    unknown = sorted(data.keys() - allowed)
    if unknown:
        raise EstimateError(f"{path}: key {unknown[0]}: expected only [[{name}]] tables, got it", _HINT)
    tables = data.get(name)
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise EstimateError(f"{path}: expected one or more [[{name}]] tables, got none", _HINT)
    places = [_located(path, text, name, i) for i in range(len(tables))]
    return [(as_entry(one, where), where) for one, where in zip(tables, places, strict=True)]


def _at(place: str) -> Callable[[str], str]:
    return lambda _key: place


def _located(path: Path, text: str, name: str, index: int) -> Callable[[str], str]:
    """Where a key of the index-th [[name]] table stands; its header's line where the key is missing.

    `key#2` is the second [[name.key]] below it. Found in the text, since tomllib gives no positions: TOML that is
    written in another way gets the table's number.
    """
    rows = text.splitlines()
    starts = [n for n, row in enumerate(rows, 1) if re.match(rf"\s*\[\[\s*{name}\s*\]\]", row)]

    def where(key: str) -> str:
        if len(starts) <= index:
            return f"{path}, {name} {index + 1}: "
        last = starts[index + 1] - 1 if index + 1 < len(starts) else len(rows)
        bare, _, number = key.partition("#")
        pattern = rf"\s*\[\[\s*{name}\.{bare}\s*\]\]" if number else rf"\s*\"?{re.escape(bare)}\"?\s*="
        lines = [n for n in range(starts[index], last + 1) if re.match(pattern, rows[n - 1])]
        wanted = int(number or 1)
        return f"{path}, line {lines[wanted - 1] if len(lines) >= wanted else starts[index]}: "

    return where
