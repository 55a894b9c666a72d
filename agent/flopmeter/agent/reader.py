"""Reads entities in turn on a thread of its own, so that a driver call that hangs costs one GPU, not the loop.

NVML calls cannot be interrupted. A read that outlives its deadline is left where it is, its thread with it;
the rest goes on with a new thread. While it hangs its entity is not asked again, so no entity is ever read
twice at once, and at most MAX_STUCK threads hang. A round of readings waits for hung calls no longer than
HUNG_ROUND deadlines in all: whoever was not asked by then is asked in the next.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from flopmeter.contract.clock import Clock

from .errors import AgentError, ReadingError, SourceError
from .reading import NodeFacts, Reading
from .sources.base import Source

log = logging.getLogger(__name__)

#: Calls that may hang at a time. With so many the driver answers nobody: the others are not asked until one
#: returns. (A unit's TasksMax is 64.)
MAX_STUCK = 32
#: One round waits for at most this many calls that hang, so that a tick, and a stop, end in bounded time.
HUNG_ROUND = 2
#: What a read that did not come back is booked as; NVML's own name for a call that took too long.
HUNG = "NVML_ERROR_TIMEOUT"


class _Job:
    """Calls to make in turn; `at` is the one under way since `since_s`. Guarded by its lock."""

    __slots__ = ("abandoned", "at", "calls", "done", "lock", "names", "results", "since_s")

    def __init__(self, calls: Sequence[Callable[[], object]], names: Sequence[str]) -> None:
        self.calls = calls
        self.names = names
        self.results: list[object] = []
        self.at = 0
        self.since_s = 0.0  # 0 = not begun
        self.abandoned = False
        self.done: queue.SimpleQueue[None] = queue.SimpleQueue()  # holds one when all have come back
        self.lock = threading.Lock()


class Reader:
    """The only caller of `source`. Use from one thread; `beat` is called while it waits."""

    def __init__(
        self, source: Source, clock: Clock, *, deadline_s: float, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._source = source
        self._clock = clock
        self._deadline_s = deadline_s
        self._beat = beat
        self._stuck: set[str] = set()  # entities (and "" = facts) whose call has not come back
        self._jobs: queue.SimpleQueue[_Job | None] | None = None

    @property
    def stuck(self) -> frozenset[str]:
        """Entities whose read hangs now."""
        return frozenset(self._stuck - {""})

    def read(self, entities: Sequence[str]) -> list[Reading]:
        """One reading of each, in order; what failed, hangs, or still hangs is a Reading with `error`."""
        readings: dict[str, Reading] = {}
        todo = []
        for entity in entities:
            if entity in self._stuck:
                readings[entity] = self._failed(entity, HUNG)
            else:
                todo.append(entity)
        waited = 0
        while todo:
            if waited >= HUNG_ROUND or len(self._stuck) >= MAX_STUCK:
                readings.update((entity, self._failed(entity, HUNG)) for entity in todo)
                break
            results, hung = self._run([partial(self._read_one, entity) for entity in todo], todo)
            readings.update((r.entity, r) for r in results if isinstance(r, Reading))
            todo = todo[len(results) :]
            if hung:
                waited += 1
                entity = todo.pop(0)
                log.error(
                    "%s: no answer within %g s; it is left alone until it returns", entity, self._deadline_s
                )
                readings[entity] = self._failed(entity, HUNG)
        return [readings[entity] for entity in entities]

    def facts(self) -> NodeFacts:
        """Ask the source again what there is. Raises SourceError, also if that hangs."""
        if "" in self._stuck:
            raise SourceError(
                "asking for the node's devices still hangs", "see nvidia-smi and the kernel's log"
            )
        results, hung = self._run([self._source.facts], [""])
        if hung:
            raise SourceError(
                f"asking for the node's devices did not come back within {self._deadline_s:g} s",
                "see nvidia-smi and the kernel's log",
            )
        (got,) = results
        if isinstance(got, BaseException):
            raise got
        assert isinstance(got, NodeFacts)
        return got

    def close(self) -> None:
        """Let the thread end, and the source, unless a call hangs in it."""
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None
        if not self._stuck:
            self._source.close()

    def _failed(self, entity: str, code: str) -> Reading:
        return Reading(entity, self._clock.boot_ns(), self._clock.unix_ns(), error=code)

    def _read_one(self, entity: str) -> Reading:
        try:
            reading = self._source.read(entity)
            if reading.entity != entity:
                raise ReadingError("FLOPMETER_WRONG_ENTITY", f"asked for {entity}, got {reading.entity}")
            return reading
        except ReadingError as e:
            return self._failed(entity, e.code)
        except AgentError as e:
            log.warning("%s: %s", entity, e)
            return self._failed(entity, "FLOPMETER_SOURCE_FAILED")
        except Exception:
            log.exception("%s: the source failed in a way it should not", entity)
            return self._failed(entity, "FLOPMETER_SOURCE_DEFECT")

    def _run(self, calls: Sequence[Callable[[], object]], names: Sequence[str]) -> tuple[list[object], bool]:
        """Results of the calls that came back, in order, and whether the next one hangs."""
        job = _Job(calls, names)
        if self._jobs is None:
            self._jobs = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(self._jobs,), name="reader", daemon=True).start()
        self._jobs.put(job)
        wait_s = self._deadline_s
        while not _done(job, wait_s):
            self._beat()
            with job.lock:
                waited = time.monotonic() - job.since_s if job.since_s else 0.0
                if waited >= self._deadline_s and job.done.empty():
                    job.abandoned = True
                    self._stuck.add(names[job.at])
                    self._jobs = None  # its thread is stuck: the next call starts another
                    return job.results[:], True
                wait_s = self._deadline_s - waited
        return job.results, False

    def _work(self, jobs: "queue.SimpleQueue[_Job | None]") -> None:
        while (job := jobs.get()) is not None:
            for i, call in enumerate(job.calls):
                with job.lock:
                    job.at, job.since_s = i, time.monotonic()
                try:
                    result: object = call()
                except BaseException as e:  # noqa: BLE001 - handed to the caller's thread
                    result = e
                with job.lock:
                    if job.abandoned:
                        name = job.names[i]
                        self._stuck.discard(name)
                        log.warning("%s: the call that hung has come back; it is read again", name or "facts")
                        return
                    job.results.append(result)
            job.done.put(None)


def _done(job: _Job, wait_s: float) -> bool:
    """Whether all calls came back within `wait_s`. A queue costs a third of what an Event does, every tick."""
    try:
        job.done.get(timeout=max(0.0, wait_s))  # below 0 where the last call came back just now
    except queue.Empty:
        return False
    return True
