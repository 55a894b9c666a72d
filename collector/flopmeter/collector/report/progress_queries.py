"""What progress.py asks of the store: claims of a run's workloads, and their books by hour."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flopmeter.collector.books import SUM_FIELDS, GroupKey, HourKey, Slot, Sums
from flopmeter.collector.estimate.margin import MARGIN_PERCENT
from flopmeter.collector.figures import Model
from flopmeter.collector.law.progress import CLAIM_COLUMNS, ClaimHour, ClaimKey, claim_of
from flopmeter.collector.store.reading import Rows
from flopmeter.contract.w_table import WTable

from .progress import progress_document

if TYPE_CHECKING:
    from .documents import WorkloadRow

_COLUMNS = ", ".join((*GroupKey._fields, *SUM_FIELDS))
_KEYS = len(GroupKey._fields)


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
    claims: dict[ClaimKey, ClaimHour] = {}
    hours: list[tuple[HourKey, str, Sums]] = []
    for w in workloads:
        sql = f"SELECT {CLAIM_COLUMNS} FROM progress WHERE workload_no = ?"  # noqa: S608
        claims.update(map(claim_of, rows(sql, (w.workload_no,))))
        sql = f"SELECT hour, back, {_COLUMNS} FROM hourly WHERE workload_no = ?"  # noqa: S608
        for hour, back, *rest in rows(sql, (w.workload_no,)):
            key = HourKey(Slot(hour, back), GroupKey._make(rest[:_KEYS]))
            hours.append((key, w.dtype, [int(text) for text in rest[_KEYS:]]))
    dtypes = {w.dtype for w in workloads if w.dtype}
    margin = noted_margin(rows)
    return progress_document(claims, hours, models, table, dtypes, margin_percent=margin)
