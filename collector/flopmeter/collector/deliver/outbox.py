"""The outbox, as one sink's worker sees it, and as people do: what is due, what became of it, what was put aside.

Every write is one short transaction; none is open while a sink is talked to, so that a sink that hangs holds no lock.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.errors import SinkError

from .answer import MOST_ASKED_NS
from .message import Message, change_message, event_message
from .redact import Redaction

#: A collector's commit takes a fraction of a second, its checkpoint seconds on a slow disk.
BUSY_TIMEOUT_S = 10.0
_STANDING = "delivered_unix_ns IS NULL AND dead_unix_ns IS NULL"
#: What is due; and what was noted for later than any retry waits: then the clock was stepped back.
_DUE = f"sink = :sink AND {_STANDING} AND (due_unix_ns <= :now OR due_unix_ns > :now + {MOST_ASKED_NS})"
#: Of one event in order: an answer waits until what it answers is delivered, or put aside.
_IN_TURN = (
    "NOT (answer_no > 0 AND EXISTS (SELECT 1 FROM outbox o WHERE o.event_no = outbox.event_no AND o.sink = outbox.sink "
    "AND o.answer_no < outbox.answer_no AND o.delivered_unix_ns IS NULL AND o.dead_unix_ns IS NULL))"
)
_NEW_ANSWER = "answer_no > (SELECT answer_no FROM sinks WHERE sink = ?1)"
_EVENT = "e.event_no, e.id, e.type, e.subject, e.time_unix_ns, e.since_position, e.position, e.data"
_ANSWER = "answer_no, unix_ns, state, who, why"


@dataclass(frozen=True, slots=True)
class Row:
    """A delivery that is due."""

    event_no: int
    answer_no: int
    attempts: int
    refusals: int
    first_unix_ns: int | None


@dataclass(frozen=True, slots=True)
class Noted:
    """What is written of an attempt: delivered, put aside, or when it is tried again."""

    row: Row
    refused: bool
    first_unix_ns: int
    due_unix_ns: int
    delivered_unix_ns: int | None
    dead_unix_ns: int | None
    said: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How one sink's outbox stands."""

    waiting: int = 0
    dead: int = 0
    oldest_unix_ns: int | None = None  # when the oldest event that is not delivered happened
    next_due_unix_ns: int | None = None


@contextmanager
def opened(store: Path) -> Iterator[sqlite3.Connection]:
    """A connection that may write what was delivered. Raises SinkError for every error of the database.

    Never made anew: a store that was deleted must not come back as an empty file.
    """
    try:
        name = f"{store.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(name, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            yield db
    except sqlite3.Error as e:
        raise SinkError(f"{store}: cannot read the outbox: {e}", "check the store") from e


def introduce(db: sqlite3.Connection, sink: str, kind: str, now_unix_ns: int) -> None:
    """Note that a collector serves this sink. What people answered before is not its."""
    if db.execute("SELECT 1 FROM sinks WHERE sink = ? AND type = ?", (sink, kind)).fetchone():
        return
    sql = (
        "INSERT INTO sinks SELECT ?, ?, ?, coalesce(max(answer_no), 0) FROM answers WHERE true "
        "ON CONFLICT (sink) DO UPDATE SET type = excluded.type"
    )
    _write(db, sql, [(sink, kind, now_unix_ns)])


def take_answers(db: sqlite3.Connection, sink: str, *, follow: bool) -> None:
    """A delivery for each answer to an event that this sink was given, once; or none, where it does not follow them."""
    if not db.execute(f"SELECT 1 FROM answers WHERE {_NEW_ANSWER} LIMIT 1", (sink,)).fetchone():  # noqa: S608
        return
    with _transaction(db):
        if follow:
            db.execute(
                "INSERT OR IGNORE INTO outbox (event_no, sink, answer_no) "  # noqa: S608
                "SELECT o.event_no, o.sink, a.answer_no FROM answers a JOIN outbox o ON o.event_no = a.number "
                f"AND o.sink = ?1 AND o.answer_no = 0 WHERE a.about = 'event' AND a.{_NEW_ANSWER}",
                (sink,),
            )
        db.execute(
            "UPDATE sinks SET answer_no = (SELECT coalesce(max(answer_no), 0) FROM answers) WHERE sink = ?",
            (sink,),
        )


def due(db: sqlite3.Connection, sink: str, now_unix_ns: int, limit: int) -> list[Row]:
    """What is to be delivered now: what was never tried before what failed, each in the order of the events."""
    found = db.execute(
        f"SELECT event_no, answer_no, attempts, refusals, first_unix_ns FROM outbox WHERE {_DUE} "  # noqa: S608
        f"AND {_IN_TURN} ORDER BY due_unix_ns, event_no, answer_no LIMIT :limit",
        {"sink": sink, "now": now_unix_ns, "limit": limit},
    ).fetchall()
    return [Row(*r) for r in found]


def message_of(db: sqlite3.Connection, event_no: int, answer_no: int, redaction: Redaction) -> Message:
    """What is delivered of one row, with how its event stands now. Raises SinkError if there is no such event."""
    event = db.execute(f"SELECT {_EVENT} FROM events e WHERE event_no = ?", (event_no,)).fetchone()  # noqa: S608
    if event is None:
        raise SinkError(f"event_no {event_no}: expected an event, found none", "flopmeter collector fsck")
    last = db.execute(
        f"SELECT {_ANSWER} FROM answers WHERE about = 'event' AND number = ? ORDER BY answer_no DESC LIMIT 1",  # noqa: S608
        (event_no,),
    ).fetchone()
    answer = None if last is None else dict(last)
    if not answer_no:
        return event_message(dict(event), redaction, answer)
    change = db.execute(f"SELECT {_ANSWER} FROM answers WHERE answer_no = ?", (answer_no,)).fetchone()  # noqa: S608
    if change is None or answer is None:
        raise SinkError(f"answer_no {answer_no}: expected an answer, found none", "flopmeter collector fsck")
    return change_message(dict(event), dict(change), redaction, answer)


def note(db: sqlite3.Connection, sink: str, notes: Iterable[Noted]) -> None:
    """What became of attempts. D2: durable from here; a crash before repeats the delivery, with the same id."""
    _write(
        db,
        "UPDATE outbox SET attempts = attempts + 1, refusals = refusals + ?, first_unix_ns = ?, due_unix_ns = ?, "
        "delivered_unix_ns = ?, dead_unix_ns = ?, said = ? WHERE event_no = ? AND sink = ? AND answer_no = ?",
        [
            (
                n.refused,
                n.first_unix_ns,
                n.due_unix_ns,
                n.delivered_unix_ns,
                n.dead_unix_ns,
                n.said,
                n.row.event_no,
                sink,
                n.row.answer_no,
            )
            for n in notes
        ],
    )


def hurry(db: sqlite3.Connection, sink: str) -> None:
    """Nobody was there, and somebody is again: what failed for that is due now."""
    sql = f"UPDATE outbox SET due_unix_ns = 0 WHERE sink = ? AND refusals = 0 AND {_STANDING}"  # noqa: S608
    _write(db, sql, [(sink,)])


def standing(db: sqlite3.Connection, sink: str) -> Standing:
    waiting, first = db.execute(
        f"SELECT count(*), min(event_no) FROM outbox WHERE sink = ? AND {_STANDING}",  # noqa: S608
        (sink,),
    ).fetchone()
    next_due = oldest = None
    if first is not None:
        next_due = db.execute(
            f"SELECT min(due_unix_ns) FROM outbox WHERE sink = ? AND {_STANDING} AND {_IN_TURN}",  # noqa: S608
            (sink,),
        ).fetchone()[0]
        row = db.execute("SELECT time_unix_ns FROM events WHERE event_no = ?", (first,)).fetchone()
        oldest = row[0] if row else None
    dead = db.execute(
        "SELECT count(*) FROM outbox WHERE sink = ? AND dead_unix_ns IS NOT NULL", (sink,)
    ).fetchone()[0]
    return Standing(waiting, dead, oldest, next_due)


def open_events(db: sqlite3.Connection, sink: str) -> list[int]:
    """Events that this sink was told of and nobody has resolved, in order: what Alertmanager must be told again.

    What is said of a deadline is over when that is resolved, too.
    """
    return [
        row[0]
        for row in db.execute(
            "SELECT event_no FROM outbox o JOIN events e USING (event_no) WHERE o.sink = ? AND o.answer_no = 0 "
            "AND o.delivered_unix_ns IS NOT NULL AND coalesce((SELECT state FROM answers WHERE about = 'event' "
            "AND number = o.event_no ORDER BY answer_no DESC LIMIT 1), 'open') <> 'resolved' "
            "AND NOT (e.type IN ('deadline.near', 'deadline.overdue') AND coalesce((SELECT state FROM answers "
            "WHERE about IN ('deadline', 'incident') AND number = (SELECT deadline_no FROM deadlines "
            "WHERE id = json_extract(e.data, '$.deadline')) ORDER BY answer_no DESC LIMIT 1), 'open') = 'resolved') "
            "ORDER BY event_no",
            (sink,),
        )
    ]


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _write(db: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    """One short transaction: the collector's writer waits for it, at most."""
    with _transaction(db):
        db.executemany(sql, rows)
