"""The process that answers what is asked of the books: started when it is first needed, asked in turn, replaced when it hangs.

It has an interpreter of its own, so that no page takes the one that acknowledges records. This side never waits for it
without an end, and what it sends is a frame or it is killed.
"""

import asyncio
import contextlib
import logging
import os
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from dataclasses import replace

from flopmeter.collector.api.question import (
    LENGTH,
    Answer,
    FrameError,
    Question,
    answer_of,
    head_of,
    head_size,
    question_bytes,
)
from flopmeter.collector.spelling import time_text

from .says import Refused

log = logging.getLogger(__name__)
#: A question takes milliseconds; this is for a disk that is slow.
ASK_S = 30.0
#: The first one of a process: it reads the books of years.
FIRST_S = 180.0
#: How long somebody waits for those before them.
WAIT_S = 20.0
MAX_WAITING = 64
#: A clock so far from this machine's is one that plays a history; nearer ones are the same.
PLAYED_NS = 60_000_000_000
#: What that clock says; answers by this machine's have none.
CLOCK_HEADER = "flopmeter-clock"
#: Between two starts, when the last one did not come to an answer.
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
#: Not for it: whom systemd listens to is the collector.
_NOT_INHERITED = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)


class Office:
    """On one event loop only."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        ask_s: float = ASK_S,
        first_s: float = FIRST_S,
        wait_s: float = WAIT_S,
        monotonic: Callable[[], float] = time.monotonic,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`unix_ns`: the clock that the books are answered by."""
        self._unix_ns = unix_ns
        self._command, self._monotonic = tuple(command), monotonic
        self._ask_s, self._first_s, self._wait_s = ask_s, first_s, wait_s
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._child: Process | None = None
        self._answered = 0  # of this child
        self._pause_s, self._not_before = 0.0, 0.0
        self._stopped = False
        self.starts = 0

    async def ask(self, question: Question) -> Answer:
        """The answer. Raises Refused: 400 for what fits no frame, 503 while nobody answers."""
        behind_ns = time.time_ns() - self._unix_ns()
        if abs(behind_ns) < PLAYED_NS:
            behind_ns = 0
        try:
            frame = question_bytes(replace(question, behind_ns=behind_ns))
        except FrameError as e:
            raise Refused(400, str(e)) from e
        if self._waiting >= MAX_WAITING:
            raise _not_now("many are waiting for an answer already", 2)
        self._waiting += 1
        try:
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._turn.acquire()
            except TimeoutError as e:
                raise _not_now("the books are being read for those who asked before", 5) from e
            try:
                answer = await self._exchange(frame)
            finally:
                self._turn.release()
        finally:
            self._waiting -= 1
        if not behind_ns:
            return answer
        clock = time_text(time.time_ns() - behind_ns)
        return replace(answer, headers={**answer.headers, CLOCK_HEADER: clock})

    async def _exchange(self, frame: bytes) -> Answer:
        child = await self._ready()
        limit_s = self._ask_s if self._answered else self._first_s
        try:
            async with asyncio.timeout(limit_s):
                answer = await _asked(child, frame)
        except BaseException as e:  # a cancelled exchange, too, leaves half a frame in the pipe
            await self._end(child)
            if isinstance(e, TimeoutError):
                log.error("the process that answers took more than %.0f s, and was killed", limit_s)  # noqa: TRY400
                raise _not_now(f"the answer took more than {limit_s:.0f} s", 5) from e
            if isinstance(e, asyncio.IncompleteReadError | OSError | FrameError | ValueError | KeyError):
                log.error("the process that answers ended or sent no frame: %s", e)  # noqa: TRY400
                raise _not_now("the process that answers ended; another is started", 1) from e
            raise
        self._answered += 1
        self._pause_s = 0.0
        return answer

    async def _ready(self) -> Process:
        """The process, started if there is none."""
        if self._stopped:
            raise _not_now("the collector is stopping", 10)
        if self._child is not None and self._child.returncode is None:
            return self._child
        if self._child is not None:
            await self._end(self._child)
        wait = self._not_before - self._monotonic()
        if wait > 0:
            raise _not_now(
                "the process that answers does not start; the collector's log says why", 1 + int(wait)
            )
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
        try:
            self._child = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, env=environment, start_new_session=True
            )
        except OSError as e:
            self._later()
            log.error("the process that answers cannot be started: %s", e)  # noqa: TRY400
            raise _not_now("the process that answers does not start; the collector's log says why", 1) from e
        self.starts += 1
        self._answered = 0
        return self._child

    def _later(self) -> None:
        """Not again at once: it would be started as often as somebody asks."""
        self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2 or FIRST_PAUSE_S)
        self._not_before = self._monotonic() + self._pause_s

    async def _end(self, child: Process) -> None:
        if child is self._child:
            self._child = None
            if not self._answered:
                self._later()
        await ended(child)

    async def stop(self) -> None:
        self._stopped = True
        if self._child is not None:
            await self._end(self._child)


async def ended(child: Process) -> None:
    """Kill it, and take leave of it: no zombie, no open pipe."""
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    # Its pipes first: while one is full and nobody reads it, asyncio does not see the process end. Its transport last:
    # that looks for the end itself, and what watches for it would find a stranger and say so in the log.
    transport = getattr(child, "_transport", None)
    for fd in (0, 1, 2):
        pipe = transport.get_pipe_transport(fd) if transport is not None else None
        if pipe is not None:
            pipe.close()
    await asyncio.shield(child.wait())
    if transport is not None:
        transport.close()


async def _asked(child: Process, frame: bytes) -> Answer:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(frame)
    await child.stdin.drain()
    size = head_size(await child.stdout.readexactly(LENGTH.size))
    head = head_of(await child.stdout.readexactly(size))
    return answer_of(head, await child.stdout.readexactly(head["bytes"]))


def _not_now(detail: str, after_s: int) -> Refused:
    return Refused(
        503,
        detail,
        f"ask again in {after_s} s; records are taken meanwhile",
        {"Retry-After": str(after_s)},
    )
