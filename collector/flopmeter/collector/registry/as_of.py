"""The books as they stood at some moment: derived again, from the stored records up to then.

Nothing is kept twice for this. The records that had been received by then are read in order, by the rules that fsck
derives the books by; what comes out is laid over the store in temporary tables of this reader alone, entries and
events of later times are hidden, and then the same code answers as answered then. Exact to the last integer, but for
three things: records that were received and not yet committed at that very moment are in it (a commit lingers 100 ms);
nodes are called what they are called today; and the law and the W table are today's, under their own dates.
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

#: Tables with a time of their own: later rows are hidden.
_DATED = (
    ("agents", "admitted_unix_ns"),
    ("inventories", "received_unix_ns"),
    ("losses", "noticed_unix_ns"),
    ("conflicts", "received_unix_ns"),
    ("events", "time_unix_ns"),
    ("entries", "unix_ns"),
    ("answers", "unix_ns"),
    ("deadlines", "opened_unix_ns"),
    ("identity_rules", "from_unix_ns"),
)


class AsOf(NamedTuple):
    """A reader of the books as they stood, and what that took."""

    reader: Reader
    records: int  # read, from the first on
    entries: int  # of the registry, that had been made


@contextmanager
def reading_as_of(path: Path, unix_ns: int, progress: Progress | None = None) -> Iterator[AsOf]:
    """The store at `path` as it stood at `unix_ns`. Raises StoreError, also where the records contradict each other."""
    with reading(path) as reader:
        (last,) = reader.rows(
            "SELECT coalesce(max(position), 0) FROM records WHERE received_unix_ns <= ?", (unix_ns,)
        ).fetchone()
        try:
            books = _derive(reader, last, progress)
        except Difference as d:
            raise StoreError(
                f"{path}: expected records from which the books follow, got a difference: {d}",
                "`flopmeter collector fsck` says more; restore a backup",
            ) from d
        _lay_over(reader, books, last, unix_ns)
        (entries,) = reader.rows("SELECT count(*) FROM entries").fetchone()
        yield AsOf(reader, last, entries)


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
