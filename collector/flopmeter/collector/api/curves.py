"""Curves of runs: kept by the day, read by the hour where that is little, and of both only what new records touched again.

What is kept is in this process's memory alone: after a restart it is read again, the longest runs before anybody asks.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock

from flopmeter.collector.books import HOUR_NS, SUM_FIELDS
from flopmeter.collector.figures import PriceKey
from flopmeter.collector.report.documents import RunRows, WorkloadRow
from flopmeter.collector.report.progress_queries import claims_since
from flopmeter.collector.report.queries import Reader

from .claims_book import ClaimsBook
from .curve_book import DAY, CurveBook, Row
from .numbers import first_hour
from .touched import Touched

_PRICED = ", ".join(PriceKey._fields[:-1])
_ROWS = (
    f"SELECT hour, back, gap_reason, {_PRICED}, {', '.join(SUM_FIELDS)} FROM hourly "  # noqa: S608
    "WHERE workload_no = ? AND hour >= ? AND hour < ?"
)
#: A window's start says nothing of it: where a node's clock was set back within the window, that is behind its end.
_FIRST = (
    "SELECT min(hour) FROM (SELECT min(hour) AS hour FROM hourly WHERE workload_no = ?1 "
    "UNION ALL SELECT min(hour) FROM progress WHERE workload_no = ?1)"
)
_KEY = slice(3, 3 + len(PriceKey._fields) - 1)
_SUMS = 3 + len(PriceKey._fields) - 1
#: Rows of the store that a question may have read by the hour: about 90 days of a run with five rows an hour, which is
#: a tenth of a second. A longer stretch is answered by days.
FINE_ROWS = 12_000
#: So many days are answered by hours whatever they hold, that a run's first days are no two points.
FINE_DAYS = 2
#: A run of more rows is read before anybody asks: a year of one takes half a second.
AHEAD_ROWS = 2_000
#: Sums of all books together, half a kilobyte each: 80 years of runs by days. Of them by hours: 100,000.
MOST_SUMS, MOST_FINE = 200_000, 100_000
#: Of a run that is read whole, rows at a time: what is read and not yet added up is some ten thousand of them.
_CHUNK_HOURS = 64 * DAY
_NO_END = 1 << 40


@dataclass(slots=True)
class _Kept:
    book: CurveBook
    dtypes: dict[int, str]  # by workload: its members
    position: int  # of the store when it was read
    claims: ClaimsBook = field(default_factory=ClaimsBook)


class Curves:
    """Of runs, the one asked for longest ago is given up first. Whoever asks holds `lock`, as long as it looks into a book."""

    def __init__(
        self, most_sums: int = MOST_SUMS, fine_rows: int = FINE_ROWS, ahead_rows: int = AHEAD_ROWS
    ) -> None:
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._most_sums, self._fine_rows, self._ahead_rows = most_sums, fine_rows, ahead_rows
        self.rows = 0  # of the store that were read, since the start
        self.lock = Lock()

    def has(self, run: str) -> bool:
        return run in self._kept

    def room_for(self, rows: RunRows) -> bool:
        """Whether it may be read before anybody asked: half of the room is for those who ask."""
        days = most_rows(rows) // DAY
        with self.lock:
            return sum(k.book.size for k in self._kept.values()) + days <= self._most_sums // 2

    def is_long(self, rows: RunRows) -> bool:
        """Whether reading it while somebody waits would take long."""
        return most_rows(rows) > self._ahead_rows

    def of(self, reader: Reader, rows: RunRows, touched: Touched, position: int) -> CurveBook:
        """The run's book as of the reader's state, whose last record is `position`. Its last day is fine."""
        told = touched.position
        dtypes = {w.workload_no: w.dtype for w in rows.workloads}
        kept = self._kept.get(rows.run)
        if kept is None or any(dtypes.get(no) != dtype for no, dtype in kept.dtypes.items()):
            kept = self._new(reader, rows, dtypes, position)
        else:
            behind = (touched.since(kept.position), first_hour(reader, max(told, kept.position)))
            new = (reader.rows(_FIRST, (no,)).fetchone()[0] for no in dtypes.keys() - kept.dtypes.keys())
            found = [h for h in (*behind, *new) if h is not None]
            kept.dtypes, kept.position = dtypes, position
            if found:
                kept.claims.cut(min(found))
                self._whole(reader, rows, kept.book, kept.book.cut(min(found)))
        self.keep(rows.run, kept)
        return kept.book

    def claims(self, reader: Reader, rows: RunRows) -> ClaimsBook:
        """What is claimed of a run whose book was just asked for."""
        claims = self._kept[rows.run].claims
        if claims.lacks is not None:
            claims.extend(claims_since(reader.rows, rows.workloads, claims.lacks))
        return claims

    def ahead(self, reader: Reader, rows: RunRows, position: int) -> None:
        """Read it before anybody asks: by hours if all of it is answered so, and half of the room for that is left. Nobody
        waits for it.
        """
        kept = self._new(reader, rows, {w.workload_no: w.dtype for w in rows.workloads}, position)
        kept.claims.extend(claims_since(reader.rows, rows.workloads, 0))
        ends = kept.book.ends
        if ends is None or sum(d.rows for d in kept.book.days(*ends)) > self._fine_rows:
            kept.book.coarsen()
        with self.lock:
            if rows.run in self._kept:
                return
            if sum(k.book.fine_size for k in (*self._kept.values(), kept)) > MOST_FINE // 2:
                kept.book.coarsen()
            self.keep(rows.run, kept)
            self._kept.move_to_end(rows.run, last=False)  # nobody asked for it yet

    def keep(self, run: str, kept: _Kept) -> None:
        self._kept[run] = kept
        self._kept.move_to_end(run)
        if kept.book.fine_size > 2 * self._fine_rows:  # somebody looked at one part after the other
            kept.book.coarsen(self._fine_rows)
        fine = sum(k.book.fine_size for k in self._kept.values())
        for other in list(self._kept.values())[:-1]:
            if fine <= MOST_FINE:
                break
            fine -= other.book.fine_size
            other.book.coarsen()
            fine += other.book.fine_size
        size = sum(k.book.size for k in self._kept.values())
        while len(self._kept) > 1 and size > self._most_sums:
            size -= self._kept.popitem(last=False)[1].book.size

    def by_hours(self, reader: Reader, rows: RunRows, book: CurveBook, hours: tuple[int, int]) -> bool:
        """Make that stretch of a book that is of the reader's state fine. False: it is too much to read for one answer."""
        days = book.days(*hours)
        if len(days) > FINE_DAYS and sum(d.rows for d in days) > self._fine_rows:
            return False
        self.refine(reader, rows, book, [d.day for d in days])
        return True

    def refine(self, reader: Reader, rows: RunRows, book: CurveBook, days: Iterable[int]) -> None:
        """Make those days fine, whatever they hold."""
        stretch: list[int] = []
        for day in [*sorted(d for d in days if not book.is_fine(d)), _NO_END]:
            if stretch and (day != stretch[-1] + 1 or len(stretch) * DAY >= _CHUNK_HOURS):
                found = _rows(reader, rows.workloads, stretch[0] * DAY, (stretch[-1] + 1) * DAY)
                self.rows += book.refine(found)
                stretch = []
            stretch.append(day)

    def _new(self, reader: Reader, rows: RunRows, dtypes: dict[int, str], position: int) -> _Kept:
        book = CurveBook()
        self._whole(reader, rows, book, 0)
        return _Kept(book, dtypes, position)

    def _whole(self, reader: Reader, rows: RunRows, book: CurveBook, since: int) -> None:
        """Read all from that hour on. What is read last stays fine, as much as one answer may have read."""
        end = max(since, rows.first_unix_ns // HOUR_NS) + _CHUNK_HOURS
        last = rows.last_unix_ns // HOUR_NS
        while since < _NO_END:
            until = end if end <= last else _NO_END
            self.rows += book.extend(_rows(reader, rows.workloads, since, until))
            if book.fine_size > self._fine_rows:
                book.coarsen(self._fine_rows)
            since, end = until, until + _CHUNK_HOURS


def most_rows(rows: RunRows) -> int:
    """At most so many rows of the store the run's hours have, but for reasons of gaps and bridges."""
    groups: dict[int, int] = {}
    for key in rows.groups:
        groups[key.workload_no] = groups.get(key.workload_no, 0) + 1
    return sum(
        groups.get(w.workload_no, 0) * (w.last_unix_ns // HOUR_NS - w.first_unix_ns // HOUR_NS + 1)
        for w in rows.workloads
    )


def _rows(reader: Reader, workloads: Iterable[WorkloadRow], since: int, until: int) -> Iterator[Row]:
    for w in workloads:
        keys: dict[tuple[int, ...], PriceKey] = {}
        for row in reader.rows(_ROWS, (w.workload_no, since, until)):
            key = keys.get(row[_KEY])
            if key is None:
                key = keys[row[_KEY]] = PriceKey._make((*row[_KEY], w.dtype))
            yield row[0], row[1], row[2], key, list(map(int, row[_SUMS:]))
