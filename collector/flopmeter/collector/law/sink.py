"""The JSON Lines event sink: every event to a file, one CloudEvent a line, at least once.

It works from the outbox, in its own thread and on its own connection, so a sink that fails or hangs delays
nobody. A line is fsynced before its delivery is noted; a crash between the two repeats the line, with the
same id, and never loses it.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.store.sqlite import BUSY_TIMEOUT_S

from .events import to_cloudevent

log = logging.getLogger(__name__)

BATCH = 200  # events delivered and noted at once
POLL_S = 5.0  # the outbox is looked at this often even if nobody says that something happened
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
STOP_TIMEOUT_S = 5.0
#: How our lines begin; a file's tail that begins so and has no end was torn by a crash of ours.
_LINE_START = b'{"specversion"'

Append = Callable[[Path, bytes], None]


class SinkError(CollectorError):
    """Events could not be delivered; they stay in the outbox."""


class EventLog:
    """Delivers the outbox rows of sink `name` to the file at `path`."""

    def __init__(
        self,
        store: Path,
        path: Path,
        name: str,
        *,
        append: Append | None = None,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = path
        self._store = store
        self._name = name
        self._append = append or append_durably
        self._unix_ns = unix_ns
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Deliver in a thread of its own until `stop`."""
        self._thread = threading.Thread(target=self._run, name=f"flopmeter-sink-{self._name}", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There may be new events. Never blocks."""
        self._wake.set()

    def stop(self) -> None:
        """Deliver what is there, if that goes at once, and end. What remains is delivered at the next start."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def deliver(self) -> int:
        """Deliver all that is undelivered now; how many. Raises SinkError; those not delivered are kept."""
        done = 0
        try:
            # Never made anew: a store that was deleted must not come back as an empty file.
            name = f"{self._store.absolute().as_uri()}?mode=rw"
            connection = sqlite3.connect(name, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            with closing(connection) as db:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA synchronous = FULL")
                while rows := self._undelivered(db):
                    self._deliver(db, rows)
                    done += len(rows)
        except sqlite3.Error as e:
            raise SinkError(f"{self._store}: cannot read the outbox: {e}", "check the store") from e
        return done

    def _undelivered(self, db: sqlite3.Connection) -> Sequence[sqlite3.Row]:
        return db.execute(
            "SELECT e.* FROM outbox JOIN events e USING (event_no) "
            "WHERE sink = ? AND delivered_unix_ns IS NULL ORDER BY event_no LIMIT ?",
            (self._name, BATCH),
        ).fetchall()

    def _deliver(self, db: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> None:
        numbers = [(row["event_no"], self._name) for row in rows]
        lines = b"".join(
            json.dumps(to_cloudevent(dict(row)), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
            for row in rows
        )
        try:
            self._append(self.path, lines)
        except OSError as e:
            _write(db, "UPDATE outbox SET attempts = attempts + 1 WHERE event_no = ? AND sink = ?", numbers)
            raise SinkError(
                f"{self.path}: cannot write events: {e.strerror or e}", "they are kept and tried again"
            ) from e
        # The lines are durable from here. A crash before the next one repeats them, with the same ids.
        noted = [(self._unix_ns(), *number) for number in numbers]
        _write(
            db,
            "UPDATE outbox SET attempts = attempts + 1, delivered_unix_ns = ? WHERE event_no = ? AND sink = ?",
            noted,
        )

    def _run(self) -> None:
        retry_s = 0.0
        while True:
            stopping = self._stop.is_set()
            self._wake.clear()
            try:
                self.deliver()
                retry_s = 0.0
            except SinkError as e:
                if not retry_s:
                    log.warning("event log: %s; %s", e, e.hint)
                retry_s = min(LAST_RETRY_S, max(FIRST_RETRY_S, retry_s * 2))
            if stopping:
                return
            if retry_s:  # a failing file is not tried more often because more happens
                self._stop.wait(retry_s)
            else:
                self._wake.wait(POLL_S)


def _write(db: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    """One short transaction: the collector's writer waits for it, at most."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.executemany(sql, rows)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def check_event_log(path: Path) -> None:
    """Make sure that events can be written, before the first one has to be. Raises CollectorError."""
    try:
        append_durably(path, b"")
    except OSError as e:
        raise CollectorError(
            f"--event-log {path}: expected a file that events can be added to: {e.strerror or e}",
            "name a file in a directory that exists and that this user may write in",
        ) from e


def append_durably(path: Path, lines: bytes) -> None:
    """Append and fsync. Opened anew each time, so that the file may be rotated away. Raises OSError.

    A line torn by a crash is cut off: its event was not noted as delivered, and comes again whole.
    """
    fresh = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        _mend(handle)
        before = os.fstat(handle).st_size
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)
    if fresh:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _mend(handle: int) -> None:
    size = os.fstat(handle).st_size
    start, tail = size, b""
    while start > 0 and b"\n" not in tail:
        step = min(65_536, start)
        start -= step
        tail = os.pread(handle, step, start) + tail
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return
    if torn.startswith(_LINE_START) or _LINE_START.startswith(torn):
        os.ftruncate(handle, size - len(torn))
    else:  # not a line of ours: leave it, and begin behind it
        os.write(handle, b"\n")
