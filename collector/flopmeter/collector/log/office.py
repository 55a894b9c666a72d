"""Heads on time: what seals the log every so often, off the event loop, and says so when it cannot.

Whatever goes wrong here, records go on being taken: what no head covers yet is covered by the next one that is made, and
agents keep their records until then. Only the signing stops.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.errors import CollectorError, LogForkedError
from flopmeter.collector.keys import attest_key, log_key
from flopmeter.collector.store.place import Place
from flopmeter.collector.store.reading import BUSY_TIMEOUT_S, open_for_reading
from flopmeter.collector.store.told import told

from .checkpoint import Checkpoint, Signer
from .evidence_log import EvidenceLog

log = logging.getLogger(__name__)

#: The first head of a start: by then what the start itself wrote is committed.
FIRST_S = 1.0


@dataclass(slots=True)
class Standing:
    """How it stands with the log. Written on the event loop, read by a scrape at any time."""

    size: int = 0  # leaves when it was looked at last
    checkpoint_size: int = 0
    proven_unix_ns: int = 0  # when the head over all that was there was last signed, or found to be that
    failures: int = 0
    forked: bool = False  # what is stored contradicts what was signed: nothing is


class LogOffice:
    """Of one collector. `start`, `seal` and `stop` are for its event loop."""

    def __init__(
        self,
        path: Path,
        keys: Path,
        *,
        origin: str = "",
        every_s: float,
        unix_ns: Callable[[], int] = time.time_ns,
        begun: Callable[[], None] = lambda: None,
        released: Callable[[Checkpoint], Awaitable[None]] | None = None,
        contradicted: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`begun` is called before the log is looked at, `released` when a head is durable, or none was needed.

        `contradicted` gets the text of a contradiction each time that it is met.
        """
        self._path, self._keys, self._origin = path, keys, origin
        self._every_s, self._unix_ns = every_s, unix_ns
        self._begun, self._contradicted = begun, contradicted
        self._released = [released] if released is not None else []
        self._executor = ThreadPoolExecutor(1, "flopmeter-log")
        self._signer: Signer | None = None
        self._connection: sqlite3.Connection | None = None
        self._place: Place | None = None
        self._task: asyncio.Task[None] | None = None
        self._one = asyncio.Lock()
        self._said = ""
        self._stopping = False
        self.standing = Standing()

    def on_release(self, call: Callable[[Checkpoint], Awaitable[None]]) -> None:
        """Have `call` told of each head, when it is durable."""
        self._released.append(call)

    def start(self) -> None:
        """Make heads from now on."""
        self._task = asyncio.get_running_loop().create_task(self._now_and_then())

    async def stop(self) -> None:
        """One last head, over what was committed; then nothing is left open. A log that catches up goes on at a start."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self.seal()
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown(wait=True)

    async def seal(self) -> Checkpoint | None:
        """A head over all that is committed now; None if there is none: nothing is in the log, or it cannot be made."""
        async with self._one:
            self._begun()
            loop = asyncio.get_running_loop()
            try:
                size, head = await loop.run_in_executor(self._executor, self._seal)
            except Exception as e:  # noqa: BLE001 - records are taken all the same
                self._failed(e)
                return None
            self._good(size, head)
            # Else it covers but a part of what was there when it was begun.
            if head is not None and head.size >= size:
                for call in self._released:
                    try:
                        await call(head)
                    except Exception:
                        log.exception("telling of checkpoint %d failed", head.number)
            return head

    async def _now_and_then(self) -> None:
        await asyncio.sleep(min(FIRST_S, self._every_s))
        while True:
            await self.seal()
            await asyncio.sleep(self._every_s)

    def _seal(self) -> tuple[int, Checkpoint | None]:
        """On the office's own thread."""
        with told(str(self._path), "commit"):
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
                self._connection.execute("PRAGMA synchronous = FULL")
                # The writer's commits move the WAL into the store: a head must not take a lock for as long as that.
                self._connection.execute("PRAGMA wal_autocheckpoint = 0")
                self._place = Place(self._path)
            evidence = EvidenceLog(self._connection)
            size = evidence.size
            if self._signer is None:
                # Never in place of one that is gone: the log goes on under its own key alone.
                signer = log_key(self._keys, make=evidence.identity is None)
                attest_key(self._keys)  # made with it, so that its public half can be handed out early
                evidence.fix_identity(self._origin, signer)
                self._signer = signer
            head = evidence.seal(self._signer, self._unix_ns, lambda: self._stopping) if size else None
            if self._place is not None:
                self._place.check()
        return size, head

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _good(self, size: int, head: Checkpoint | None) -> None:
        standing = self.standing
        if self._said:
            log.warning("the evidence log is signed again")
            self._said = ""
        standing.size, standing.forked = size, False
        if head is not None:
            standing.size = max(size, head.size)
            standing.checkpoint_size = head.size
            if head.size >= size:
                standing.proven_unix_ns = self._unix_ns()

    def _failed(self, e: Exception) -> None:
        self.standing.failures += 1
        said = str(e)
        self._said = said or repr(e)
        hint = e.hint if isinstance(e, CollectorError) else ""
        if isinstance(e, LogForkedError):
            self.standing.forked = True
            log.critical("THE EVIDENCE LOG CONTRADICTS ITSELF, and is not signed: %s (%s)", said, hint)
            self._contradicted(said)
        elif isinstance(e, CollectorError):
            log.error("no checkpoint of the evidence log: %s (%s); records go on being taken", said, hint)
        else:
            log.error("no checkpoint of the evidence log; records go on being taken", exc_info=e)


class LogView:
    """Reads of the log by other threads of a collector (ingest.heads.Log): a connection each time, which is a millisecond."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def vkey(self) -> str:
        """The log's public key; "" before the first head."""
        with self._evidence() as evidence:
            identity = evidence.identity
        return "" if identity is None else identity.vkey

    def latest(self) -> Checkpoint | None:
        """The newest head: what is committed may be shown."""
        with self._evidence() as evidence:
            return evidence.latest()

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof from a tree of `old` leaves to one of `new`. Raises LogError for sizes that the log has not."""
        with self._evidence() as evidence:
            return evidence.consistency(old, new)

    @contextlib.contextmanager
    def _evidence(self) -> Iterator[EvidenceLog]:
        with contextlib.closing(open_for_reading(self._path)) as connection, told(str(self._path), "read"):
            yield EvidenceLog(connection)
