"""Reads entities in turn, so that a driver call that hangs costs one GPU, not the loop.

NVML calls cannot be interrupted, nor can a thread be ended that hangs in one. So all work that reads is done on a
thread that can be left behind (`Reader.guarded`), and another looks at it: a call that outlives its deadline is left
where it is, its thread with it, and the work begins again on a new thread, where `read` goes on with the round that it
was in. While it hangs its entity is not asked again, so no entity is ever read twice at once, and at most MAX_STUCK
threads hang. A round of readings waits for hung calls no longer than HUNG_ROUND deadlines in all: whoever was not asked
by then is asked in the next.

A thread for the calls alone, to which each round is handed over and back, would be simpler, and costs a sixth of a tick.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from flopmeter.contract.clock import Clock

from .errors import AgentError, ReadingError, SourceError
from .reading import NodeFacts, Reading
from .sources.base import Source

log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Calls that may hang at a time. With so many the driver answers nobody: the others are not asked until one
#: returns. (A unit's TasksMax is 64.)
MAX_STUCK = 32
#: One round waits for at most this many calls that hang, so that a tick, and a stop, end in bounded time.
HUNG_ROUND = 2
#: What a read that did not come back is booked as; NVML's own name for a call that took too long.
HUNG = "NVML_ERROR_TIMEOUT"
#: What `facts` is called among entities, none of which has an empty name.
_FACTS = ""


class _LeftBehind(BaseException):
    """Ends a thread whose call came back too late: another has gone on with its work. Nothing may catch it."""


class _Call:
    __slots__ = ("left", "name", "since_s")

    def __init__(self, name: str) -> None:
        self.name, self.since_s, self.left = name, time.monotonic(), False


class _Round:
    """What of one round has been read, by whichever thread; and how many of its calls hung."""

    __slots__ = ("hung", "readings")

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}
        self.hung = 0


class Reader:
    """The only caller of `source`. Use from one thread; `beat` is called while a call of it is waited for."""

    def __init__(
        self, source: Source, clock: Clock, *, deadline_s: float, beat: Callable[[], None] = lambda: None
    ) -> None:
        self._source = source
        self._clock = clock
        self._deadline_s = deadline_s
        self._beat = beat
        self._lock = threading.Lock()  # guards what follows
        self._call: _Call | None = None  # under way
        self._stuck: set[str] = set()  # entities (and _FACTS) whose call has not come back
        self._round: _Round | None = None
        self._hand: threading.Thread | None = None  # that does guarded work

    @property
    def stuck(self) -> frozenset[str]:
        """Entities whose read hangs now."""
        return frozenset(self._stuck - {_FACTS})

    def guarded(self, work: Callable[[], _T]) -> _T:
        """What `work` returns or raises. It may call `read` and `facts`, on a thread of its own.

        Where one of their calls hangs, `work` is begun again on another thread, so all that it must not do twice it
        keeps outside itself; and the thread left behind ends in that call, whatever `work` has around it. Only while
        such a call is under way is `beat` called here: work that is stuck elsewhere is stuck.
        """
        done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        try:
            while True:
                self._hand = threading.Thread(target=_work, args=(work, done), name="reader", daemon=True)
                self._hand.start()
                outcome = self._outcome(done)
                if outcome is not None:
                    result, error = outcome
                    if error is not None:
                        raise error
                    return result  # type: ignore[no-any-return]
        finally:
            self._hand = None

    def read(self, entities: Sequence[str]) -> list[Reading]:
        """One reading of each, in order; what failed, hangs, or still hangs is a Reading with `error`."""
        if threading.current_thread() is not self._hand:
            return self.guarded(lambda: self.read(entities))
        if self._round is None:
            self._round = _Round()
        turn = self._round
        for entity in entities:
            if entity in turn.readings:
                continue
            if entity in self._stuck or turn.hung >= HUNG_ROUND or len(self._stuck) >= MAX_STUCK:
                turn.readings[entity] = self._failed(entity, HUNG)
            else:
                turn.readings[entity] = self._made(entity, partial(self._read_one, entity))
        self._round = None
        return [turn.readings[entity] for entity in entities]

    def facts(self) -> NodeFacts:
        """Ask the source again what there is. Raises SourceError, also if that hangs."""
        if threading.current_thread() is not self._hand:
            return self.guarded(self.facts)
        if _FACTS in self._stuck:
            raise SourceError(
                f"asking for the node's devices did not come back within {self._deadline_s:g} s",
                "see nvidia-smi and the kernel's log; it is asked again when that call has ended",
            )
        return self._made(_FACTS, self._source.facts)

    def close(self) -> None:
        """Close the source, unless a call hangs in it."""
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

    def _made(self, name: str, call: Callable[[], _T]) -> _T:
        """What the call returns or raises, if it was waited for."""
        under_way = self._call = _Call(name)
        try:
            return call()
        finally:
            with self._lock:
                if under_way.left:
                    self._stuck.discard(name)
                    log.warning("%s: the call that hung has come back; it is read again", name or "facts")
                    raise _LeftBehind
                self._call = None

    def _outcome(self, done: "queue.SimpleQueue[Any]") -> tuple[Any, BaseException | None] | None:
        """What became of the work; None: it hangs in a call, which was left behind."""
        wait_s = self._deadline_s
        while True:
            try:
                outcome: tuple[Any, BaseException | None] = done.get(timeout=wait_s)
            except queue.Empty:
                with self._lock:
                    call = self._call
                    waited_s = 0.0 if call is None else time.monotonic() - call.since_s
                    late = call is not None and waited_s >= self._deadline_s
                    if call is not None and late:
                        self._leave(call)
                if call is not None:
                    self._beat()
                if late:
                    return None
                wait_s = self._deadline_s - waited_s
            else:
                return outcome

    def _leave(self, call: _Call) -> None:
        call.left, self._call = True, None
        self._stuck.add(call.name)
        log.error(
            "%s: no answer within %g s; it is left alone until it returns",
            call.name or "facts",
            self._deadline_s,
        )
        if self._round is not None and call.name != _FACTS:
            self._round.hung += 1
            self._round.readings[call.name] = self._failed(call.name, HUNG)


def _work(work: Callable[[], object], done: "queue.SimpleQueue[tuple[Any, BaseException | None]]") -> None:
    try:
        result = work()
    except _LeftBehind:
        return
    except BaseException as e:  # noqa: BLE001 - handed to the thread that guards
        done.put((None, e))
    else:
        done.put((result, None))
