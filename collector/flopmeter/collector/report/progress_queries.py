"""What progress.py asks of the store: claims of a run's workloads, and their books by hour."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flopmeter.collector.books import SUM_FIELDS, GroupKey, HourKey, Slot, Sums
from flopmeter.collector.estimate.margin import MARGIN_PERCENT
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.progress import (
    CLAIM_COLUMNS,
    ClaimHour,
    ClaimKey,
    Compared,
    Until,
    claim_of,
    compared,
)
from flopmeter.collector.law.progress_measured import beside_of, until_of
from flopmeter.collector.store.reading import Rows
from flopmeter.contract.w_table import WTable

from .progress import progress_document

if TYPE_CHECKING:
    from .documents import WorkloadRow

_COLUMNS = ", ".join((*GroupKey._fields, *SUM_FIELDS))
_KEYS = len(GroupKey._fields)
_HOURS = f"SELECT hour, back, {_COLUMNS} FROM hourly WHERE workload_no = ? AND hour BETWEEN ? AND ?"  # noqa: S608


def claimers(rows: Rows) -> set[int]:
    """Workloads of which anything was claimed; few stores have any."""
    return {number for (number,) in rows("SELECT DISTINCT workload_no FROM progress")}


def noted_margin(rows: Rows) -> int:
    """By which events are raised, as the collector that wrote the newest records noted it; where it raises none, the
    usual one.
    """
    from flopmeter.collector.law.progress_watch import MARGIN  # with the judge: few runs claim anything

    row = rows(
        "SELECT value FROM noted WHERE name = ? AND from_position <= (SELECT coalesce(max(position), 0) + 1 FROM records) "
        "ORDER BY from_position DESC LIMIT 1",
        (MARGIN,),
    ).fetchone()
    return MARGIN_PERCENT if row is None or not row[0] else int(row[0])


def run_progress(
    rows: Rows,
    workloads: Sequence["WorkloadRow"],
    claimed: set[int],
    models: Mapping[int, Model],
    table: WTable,
) -> dict[str, Any] | None:
    """A run's claims beside its counters; None where nothing was claimed."""
    if claimed.isdisjoint(w.workload_no for w in workloads):
        return None
    claims = dict(claims_since(rows, workloads, 0))
    if not claims:
        return None
    openings = {key for key, row in claims.items() if row.opening_flop}
    found = compared(claims, untils(rows, workloads, openings, models, table))
    return progress_of(rows, workloads, found, _tally(rows, workloads, found.hours), models, table)


def progress_of(  # noqa: PLR0917 - a report is of all of them
    rows: Rows,
    workloads: Sequence["WorkloadRow"],
    claims: Compared,
    tally: Tally,
    models: Mapping[int, Model],
    table: WTable,
) -> dict[str, Any]:
    """`tally`: what the run's books hold of the hours of `claims`."""
    dtypes = {w.dtype for w in workloads if w.dtype}
    margin = noted_margin(rows)
    return progress_document(
        beside_of(claims, tally, models, table), models, table, dtypes, margin_percent=margin
    )


def claims_since(
    rows: Rows, workloads: Sequence["WorkloadRow"], hour: int
) -> Iterator[tuple[ClaimKey, ClaimHour]]:
    """What was claimed of them in that hour and after it."""
    sql = f"SELECT {CLAIM_COLUMNS} FROM progress WHERE workload_no = ? AND hour >= ?"  # noqa: S608
    for w in workloads:
        yield from map(claim_of, rows(sql, (w.workload_no, hour)))


def untils(
    rows: Rows,
    workloads: Sequence["WorkloadRow"],
    openings: Iterable[ClaimKey],
    models: Mapping[int, Model],
    table: WTable,
) -> dict[tuple[int, int], Until]:
    """What the counters say of each opening claim's workload, up to its hour's end."""
    by_no = {w.workload_no: w for w in workloads}
    found: dict[tuple[int, int], Until] = {}
    for number, _, hour in openings:
        if (number, hour) not in found:
            found[number, hour] = until_of(hour, _hours(rows, by_no[number], 0, hour), models, table)
    return found


def _tally(rows: Rows, workloads: Sequence["WorkloadRow"], hours: Sequence[int]) -> Tally:
    """What the books hold of those hours."""
    tally, wanted = Tally(), set(hours)
    for w in workloads if wanted else ():
        for key, dtype, sums in _hours(rows, w, min(wanted), max(wanted)):
            if key.slot.hour in wanted:
                tally.add(key.group, dtype, sums)
    return tally


def _hours(rows: Rows, w: "WorkloadRow", first: int, last: int) -> Iterator[tuple[HourKey, str, Sums]]:
    """A workload's books by hour, both ends with it."""
    for hour, back, *rest in rows(_HOURS, (w.workload_no, first, last)):
        key = HourKey(Slot(hour, back), GroupKey._make(rest[:_KEYS]))
        yield key, w.dtype, [int(text) for text in rest[_KEYS:]]
