"""What people do with the outbox: look at what was put aside, and have events delivered again."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flopmeter.collector.errors import SinkError, StoreError
from flopmeter.collector.store.migrate import check
from flopmeter.collector.store.reading import open_for_reading
from flopmeter.collector.store.told import told

from .outbox import BUSY_TIMEOUT_S

#: Fewest characters of an id that name an event.
LEAST_ID_CHARS = 6
_AFRESH = (
    "attempts = 0, refusals = 0, first_unix_ns = NULL, due_unix_ns = 0, delivered_unix_ns = NULL, "
    "dead_unix_ns = NULL, said = ''"
)


class Dead(NamedTuple):
    """A delivery that was put aside."""

    event_no: int
    event_id: str
    type: str
    subject: str
    sink: str
    answer_no: int  # 0: the event itself, else what a person answered to it
    attempts: int
    first_unix_ns: int
    dead_unix_ns: int
    said: str


class Served(NamedTuple):
    """A sink that a collector has served, and how its outbox stands."""

    sink: str
    type: str
    since_unix_ns: int
    delivered: int
    waiting: int
    dead: int
    oldest_unix_ns: int | None
    said: str  # what the last failed attempt of something that waits was answered


def dead_letters(store: Path, sink: str | None = None) -> list[Dead]:
    """Everything that was put aside, by event. Raises StoreError, SinkRefused of a sink that was never served."""
    sql = (
        "SELECT event_no, coalesce(id, ''), coalesce(type, ''), coalesce(subject, ''), sink, answer_no, attempts, "
        "first_unix_ns, dead_unix_ns, said FROM outbox LEFT JOIN events USING (event_no) "
        "WHERE dead_unix_ns IS NOT NULL AND (?1 IS NULL OR sink = ?1) ORDER BY event_no, sink, answer_no"
    )
    with closing(open_for_reading(store)) as db, told(str(store), "read"):
        if sink is not None:
            _known_sink(db, sink)
        return [Dead(*row) for row in db.execute(sql, (sink,))]


def served(store: Path) -> list[Served]:
    """Every sink that a collector has ever served. Raises StoreError."""
    sql = """
        SELECT s.sink, s.type, s.since_unix_ns,
            coalesce(sum(o.delivered_unix_ns IS NOT NULL), 0),
            coalesce(sum(o.delivered_unix_ns IS NULL AND o.dead_unix_ns IS NULL AND o.sink IS NOT NULL), 0),
            coalesce(sum(o.dead_unix_ns IS NOT NULL), 0),
            (SELECT min(e.time_unix_ns) FROM outbox w JOIN events e USING (event_no)
                WHERE w.sink = s.sink AND w.delivered_unix_ns IS NULL AND w.dead_unix_ns IS NULL),
            coalesce((SELECT said FROM outbox w WHERE w.sink = s.sink AND w.delivered_unix_ns IS NULL
                AND w.dead_unix_ns IS NULL AND said <> '' ORDER BY event_no DESC LIMIT 1), '')
        FROM sinks s LEFT JOIN outbox o ON o.sink = s.sink GROUP BY s.sink ORDER BY s.sink"""
    with closing(open_for_reading(store)) as db, told(str(store), "read"):
        return [Served(*row) for row in db.execute(sql)]


def redeliver(store: Path, ids: Sequence[str], sink: str) -> list[str]:
    """Have events delivered to `sink` again, or for the first time; their ids. Raises SinkError, StoreError.

    All or none: an id that names no event changes nothing.
    """
    with _writing(store) as db:
        _known_sink(db, sink)
        found = [_event(db, name) for name in ids]
        for number, _ in found:
            db.execute(
                "INSERT INTO outbox (event_no, sink) VALUES (?, ?) "  # noqa: S608
                f"ON CONFLICT (event_no, sink, answer_no) DO UPDATE SET {_AFRESH}",
                (number, sink),
            )
    return [event_id for _, event_id in found]


def redeliver_dead(store: Path, sink: str | None = None) -> int:
    """Try again what was put aside, of one sink or of all; how many."""
    with _writing(store) as db:
        if sink is not None:
            _known_sink(db, sink)
        return db.execute(
            f"UPDATE outbox SET {_AFRESH} WHERE dead_unix_ns IS NOT NULL AND (?1 IS NULL OR sink = ?1)",  # noqa: S608
            (sink,),
        ).rowcount


def _known_sink(db: sqlite3.Connection, sink: str) -> None:
    names = [row[0] for row in db.execute("SELECT sink FROM sinks ORDER BY sink")]
    if sink not in names:
        raise SinkRefused(
            f"sink {sink!r}: expected one that a collector has served, of: {', '.join(names) or 'none yet'}",
            "start `flopmeter collector serve --sinks FILE` with it once; flopmeter events sinks lists them",
        )


def _event(db: sqlite3.Connection, name: str) -> tuple[int, str]:
    """By its id, by the beginning of it, or by its number."""
    if name.isascii() and name.isdecimal() and len(name) < LEAST_ID_CHARS + 10:
        row = db.execute("SELECT event_no, id FROM events WHERE event_no = ?", (int(name),)).fetchone()
        if row is not None:
            return row[0], row[1]
    rows: list[Any] = []
    if len(name) >= LEAST_ID_CHARS and all(c in "0123456789abcdef" for c in name):
        rows = db.execute(
            "SELECT event_no, id FROM events WHERE id >= ? AND id < ? LIMIT 2", (name, name + "g")
        ).fetchall()
    if len(rows) != 1:
        raise SinkRefused(
            f"event {name!r}: expected the id of one event (at least {LEAST_ID_CHARS} characters of it) or its "
            f"number, found {'several' if rows else 'none'}",
            "flopmeter events list --json shows the ids",
        )
    return rows[0][0], rows[0][1]


class SinkRefused(SinkError):  # noqa: N818
    """What was asked for cannot be done: no such sink, no such event."""

    exit_code = 1


@contextmanager
def _writing(store: Path) -> Iterator[sqlite3.Connection]:
    """One transaction on a store that a collector may be writing."""
    if not store.is_file():
        raise StoreError(
            f"{store}: expected a store, found no such file", "name the collector's --store file"
        )
    with told(str(store), "write"):
        connection = sqlite3.connect(
            f"{store.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None
        )
        with closing(connection) as db:
            check(db, str(store))
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
