"""Kept forecasts in the store: SQL and rows."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class ForecastRow(NamedTuple):
    """One forecast as it was made. `data`: forecast/document.py."""

    forecast_no: int
    run: str
    unix_ns: int  # the collector's clock
    position: int  # of the last record in the books that it rests on
    method: str
    data: str


_COLUMNS = ", ".join(ForecastRow._fields)
INSERT = f"INSERT INTO forecasts ({_COLUMNS}) VALUES ({', '.join('?' * len(ForecastRow._fields))})"  # noqa: S608
#: All, in order.
SELECT = f"SELECT {_COLUMNS} FROM forecasts ORDER BY forecast_no"  # noqa: S608
#: Of one run, in order.
OF_RUN = f"SELECT {_COLUMNS} FROM forecasts WHERE run = ? ORDER BY forecast_no"  # noqa: S608
#: The last of one run.
LAST = f"SELECT {_COLUMNS} FROM forecasts WHERE run = ? ORDER BY forecast_no DESC LIMIT 1"  # noqa: S608
NEXT_NO = "SELECT coalesce(max(forecast_no), 0) + 1 FROM forecasts"
#: Runs of which one was made since.
RUNS_SINCE = "SELECT DISTINCT run FROM forecasts WHERE unix_ns >= ? ORDER BY run"
FIRST_SEEN = "SELECT first_unix_ns FROM workloads WHERE workload_no = ?"


def forecast_rows(rows: Iterable[Any]) -> list[ForecastRow]:
    """What SELECT, OF_RUN or LAST found."""
    return [ForecastRow._make(row) for row in rows]
