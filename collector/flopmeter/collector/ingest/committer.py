"""Group commit, seen from the event loop: when a group is closed, who is told, and what a failure means."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from flopmeter.collector.errors import StoreError
from flopmeter.collector.metrics import Counters

from .group import Agent, Group
from .intake import Intake
from .writer import Committed, Writer

log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: A group is handed over before its linger is up when it holds this many records (30-100 ms of commit).
FULL_GROUP_RECORDS = 1_000
#: Between two attempts to find the store working again.
RECOVERY_PAUSE_S = 1.0
#: The writer not back from one call for so long: the disk hangs, and only a restart, or a person, can help.
WRITER_STUCK_S = 60.0


class Committer:
    """Hands the intake's groups to the writer, on a thread of its own, one at a time."""

    def __init__(
        self,
        intake: Intake,
        writer: Writer,
        *,
        probe: Callable[[], None],
        linger_s: float,
        counters: Counters,
        committed: Callable[[dict[int, Agent]], None],
        failed: Callable[[], None],
        raised: Callable[[], None],
    ) -> None:
        """`probe` raises StoreError while commits cannot work. The last three run on the loop:

        `committed` gets the agents whose records became durable, by number; `failed` is called while what
        failed is still to be seen in the agents' `uncommitted`; `raised` after a commit with events.
        """
        self._intake = intake
        self._writer = writer
        self._probe = probe
        self._linger_s = linger_s
        self._counters = counters
        self._tell_committed = committed
        self._tell_failed = failed
        self._tell_raised = raised
        self._executor: Executor = ThreadPoolExecutor(1, "flopmeter-writer")
        self._waiting: list[asyncio.Future[bool]] = []
        self._task: asyncio.Task[None] | None = None
        self._committing_records = 0
        self._committing_bytes = 0
        self._called_s: float | None = None  # when the writer began what it is at; None = it waits for work
        self.stopping = False
        self.recovering = False

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = asyncio.Event()
        self._full = asyncio.Event()
        self._task = self._loop.create_task(self._commit_groups())

    async def stop(self) -> None:
        """Commit what was taken and end. What cannot be committed is not acknowledged, so nothing is lost."""
        self.stopping = True
        if self._task is not None:
            self._work.set()
            self._full.set()
            await self._task
        self._executor.shutdown(wait=True)

    @property
    def ready(self) -> bool:
        """Whether records are being taken and committed."""
        return not (self.recovering or self.stopping)

    @property
    def writer_lives(self) -> bool:
        """Whether the writer is idle, or not long at what it does. Any thread."""
        called_s = self._called_s
        return called_s is None or self._loop.time() - called_s < WRITER_STUCK_S

    async def _on_writer(self, call: Callable[..., _T], *values: Any) -> _T:
        """Run `call` on the writer's thread."""
        self._called_s = self._loop.time()
        try:
            return await self._loop.run_in_executor(self._executor, call, *values)
        finally:
            self._called_s = None

    @property
    def queued_records(self) -> int:
        """Records taken and not yet committed."""
        return len(self._intake.group.records) + self._committing_records

    @property
    def queued_bytes(self) -> int:
        return self._intake.group.record_bytes + self._committing_bytes

    def taken(self) -> None:
        """Something went into the open group."""
        self._work.set()
        if len(self._intake.group.records) >= FULL_GROUP_RECORDS:
            self._full.set()

    async def settled(self) -> bool:
        """Wait until all that was taken before now is committed; False if that failed."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.append(future)
        self._work.set()
        return await future

    async def _commit_groups(self) -> None:
        while not (self.stopping and not self._intake.group and not self._waiting):
            await self._work.wait()
            if self._linger_s and not self.stopping:
                try:
                    async with asyncio.timeout(self._linger_s):
                        await self._full.wait()
                except TimeoutError:
                    pass
            self._work.clear()
            self._full.clear()
            if self.stopping:
                self._work.set()
            waiting, self._waiting = self._waiting, []
            group = self._intake.take_group()
            good = await self._commit(group) if group else True
            _answer(waiting, good)
            if self._intake.group:  # access rows, applied meanwhile
                self._work.set()

    async def _commit(self, group: Group) -> bool:
        self._committing_records, self._committing_bytes = len(group.records), group.record_bytes
        try:
            done: Committed = await self._on_writer(self._writer.commit, group)
        except Exception as e:  # a defect of ours must not acknowledge anything either
            if isinstance(e, StoreError):
                log.error("commit of %d records failed: %s (%s)", len(group.records), e, e.hint)  # noqa: TRY400
            else:
                log.exception("commit of %d records failed", len(group.records))
            self._counters.commit_failures += 1
            await self._recover()
            return False
        finally:
            self._committing_records = self._committing_bytes = 0
        self._counters.committed(done)
        self._tell_committed(self._intake.committed(group))
        if done.events:
            self._tell_raised()
        return True

    async def _recover(self) -> None:
        """Nothing is known after a failed commit: forget what is not durable; take no record until one works."""
        self.recovering = True
        self._tell_failed()
        while True:
            try:
                await self._on_writer(self._probe)
                await self._on_writer(self._writer.reset)
                self._intake.reset()
            except Exception as e:  # noqa: BLE001 - whatever it is, taking records would be wrong
                log.warning("the store still cannot commit: %r", e)
                if self.stopping:
                    # What was taken behind the failed group must not be committed without it.
                    self._intake.take_group()
                    break
                await asyncio.sleep(RECOVERY_PAUSE_S)
            else:
                log.warning("the store commits again; what was not acknowledged comes again")
                break
        _answer(self._waiting, good=False)
        self._waiting.clear()
        self.recovering = False


def _answer(waiting: list[asyncio.Future[bool]], good: bool) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(good)
