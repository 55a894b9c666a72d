"""One open stream of an agent: what is on its way to it, and how it is ended. Bytes only; server.py knows what they say."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from flopmeter.collector.clock_offset import Offset, clock_offset

from .group import Agent

#: Replies that a stream has not read; a peer that sends and never reads is cut off.
MAX_UNREAD_REPLIES = 64
#: Of which it is known when they were sent, for the agent's clock: the newest, and some that may be on the way.
ACKS_REMEMBERED = 4

log = logging.getLogger(__name__)


def steady_ns() -> int:
    """A clock that nobody sets and nobody slews."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


class Tasks:
    """What runs beside the streams, kept until it is done (a loop holds its tasks only weakly)."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(slots=True, eq=False)
class Stream:
    """One open stream.

    `awaiting` is set after a pushback or refusal: what comes with a higher number was on the way before the
    agent could know, and is not worth a reply each.
    """

    context: Any  # grpc.aio.ServicerContext
    nonce: bytes
    heard: float  # loop time of the last message
    tasks: Tasks = field(repr=False)
    agent: Agent | None = None
    awaiting: int = 0
    until_unix_s: int = 0  # end of the connection's certificate; 0: there is none
    closing: bool = False
    ack_due: bool = False  # a commit's ack was put off to the next one's
    durable_then: int = (
        0  # what of the agent was durable when the log's head in the making was begun (heads.py)
    )
    told_seq: int = 0  # up to which record the agent was told that a head covers it
    told_size: int = 0  # of the last head that it was told of
    #: By the steady clock, not after it was: when the Challenge was sent, and the first Ack of each of the last numbers.
    challenged_ns: int = field(default_factory=steady_ns)
    acks: list[tuple[int, int]] = field(default_factory=list)
    _unread: list[bytes] | None = None  # replies waiting behind one being written; None = none is

    @property
    def writing(self) -> bool:
        return self._unread is not None

    def send(self, reply: bytes) -> None:
        """Write now, or behind what is being written: gRPC allows one write at a time per stream."""
        if self._unread is None:
            self._unread = []
            self.tasks.spawn(self._write(reply))
        elif len(self._unread) < MAX_UNREAD_REPLIES:
            self._unread.append(reply)
        else:
            self.close(grpc.StatusCode.RESOURCE_EXHAUSTED, "replies are not being read")

    def acking(self, seq: int) -> None:
        """An Ack of `seq` is about to be sent."""
        if not self.acks or self.acks[-1][0] < seq:
            self.acks.append((seq, steady_ns()))
            del self.acks[:-ACKS_REMEMBERED]

    def greeted(self, t_unix_ns: int, now_unix_ns: int) -> Offset | None:
        """The agent's clock by its Hello, which came just now."""
        return clock_offset(
            t_unix_ns,
            said_ns=self.challenged_ns,
            since_ns=0,
            received_ns=steady_ns(),
            received_unix_ns=now_unix_ns,
        )

    def beaten(self, t_unix_ns: int, acked_seq: int, since_ns: int, now_unix_ns: int) -> Offset | None:
        """The agent's clock by a heartbeat, which came just now. None: nothing that it names was sent on this stream."""
        for seq, said_ns in self.acks:
            if seq == acked_seq:
                return clock_offset(
                    t_unix_ns,
                    said_ns=said_ns,
                    since_ns=since_ns,
                    received_ns=steady_ns(),
                    received_unix_ns=now_unix_ns,
                )
        return None

    async def _write(self, reply: bytes) -> None:
        try:
            while True:
                await self.context.write(reply)
                if not self._unread:
                    break
                reply = self._unread.pop(0)
        except (grpc.aio.BaseError, grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream is gone; what it was told, it learns from the next Welcome
        finally:
            self._unread = None

    def close(self, code: grpc.StatusCode, why: str) -> None:
        """End the stream with a status. Once."""
        if not self.closing:
            self.closing = True
            self.tasks.spawn(self._abort(code, why))

    async def _abort(self, code: grpc.StatusCode, why: str) -> None:
        try:
            await self.context.abort(code, why)
        except Exception:  # noqa: BLE001 - abort always raises, in its caller's task; the RPC is what ends
            log.debug("closed a stream: %s", why)


async def read_out(streams: Iterable[Stream], limit_s: float) -> None:
    """Wait until no reply is being written, at most `limit_s`: a peer may never read."""
    loop = asyncio.get_running_loop()
    waited_for = list(streams)
    deadline = loop.time() + limit_s
    while any(s.writing for s in waited_for) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
