"""What agents are told of the log: its new head, the proof that it goes on from the one they know, and what it covers.

A head goes to a stream only when it covers more of that agent's records than the last one did: an agent that
ships once a minute hears of one head a minute, and an idle one of none (it is told at its next Welcome). Bytes
only; server.py knows what they say.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from .stream import Stream

#: After so many messages the event loop turns: a head to 5,000 streams must not hold up records.
STREAMS_A_TURN = 64
#: Proofs that are remembered for one head; the agents of a fleet know a few sizes between them.
MOST_PROOFS = 1024

log = logging.getLogger(__name__)


class Head(NamedTuple):
    """A released checkpoint."""

    size: int  # leaves
    note: bytes  # the C2SP signed note


class Told(NamedTuple):
    """What one message says (Checkpoint in ingest.proto)."""

    note: bytes
    consistency: Sequence[bytes]
    covered_seq: int
    vkey: str


class Log(Protocol):
    """What the heads need of the evidence log. Called off the event loop, one call at a time."""

    def vkey(self) -> str:
        """The log's public key, as a C2SP vkey line; "" before the first head."""
        ...

    def latest(self) -> Head | None:
        """The newest released checkpoint; None = none yet."""
        ...

    def consistency(self, old: int, new: int) -> Sequence[bytes]:
        """The RFC 6962 proof from `old` to `new` leaves, 0 < old < new <= size."""
        ...


class Heads:
    """Of one ingest server. All methods are for its event loop."""

    def __init__(
        self, log: Log, streams: Callable[[], Mapping[int, Stream]], say: Callable[[Told], bytes]
    ) -> None:
        """`streams`: those that were welcomed, by agent_no; `say` makes the message."""
        self._log = log
        self._streams = streams
        self._say = say
        self._vkey = ""
        self._head: Head | None = None
        self._asked = False  # whether the log was asked for the head of before this start
        self._proofs: dict[tuple[int, int], Sequence[bytes]] = {}
        self._one = asyncio.Lock()

    async def welcome(self, stream: Stream, known_size: int) -> Told | None:
        """For the Welcome of `stream`, whose agent knows a head of `known_size` leaves. None: there is no head yet.

        Where that head is larger than ours there is no proof to give; the agent draws its own conclusion. Call it
        before the stream stands among `streams`, so that no newer head overtakes its Welcome.
        """
        try:
            head = await self._latest()
            if head is None:
                stream.told_size = known_size
                return None
            proof = await self._proof(known_size, head.size)
        except Exception:  # records are taken without it; the agent keeps what no head covers
            log.exception("the log's head could not be read for a Welcome")
            stream.told_size = known_size
            return None
        stream.told_size = head.size
        return Told(head.note, proof, 0, self._vkey)

    def begun(self) -> None:
        """A head is about to be made of all that is durable: note what that is. Call before the log is looked at."""
        for stream in self._streams().values():
            if stream.agent is not None:
                stream.durable_then = stream.agent.durable_seq

    async def released(self, head: Head) -> None:
        """The head that was begun is out (or none was needed: then the latest): tell whom it covers more of."""
        if self._head is None or head.size >= self._head.size:
            self._head = head
            self._proofs = {key: proof for key, proof in self._proofs.items() if key[1] == head.size}
        if not self._vkey:
            self._vkey = await asyncio.to_thread(self._log.vkey)
        due = [s for s in self._streams().values() if s.durable_then > s.told_seq and not s.closing]
        for count, stream in enumerate(due, 1):
            head = self._head  # by now there may be a newer one, which covers no less
            try:
                proof = await self._proof(stream.told_size, head.size)
            except Exception:  # the next head comes within a minute
                log.exception("no proof from %d to %d leaves", stream.told_size, head.size)
                return
            stream.told_size, stream.told_seq = head.size, stream.durable_then
            stream.send(self._say(Told(head.note, proof, stream.told_seq, self._vkey)))
            if count % STREAMS_A_TURN == 0:
                await asyncio.sleep(0)

    async def _latest(self) -> Head | None:
        """The head that was released last, by this process or by one before it."""
        if not self._asked:
            async with self._one:
                if not self._asked:
                    self._vkey = await asyncio.to_thread(self._log.vkey)
                    self._head = self._head or await asyncio.to_thread(self._log.latest)
                    self._asked = True
        return self._head

    async def _proof(self, old: int, new: int) -> Sequence[bytes]:
        if not 0 < old < new:
            return ()
        found = self._proofs.get((old, new))
        if found is None:
            async with self._one:
                found = self._proofs.get((old, new))
                if found is None:
                    found = await asyncio.to_thread(self._log.consistency, old, new)
                    if len(self._proofs) >= MOST_PROOFS:
                        self._proofs.clear()
                    self._proofs[old, new] = found
        return found
