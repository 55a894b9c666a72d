"""The books as they stood at some moment: derived again, from the stored records up to then.

Nothing is kept twice for this. The records that had been received by then are read in order, by the rules that fsck
derives the books by; what comes out is laid over the store in temporary tables of this reader alone, entries and
events of later times are hidden, and then the same code answers as answered then. Exact to the last integer, but for
three things: records that were received and not yet committed at that very moment are in it (a commit lingers 100 ms);
nodes are called what they are called today; and the law and the W table are today's, under their own dates.

What came when is asked of the collector's clock, in the order in which things came: the first that it dates later than
the moment ends the answer. So a clock that is set back takes nothing in that came after it had once, as far as any
record shows, passed that time; but for agents, losses, inventories and refused records, which have a clock alone.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flopmeter.collector.check.rederive import RECORD_COLUMNS, Difference, Rederivation
from flopmeter.collector.check.stored import stored_books
from flopmeter.collector.errors import StoreError
from flopmeter.collector.law.progress import stored_claim
from flopmeter.collector.report.queries import Reader, reading

Progress = Callable[[int, int], None]
PROGRESS_EVERY = 500


class _Numbered(NamedTuple):
    """A table whose rows were made one after the other, each by the collector's clock."""

    table: str
    number: str
    clock: str
    position: str = "0"  # of the last record that there was when the row was made


_NUMBERED = (
    _Numbered("agents", "agent_no", "admitted_unix_ns"),
    _Numbered("losses", "loss_no", "noticed_unix_ns"),
    _Numbered("events", "event_no", "time_unix_ns", "position"),
    _Numbered("entries", "entry_no", "unix_ns", "position"),
    _Numbered("answers", "answer_no", "unix_ns", "position"),
    _Numbered("deadlines", "deadline_no", "opened_unix_ns", "position"),
    _Numbered("identity_rules", "from_position", "from_unix_ns", "from_position - 1"),
)
#: Tables with a clock and no order of their own.
_DATED = (
    ("inventories", "received_unix_ns"),
    ("conflicts", "received_unix_ns"),
    ("forecasts", "unix_ns"),
    ("clocks", "measured_unix_ns"),  # the last measurement alone is kept: before it nothing is known
)


class AsOf(NamedTuple):
    """A reader of the books as they stood, and what that took."""

    reader: Reader
    records: int  # read, from the first on
    entries: int  # of the registry, that had been made
    set_back: int  # records that came later, with an earlier clock


@contextmanager
def reading_as_of(path: Path, unix_ns: int, progress: Progress | None = None) -> Iterator[AsOf]:
    """The store at `path` as it stood at `unix_ns`. Raises StoreError, also where the records contradict each other."""
    with reading(path) as reader:
        last, set_back = _last_record(reader, unix_ns)
        try:
            books = _derive(reader, last, progress)
        except Difference as d:
            raise StoreError(
                f"{path}: expected records from which the books follow, got a difference: {d}",
                "`flopmeter collector fsck` says more; restore a backup",
            ) from d
        _lay_over(reader, books, last, unix_ns)
        (entries,) = reader.rows("SELECT count(*) FROM entries").fetchone()
        yield AsOf(reader, last, entries, set_back)


def _last_record(reader: Reader, unix_ns: int) -> tuple[int, int]:
    """The last record that had come by then, and how many came behind it although their clock says earlier."""
    (end,) = reader.rows(
        "SELECT coalesce(min(position), (SELECT coalesce(max(position), 0) + 1 FROM records)) FROM records "
        "WHERE received_unix_ns > ?",
        (unix_ns,),
    ).fetchone()
    (set_back,) = reader.rows(
        "SELECT count(*) FROM records WHERE position > ? AND received_unix_ns <= ?", (end, unix_ns)
    ).fetchone()
    return end - 1, set_back


def _derive(reader: Reader, last: int, progress: Progress | None) -> Rederivation:
    books = stored_books(reader, signatures=False).books
    sql = f"SELECT {RECORD_COLUMNS} FROM main.records WHERE position <= ? ORDER BY position"  # noqa: S608
    for done, row in enumerate(reader.rows(sql, (last,)), 1):
        books.take(row)
        if progress is not None and (done % PROGRESS_EVERY == 0 or done == last):
            progress(done, last)
    return books


def _lay_over(reader: Reader, books: Rederivation, last: int, unix_ns: int) -> None:
    """Temporary tables and views: SQLite looks names up there first."""
    # S608: names and integers of this program only; a view takes no bound values.
    known = max((a.agent_no for a in books.agents.values() if a.position), default=0)
    for t in _NUMBERED:
        (end,) = reader.rows(
            f"SELECT min({t.number}) FROM main.{t.table} WHERE {t.clock} > ? OR {t.position} > ?",  # noqa: S608
            (unix_ns, last),
        ).fetchone()
        if end is None:
            end = 1 << 62
        elif t.table == "agents":  # a record that had come is of an agent that there was
            end = max(end, known + 1)
        reader.rows(f"CREATE TEMP VIEW {t.table} AS SELECT * FROM main.{t.table} WHERE {t.number} < {end:d}")  # noqa: S608
    for table, column in _DATED:
        reader.rows(f"CREATE TEMP VIEW {table} AS SELECT * FROM main.{table} WHERE {column} <= {unix_ns:d}")  # noqa: S608
    reader.rows(f"CREATE TEMP VIEW records AS SELECT * FROM main.records WHERE position <= {last:d}")  # noqa: S608
    _fill(reader, "totals", ((*key, *map(str, sums)) for key, sums in books.totals.items()))
    _fill(reader, "hourly", ((*key.slot, *key.group, *map(str, sums)) for key, sums in books.hourly.items()))
    _fill(
        reader,
        "heads",
        ((a.agent_no, a.position, a.head.usual_window_ns) for a in books.agents.values() if a.position),
    )
    _fill(reader, "claims", (claim.row for claim in books.claims.rows))
    _fill(reader, "formerly", ((no, run) for run, numbers in books.formerly.items() for no in numbers))
    _fill(reader, "progress", (stored_claim(key, claim) for key, claim in books.claim_hours.items()))
    reader.rows("CREATE TEMP TABLE workloads AS SELECT * FROM main.workloads WHERE 0")
    for number, span in books.spans.items():
        reader.rows(
            "INSERT INTO temp.workloads SELECT * FROM main.workloads WHERE workload_no = ?", (number,)
        )
        reader.rows(
            "UPDATE temp.workloads SET run = ?, run_rule = ?, first_unix_ns = ?, last_unix_ns = ? WHERE rowid = "
            "last_insert_rowid()",
            (span.run, span.rule, span.first_unix_ns, span.last_unix_ns),
        )


def _fill(reader: Reader, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    reader.rows(f"CREATE TEMP TABLE {table} AS SELECT * FROM main.{table} WHERE 0")  # noqa: S608
    for row in rows:
        reader.rows(f"INSERT INTO temp.{table} VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
