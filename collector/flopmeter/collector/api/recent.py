"""What runs did lately: in the last whole hour, exactly, and on each of the last days, rounded, for the eye."""

from collections.abc import Iterable, Mapping
from math import floor, log10
from typing import Any

from flopmeter.collector.books import HOUR_NS, SUM_FIELDS, GroupKey, Slot
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.report.documents import RunRows
from flopmeter.collector.report.queries import Reader, RunSide
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable

DAYS = 30
_HOUR_S = 3_600
_KEY = ", ".join(GroupKey._fields)
_SUMS = ", ".join(SUM_FIELDS)
_SINCE = f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly WHERE hour >= ?"  # noqa: S608
#: For the eye: doubles, which SQLite adds up by itself.
_BY_DAY = (
    "SELECT hour / 24, workload_no, model_no, evidence_class, measured, spread_ppm, 0, "  # noqa: S608
    + ", ".join(f"sum(CAST({name} AS REAL))" for name in SUM_FIELDS)
    + " FROM hourly WHERE hour >= ? GROUP BY 1, 2, 3, 4, 5, 6"
)


def rates(
    reader: Reader, running: Iterable[RunRows], models: Mapping[int, Model], table: WTable
) -> dict[str, dict[str, Any]]:
    """`rate` by run: FLOP in a second over the last whole hour before its last record.

    What spans hours is taken as even over them: in which of them it was is not known.
    """
    hours = {r.run: (r.last_unix_ns - 1) // HOUR_NS - 1 for r in running}
    run_of = {w.workload_no: (r.run, w.dtype) for r in running for w in r.workloads}
    tallies: dict[str, Tally] = {}
    if not hours:
        return {}
    for hour, back, *rest in reader.rows(_SINCE, (min(hours.values()),)):
        whose = run_of.get(rest[0])
        if whose is None:
            continue
        run, dtype = whose
        slot, wanted = Slot(hour, back), hours[run]
        if not slot.first <= wanted <= slot.hour:
            continue
        at, of = wanted - slot.first, back + 1
        sums = [int(text) for text in rest[6:]]
        part = sums if of == 1 else [n * (at + 1) // of - n * at // of for n in sums]
        tallies.setdefault(run, Tally()).add(GroupKey._make(rest[:6]), dtype, part)
    found = {}
    for run, tally in tallies.items():
        flop = tally.figures(models, table)[0]
        per_second = Figure(flop.lower // _HOUR_S, flop.point // _HOUR_S, -(-flop.upper // _HOUR_S))
        found[run] = {"flop_per_second": figure_json(per_second), "hour": time_text(hours[run] * HOUR_NS)}
    return found


class Sparks:
    """FLOP of each workload and day. Days that no new record touched are not read again."""

    def __init__(self) -> None:
        self._days: dict[int, dict[int, float]] = {}
        self.rows = 0  # that were read, since the start

    def refresh(
        self,
        reader: Reader,
        hour: int | None,
        today: int,
        side: RunSide,
        table: WTable,
    ) -> None:
        """`hour`: from which on the books may have changed; None: nowhere. `today`: the day since 1970."""
        first = today - DAYS + 1
        for day in [d for d in self._days if d < first]:
            del self._days[day]
        if not self._days:
            hour = 0
        if hour is None:
            return
        since = max(first, hour // 24)
        for day in [d for d in self._days if d >= since]:
            del self._days[day]
        dtypes = {w.workload_no: w.dtype for r in side.rows for w in r.workloads}
        tallies: dict[tuple[int, int], Tally] = {}
        for day, workload_no, *rest in reader.rows(_BY_DAY, (since * 24,)):
            self.rows += 1
            key = GroupKey(workload_no, *rest[:5])
            tally = tallies.setdefault((day, workload_no), Tally())
            tally.add(key, dtypes.get(workload_no, ""), [int(n) for n in rest[5:]])
        for day in range(since, today + 1):
            self._days[day] = {}
        for (day, workload_no), tally in tallies.items():
            point = tally.figures(side.models, table)[0].point
            if point and day in self._days:
                self._days[day][workload_no] = float(point)

    def of(self, rows: RunRows, today: int) -> dict[str, Any]:
        """`spark` of a run."""
        numbers = [w.workload_no for w in rows.workloads]
        series = []
        for day in range(today - DAYS + 1, today + 1):
            by_workload = self._days.get(day, {})
            series.append(_rounded(sum(by_workload.get(no, 0.0) for no in numbers)))
        return {"from": time_text((today - DAYS + 1) * 24 * HOUR_NS)[:10], "flop": series}


def _rounded(value: float) -> float:
    """To three digits."""
    return round(value, 2 - floor(log10(value))) if value > 0 else 0.0
