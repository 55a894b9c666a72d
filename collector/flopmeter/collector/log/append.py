"""Appending to the log, inside the transaction that writes the rows: an acknowledged record has its index.

Indexes go on from the last one in the database, and whoever appends holds SQLite's write lock, so that several
processes may append to one log (the collector, and commands of people).
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any

from flopmeter.collector.access.rows import ENDING

from .entry import BATCH, BY_NAME, KINDS, WAITING, Batch, Kind, Salts, batch_leaf
from .rows import Rows, salts_of

log = logging.getLogger(__name__)

#: Leaves in one row at most, 128 KiB of hashes: what lies about one is read as a whole.
ROW_LEAVES = 4_096
#: Leaves that one transaction of a backfill appends: about a tenth of a second.
BACKFILL_LEAVES = 16_384
_SAY_EVERY_S = 5.0
_LAST = "coalesce((SELECT max({0.key}) FROM {0.table}), 0)"
_LOGGED = (
    "coalesce((SELECT first_number + count - 1 FROM log WHERE kind = '{0.name}' "
    "ORDER BY first_number DESC LIMIT 1), 0)"
)
_NEXT = "coalesce((SELECT first_index + count FROM log ORDER BY first_index DESC LIMIT 1), 0)"
#: Per kind the number of its last row, then per kind that of the last one in the log, then the next index.
_ENDS = f"SELECT {', '.join([_LAST.format(k) for k in KINDS] + [_LOGGED.format(k) for k in KINDS] + [_NEXT])}"
_INSERT = "INSERT INTO log (first_index, kind, first_number, count, hashes) VALUES (?, ?, ?, ?, ?)"
_ACCESS = "access"
#: The last access row before the first without an index that ends an agent; NULL: there is none such.
_BEFORE_AN_END = (
    f"SELECT min(access_no) - 1 FROM access WHERE access_no > {_LOGGED.format(KINDS[0])} "  # noqa: S608
    f"AND kind IN ({', '.join('?' * len(ENDING))})"
)


class Appender:
    """Of one writing connection. Every method runs inside a transaction of it (BEGIN IMMEDIATE)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._rows: Rows | None = None

    def forget(self) -> None:
        """The transaction was rolled back: what was read in it may not be so."""
        self._rows = None

    def append(
        self,
        *,
        kinds: Sequence[Kind] = KINDS,
        access_upto: int | None = None,
        access_new: int = 0,
        records: Sequence[tuple[Any, ...]] = (),
        starts_unix_ns: Sequence[int] = (),
        limit: int | None = None,
    ) -> int:
        """Give what has no index yet its indexes, kind by kind. How many leaves that were.

        `access_upto`: number of the last access row that is applied to the records; None: all are. So are the last
        `access_new`, which this transaction wrote, unless one stands before them that is not. `records` in the
        order of the records table's columns, with the start of each one's window: those just written, so that they
        are not read again. `limit`: no more leaves than that.
        """
        ends = self._connection.execute(_ENDS).fetchone()
        first_index = index = int(ends[-1])
        left = limit
        for kind in kinds:
            at = KINDS.index(kind)
            last, logged = int(ends[at]), int(ends[len(KINDS) + at])
            if (
                kind.name == _ACCESS
                and access_upto is not None
                and last - access_new > max(logged, access_upto)
            ):
                last = min(last, access_upto)
            if left is not None:
                last = min(last, logged + left)
            if last <= logged:
                continue
            if kind.name == BATCH and records and (records[0][0], records[-1][0]) == (logged + 1, last):
                hashes: Iterable[bytes] = self._batch_hashes(records, starts_unix_ns)
            else:
                leaves = self._ready().leaves(kind, logged + 1, last + 1)
                hashes = (sha256(b"\0" + leaf).digest() for leaf in leaves)
            index = self._insert(kind, index, logged + 1, hashes)
            if left is not None:
                left -= last - logged
        return index - first_index

    def append_waiting(self) -> int:
        """What people said, and what follows from it (entry.WAITING). How many leaves that were."""
        return self.append(kinds=WAITING)

    def _insert(self, kind: Kind, index: int, number: int, hashes: Iterable[bytes]) -> int:
        row: list[bytes] = []

        def write() -> None:
            self._connection.execute(_INSERT, (index, kind.name, number, len(row), b"".join(row)))

        for leaf_hash in hashes:
            row.append(leaf_hash)
            if len(row) == ROW_LEAVES:
                write()
                index, number = index + len(row), number + len(row)
                row.clear()
        if row:
            write()
        return index + len(row)

    def _batch_hashes(self, records: Sequence[tuple[Any, ...]], starts: Sequence[int]) -> Iterable[bytes]:
        rows = self._ready()
        salt, agent = rows.salts.of, rows.agent
        for r, start in zip(records, starts, strict=True):
            position, _, agent_no, seq, window_end, received, digest, _ = r
            batch = Batch(position, agent(agent_no), digest, seq, start, window_end, received)
            yield sha256(b"\0" + batch_leaf(batch, salt(BATCH, position))).digest()

    def _ready(self) -> Rows:
        """The store's secret, made with its first leaf."""
        if self._rows is None:
            salts = salts_of(self._connection)
            if salts is None:
                secret = os.urandom(32)
                self._connection.execute("INSERT INTO log_identity (one, salt) VALUES (1, ?)", (secret,))
                salts = Salts(secret)
            self._rows = Rows(self._connection, salts)
        return self._rows


def backfill(connection: sqlite3.Connection, clock_s: Callable[[], float] = time.monotonic) -> int:
    """Give indexes to all that an older flopmeter, or a start that was killed, left without: before records are taken.

    In transactions of some thousands, so that a start that is killed goes on where it was. Who was revoked meanwhile, by a
    command, is so behind all records: they were taken before. How many leaves it appended.
    """
    appender = Appender(connection)
    done, said = 0, clock_s()
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            (upto,) = connection.execute(_BEFORE_AN_END, ENDING).fetchone()
            more = appender.append(access_upto=upto, limit=BACKFILL_LEAVES)
            if more < BACKFILL_LEAVES:  # all records are in
                more += appender.append()
            connection.execute("COMMIT")
        except BaseException:
            appender.forget()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        done += more
        if more < BACKFILL_LEAVES:
            break
        if clock_s() - said >= _SAY_EVERY_S:
            said = clock_s()
            rows = connection.execute("SELECT coalesce(max(position), 0) FROM records").fetchone()[0]
            log.warning(
                "the evidence log is made of what is in the store, once: %d leaves so far (%d records there); agents "
                "are listened to when it is done",
                done,
                rows,
            )
    if done > BACKFILL_LEAVES:
        log.info("the evidence log has %d leaves more, of rows that were in the store", done)
    return done


def waiting(connection: sqlite3.Connection) -> dict[str, int]:
    """How many rows of each kind have no index yet; kinds without any are left out."""
    ends = connection.execute(_ENDS).fetchone()
    found = {name: ends[i] - ends[len(KINDS) + i] for i, name in enumerate(BY_NAME)}
    return {name: count for name, count in found.items() if count}
