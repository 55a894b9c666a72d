"""Curves that somebody looked at: kept by run, and only hours that new records touched are read again."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

from flopmeter.collector.books import HOUR_NS, SUM_FIELDS, GroupKey, Slot, Sums
from flopmeter.collector.report.documents import RunRows, WorkloadRow
from flopmeter.collector.report.queries import Reader

from .curve_book import CurveBook
from .numbers import first_hour
from .touched import Touched

_KEY = ", ".join(GroupKey._fields)
_SUMS = ", ".join(SUM_FIELDS)
_ROWS = f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly WHERE workload_no = ? AND hour >= ?"  # noqa: S608
#: Rows of all books together: about half a kilobyte each. A year of a run on one GPU model is some ten thousand.
MOST_ROWS = 150_000


@dataclass(slots=True)
class _Kept:
    book: CurveBook
    dtypes: dict[int, str]  # by workload: its members
    position: int  # of the store when it was read


class Curves:
    """Of runs, the one asked for longest ago is given up first. Whoever asks holds `lock`, as long as it looks into a book."""

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._most_rows = most_rows
        self.rows = 0  # of the store that were read, since the start
        self.lock = Lock()

    def has(self, run: str) -> bool:
        return run in self._kept

    @property
    def room(self) -> bool:
        """Whether more may be read before anybody asked: half of it is for those who ask."""
        return sum(k.book.size for k in self._kept.values()) < self._most_rows // 2

    def of(self, reader: Reader, rows: RunRows, touched: Touched, position: int) -> CurveBook:
        """The run's book as of the reader's state, whose last record is `position`."""
        told = touched.position
        dtypes = {w.workload_no: w.dtype for w in rows.workloads}
        kept = self._kept.get(rows.run)
        if kept is None or any(dtypes.get(no) != dtype for no, dtype in kept.dtypes.items()):
            kept, hour = _Kept(CurveBook(), dtypes, position), 0
        else:
            behind = (touched.since(kept.position), first_hour(reader, max(told, kept.position)))
            new = (w.first_unix_ns // HOUR_NS for w in rows.workloads if w.workload_no not in kept.dtypes)
            found = [h for h in (*behind, *new) if h is not None]
            hour = min(found, default=-1)
            kept.dtypes, kept.position = dtypes, position
        if hour >= 0:
            kept.book.cut(hour)
            self.rows += kept.book.extend(_rows(reader, rows.workloads, hour))
        self._kept[rows.run] = kept
        self._kept.move_to_end(rows.run)
        while len(self._kept) > 1 and sum(k.book.size for k in self._kept.values()) > self._most_rows:
            self._kept.popitem(last=False)
        return kept.book


def _rows(
    reader: Reader, workloads: Iterable[WorkloadRow], hour: int
) -> Iterator[tuple[Slot, str, GroupKey, Sums]]:
    for w in workloads:
        for row in reader.rows(_ROWS, (w.workload_no, hour)):
            yield Slot(*row[:2]), w.dtype, GroupKey._make(row[2:8]), [int(text) for text in row[8:]]
