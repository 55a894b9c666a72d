"""The uplink: one stream to the collector that carries records up and durable acks back.

Runs grpc.aio on an event loop of its own thread: idle it costs no wake-ups (the blocking API polls ten
times a second). It owns no data: records come from the chain, and only an ack changes what is kept.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any

from flopmeter.agent.access.channel import caller, open_channel, refused_because
from flopmeter.agent.access.credentials import Access, Plain
from flopmeter.agent.access.heads import Heads
from flopmeter.agent.access.state import IdentityError
from flopmeter.agent.errors import AgentError, SpoolFullError
from flopmeter.contract.limits import (
    MAX_IN_FLIGHT_RECORDS,
    MAX_MESSAGE_BYTES,
    MAX_RECORDS_PER_MESSAGE,
    MAX_TEXT_CHARS,
)
from flopmeter.contract.record import HELLO_DOMAIN
from flopmeter.wire.v1 import ingest_pb2 as pb

from .backoff import Backoff
from .chain import Chain, HeadFacts
from .status import Identity, Status, Timing
from .wall_clock import WallClock

log = logging.getLogger(__name__)

METHOD = "/flopmeter.wire.v1.IngestService/Stream"
#: Room for the other fields of a message around its records.
_ENVELOPE_BYTES = 64 << 10
#: After a pushback the stream rests at least this long, so that what was in flight is answered first.
_MIN_REST_S = 0.1
#: A pushback may ask for any wait; more than this is not obeyed, as an operator would not know why.
_MAX_REST_S = 600.0
#: A stop gives the stream so long to end by itself before it is cut off.
_POLITE_S = 1.0
#: gRPC hands the last events of a closed channel to whichever event loop of the process wakes first (in
#: replay and demo there are several); a loop that is gone by then is an error there.
_DRAIN_S = 0.05
#: No chain gets this far, at a record a second in a hundred million years: a resume point beyond it is nonsense.
_MAX_SEQ = 1 << 52
_PUSHBACK, _REFUSAL = pb.Pushback, pb.Refusal
#: Refusals that concern the chain as such, not one record: the next Welcome settles them.
_FORKS = (_REFUSAL.CODE_CONFLICT, _REFUSAL.CODE_BROKEN_CHAIN)


class _SessionError(Exception):
    """This session is over; `at_least_s` before the next, `hopeless` = asking soon again cannot help."""

    def __init__(self, message: str, at_least_s: float = 0.0, hopeless: bool = False) -> None:
        super().__init__(message)
        self.at_least_s = at_least_s
        self.hopeless = hopeless


class Uplink:
    """Ships the chain's records to one collector until stopped. Thread-safe."""

    def __init__(
        self,
        target: str,
        chain: Chain,
        identity: Identity,
        *,
        rng: Random,
        timing: Timing | None = None,
        heads: Heads | None = None,
        access: Access | None = None,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`heads`: what is known of the collector's log; None: its heads are passed over. `access` None: plain text."""
        self.unix_ns = unix_ns
        self.timing = timing or Timing()
        self.identity = identity
        self._target = target
        self.chain = chain
        self.heads = heads
        self.access: Access = access or Plain()
        self._status = Status(target, acked_seq=chain.spool.acked_seq)
        self.backoff = Backoff(rng, self.timing.backoff_base_s, self.timing.backoff_cap_s)
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.woken = asyncio.Event()
        self.stopping = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    # From other threads.

    def start(self) -> None:
        self.chain.on_append = self.wake
        self._thread.start()
        self._ready.wait()

    def wake(self) -> None:
        """There is something new to ship."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self._loop.call_soon_threadsafe(self.woken.set)

    @property
    def status(self) -> Status:
        return self._status

    def wait_acked(self, seq: int, timeout_s: float) -> bool:
        """Wait until everything up to `seq` is acknowledged. False if it is not after `timeout_s`."""
        return self.wait_for(lambda: self.chain.spool.acked_seq >= seq, timeout_s)

    def wait_for(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `true()`, looked at whenever the uplink's state changes; ends early on a fatal error."""
        with self._changed:
            self._changed.wait_for(lambda: true() or self._status.fatal is not None, timeout_s)
            return true()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the stream and the thread; what is not acknowledged stays in the spool."""
        self.stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(_POLITE_S)
        if self._thread.is_alive():  # it waits for a collector that does not answer
            with contextlib.suppress(RuntimeError):  # ended meanwhile
                if self._loop is not None and self._task is not None:
                    self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                log.warning("uplink: its thread did not end in %.0f s; leaving it", timeout_s)

    # On the uplink's own thread.

    def publish(self, **changes: Any) -> None:
        with self._changed:
            self._status = replace(self._status, **changes)
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            self.publish(connected=False)
        except AgentError as e:
            log.critical("uplink stopped: %s", e)
            self.publish(connected=False, last_error=str(e), fatal=e)
        except Exception as e:
            log.exception("uplink stopped by a defect")
            self.publish(connected=False, last_error=repr(e), fatal=AgentError(f"uplink: {e!r}", "report it"))
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        while not self.stopping:
            try:
                await self._session()
                continue
            except _SessionError as e:
                if e.hopeless:
                    self.backoff.longest()
                wait_s = self.backoff.next_s(e.at_least_s)
                text = str(e)
            except SpoolFullError as e:
                # Moving records takes room for a copy of them. Nothing was changed: the next Welcome asks again.
                self.backoff.longest()
                wait_s = self.backoff.next_s()
                text = str(e)
            self.publish(connected=False, last_error=text)
            if not self.stopping:
                log.warning("uplink to %s: %s; next try in %.1f s", self._target, text, wait_s)
                await self._pause(wait_s)
        await asyncio.sleep(_DRAIN_S)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless told to stop."""
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            self.woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), left)

    async def _session(self) -> None:
        """One stream, from connecting to its end. Returns when stopping; raises _SessionError otherwise."""
        import grpc

        try:
            credentials = await self.access.credentials()
        except IdentityError as e:
            raise _SessionError(str(e), hopeless=e.final) from e
        channel = open_channel(self._target, credentials, self.access.server_name)
        try:
            try:
                await within(channel.channel_ready(), self.timing.connect_s, "no connection")
            except _SessionError as e:
                self.access.failed()
                why = await refused_because(self._target, credentials, self.access.server_name)
                raise _SessionError(f"{e}{why}") from None
            call: Any = channel.stream_stream(METHOD)()
            try:
                await _Session(self, call).run(self.access.superseded(caller(channel, self.timing.ack_s)))
            except grpc.aio.AioRpcError as e:
                raise _SessionError(f"{e.code().name}: {e.details()}") from e
            except asyncio.InvalidStateError as e:  # the call ended between two writes
                raise _SessionError(f"stream ended: {e}") from e
            finally:
                call.cancel()
        finally:
            await channel.close()
            self.publish(connected=False)


async def within(what: Any, seconds: float, text: str) -> Any:
    """Await `what` for at most `seconds`; after that the session is over, because of `text`."""
    try:
        return await asyncio.wait_for(what, seconds)
    except TimeoutError:
        raise _SessionError(f"{text} within {seconds:g} s") from None


class _Session:
    """One open stream: a sender and a receiver that share where they are."""

    def __init__(self, uplink: Uplink, call: Any) -> None:
        self._up = uplink
        self._chain = uplink.chain
        self._call = call
        self._next = 0  # the next number to send
        self._sent_to = 0  # the highest number sent on this stream
        self._window = MAX_IN_FLIGHT_RECORDS
        self._sent_inventories: set[bytes] = set()
        self._rest_until = 0.0
        self._draining = False  # a newer channel is to take over
        self._progress_at = 0.0  # when the wait for an ack began
        self._clock = WallClock(uplink.timing.clock_s, uplink.unix_ns)

    async def run(self, superseded: Coroutine[Any, Any, None]) -> None:
        """Until the uplink stops, or until `superseded` is back: then what is in flight is drained first."""
        newer = asyncio.ensure_future(superseded)
        try:
            await self._handshake()
            await self._run(newer)
        finally:
            newer.cancel()
            await asyncio.gather(newer, return_exceptions=True)

    async def _run(self, newer: "asyncio.Future[None]") -> None:
        receiver = asyncio.ensure_future(self._receive())
        sender = asyncio.ensure_future(self._send())
        try:
            done, _ = await asyncio.wait({receiver, sender, newer}, return_when=asyncio.FIRST_COMPLETED)
            if done == {newer}:
                newer.result()
                self._draining = True
                self._up.woken.set()
                # The collector answers a half-close with the last acks and its end of the stream.
                await asyncio.wait({sender, receiver}, timeout=self._up.timing.ack_s)
                return
            # What the collector said last explains more than the write that failed because of it.
            for task in (receiver, sender):
                if task in done:
                    task.result()
        finally:
            for task in (receiver, sender):
                task.cancel()
            await asyncio.gather(receiver, sender, return_exceptions=True)

    # Handshake.

    async def _handshake(self) -> None:
        up = self._up
        challenge = await self._expect("challenge")
        spool, key = self._chain.spool, self._chain.key
        known = up.heads.known if up.heads is not None else None
        body = pb.HelloBody(
            public_key=key.public,
            node=up.identity.node,
            agent_version=up.identity.agent_version,
            boot_id=up.identity.boot_id,
            oldest_seq=spool.oldest_seq,
            newest_seq=spool.newest_seq,
            known_log_origin=known.origin if known else "",
            known_log_size=known.size if known else 0,
            known_log_root=known.root if known else b"",
            t_unix_ns=up.unix_ns(),
        ).SerializeToString()
        signature = key.sign(HELLO_DOMAIN + challenge.challenge.nonce + body)
        await self._write(pb.StreamRequest(hello=pb.Hello(body=body, signature=signature)))
        welcome = (await self._expect("welcome")).welcome
        if not 1 <= welcome.resume_seq <= _MAX_SEQ or len(welcome.head_hash) not in (0, 32):
            raise _SessionError("welcome: expected a resume point and a hash of 32 bytes", hopeless=True)
        self._next = self._chain.resume(
            HeadFacts(
                welcome.resume_seq,
                welcome.head_hash,
                welcome.head_boot_id,
                welcome.head_window_end_boot_ns,
            )
        )
        if welcome.HasField("checkpoint"):
            self._heard(welcome.checkpoint)
        elif up.heads is not None:
            up.heads.silent()
        if welcome.max_in_flight_records:
            self._window = min(welcome.max_in_flight_records, MAX_IN_FLIGHT_RECORDS)
        up.publish(connected=True, connects=up.status.connects + 1, last_error="", acked_seq=spool.acked_seq)
        log.info("uplink to %s: connected, sending from record %d", up.status.target, self._next)

    async def _expect(self, kind: str) -> pb.StreamResponse:
        seconds = self._up.timing.handshake_s
        response: pb.StreamResponse = await within(self._read(), seconds, f"no {kind}")
        got = response.WhichOneof("kind")
        if got == "refusal":
            raise _SessionError(
                f"refused by the collector: {self._count_refusal(response.refusal)}", hopeless=True
            )
        if got == "pushback":
            seconds = min(response.pushback.retry_after_ms / 1e3, _MAX_REST_S)
            raise _SessionError(f"pushed back: {self._count_pushback(response.pushback)}", seconds)
        if got != kind:
            raise _SessionError(f"expected {kind}, got {got}: not a flopmeter collector?", hopeless=True)
        return response

    # Sending.

    async def _send(self) -> None:
        up, timing = self._up, self._up.timing
        last_sent = time.monotonic()
        while True:
            if up.stopping or self._draining:
                await self._call.done_writing()
                return
            up.woken.clear()
            now = time.monotonic()
            if not self._clock.due and now >= self._rest_until and await self._send_some():
                last_sent = time.monotonic()
                continue
            in_flight = self._in_flight
            waits = [last_sent + timing.heartbeat_s]
            if self._rest_until > now:
                waits.append(self._rest_until)
            elif in_flight:
                waits.append(self._progress_at + timing.ack_s)
                if now >= self._progress_at + timing.ack_s:
                    raise _SessionError(f"no ack for {timing.ack_s:g} s with {in_flight} records in flight")
            if self._clock.due or now >= last_sent + timing.heartbeat_s:
                pending = self._chain.spool.pending
                beat = pb.Heartbeat(**self._clock.said()._asdict(), pending_records=pending)
                await self._write(pb.StreamRequest(heartbeat=beat))
                last_sent = now
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(up.woken.wait(), max(0.001, min(waits) - now))

    @property
    def _in_flight(self) -> int:
        return max(0, self._next - 1 - self._chain.spool.acked_seq)

    async def _send_some(self) -> bool:
        """One message of records, if there are any and the window allows. True if it was sent."""
        room = min(self._window - self._in_flight, MAX_RECORDS_PER_MESSAGE)
        if room <= 0:
            return False
        entries = self._chain.records_from(self._next, room, MAX_MESSAGE_BYTES - _ENVELOPE_BYTES)
        if not entries:
            if self._next < self._chain.spool.tip.next_seq and not self._in_flight:
                # A hole, cut out of a damaged spool: the next Welcome re-anchors what lies behind it.
                raise _SessionError(f"record {self._next} is not in the spool any more")
            return False
        for digest in dict.fromkeys(e.inventory_digest for e in entries):
            if digest not in self._sent_inventories:
                await self._write(pb.StreamRequest(inventory=self._chain.spool.inventory(digest)))
                self._sent_inventories.add(digest)
        if not self._in_flight:
            self._progress_at = time.monotonic()
        self._next = entries[-1].seq + 1
        self._sent_to = max(self._sent_to, entries[-1].seq)
        await self._write(pb.StreamRequest(records=pb.Records(records=[e.record for e in entries])))
        return True

    async def _write(self, request: pb.StreamRequest) -> None:
        seconds = self._up.timing.ack_s
        await within(self._call.write(request.SerializeToString()), seconds, "could not write to the stream")

    # Receiving.

    async def _read(self) -> pb.StreamResponse:
        import grpc

        data = await self._call.read()
        if data is grpc.aio.EOF:
            code, details = await self._call.code(), await self._call.details()
            raise _SessionError(f"stream ended by the collector: {code.name} {details}".rstrip())
        try:
            response = pb.StreamResponse.FromString(data)
        except Exception as e:
            raise _SessionError(f"answer that does not parse ({len(data)} bytes)", hopeless=True) from e
        return response

    async def _receive(self) -> None:
        while True:
            response = await self._read()
            kind = response.WhichOneof("kind")
            if kind == "ack":
                self._acked(response.ack.seq)
            elif kind == "pushback":
                self._pushed_back(response.pushback)
            elif kind == "refusal":
                self._refused(response.refusal)
            elif kind == "checkpoint":
                self._heard(response.checkpoint)
            elif kind is not None:  # None: a kind of a newer protocol, which may be passed over
                raise _SessionError(f"unexpected {kind} in an open stream", hopeless=True)
            self._up.woken.set()

    def _heard(self, said: pb.Checkpoint) -> None:
        heads = self._up.heads
        if heads is not None and heads.hear(said.note, tuple(said.consistency), said.vkey):
            self._chain.spool.cover(said.covered_seq)

    def _acked(self, seq: int) -> None:
        self._clock.acked(seq)
        if seq > self._sent_to:
            raise _SessionError(
                f"ack of {seq}, but only records up to {self._sent_to} were sent", hopeless=True
            )
        if seq > self._chain.spool.acked_seq:
            self._progress_at = time.monotonic()
            self._up.backoff.reset()  # only durable progress is a success
        self._chain.ack(seq)
        self._next = max(self._next, seq + 1)
        self._up.publish(
            last_ack_unix_ns=self._up.unix_ns(), acked_seq=self._chain.spool.acked_seq, last_error=""
        )

    def _rest(self, at_least_s: float) -> None:
        wait_s = self._up.backoff.next_s(min(max(at_least_s, _MIN_REST_S), _MAX_REST_S))
        self._rest_until = max(self._rest_until, time.monotonic() + wait_s)

    def _pushed_back(self, pushback: pb.Pushback) -> None:
        text = self._count_pushback(pushback)
        if pushback.reason == _PUSHBACK.REASON_SHUTTING_DOWN:
            raise _SessionError(text, min(pushback.retry_after_ms / 1e3, _MAX_REST_S))
        if self._rest_until <= time.monotonic():  # those that answer what was in flight add no more
            log.warning("uplink: collector pushed back: %s", text)
            self._rest(pushback.retry_after_ms / 1e3)
        if pushback.reason == _PUSHBACK.REASON_INVENTORY_UNKNOWN:
            self._sent_inventories.clear()
        if 0 < pushback.resume_seq < self._next:
            self._next = pushback.resume_seq

    def _count_pushback(self, pushback: pb.Pushback) -> str:
        text = _enum_text(pb.Pushback.Reason, pushback.reason, "REASON_", pushback.message)
        self._up.publish(pushbacks=self._up.status.pushbacks + 1, last_error=text)
        return text

    def _refused(self, refusal: pb.Refusal) -> None:
        text = self._count_refusal(refusal)
        if refusal.seq == 0:
            raise _SessionError(f"refused by the collector: {text}", hopeless=True)
        if refusal.code in _FORKS:
            self._chain.forked()
            raise _SessionError(f"record {refusal.seq} refused: {text}")
        if not self._chain.spool.acked_seq < refusal.seq <= self._sent_to:
            raise _SessionError(
                f"refusal of {refusal.seq}, but records {self._chain.spool.acked_seq + 1} to {self._sent_to} were sent",
                hopeless=True,
            )
        if refusal.code == _REFUSAL.CODE_OVERLAP and self._chain.overlaps(refusal.seq):
            raise _SessionError(f"record {refusal.seq} refused: {text}")
        in_books = refusal.code == _REFUSAL.CODE_OVERLAP
        self._chain.refuse(refusal.seq, text, in_books=in_books)
        # Those in flight behind it carry the old chain: the collector pushes them back as out of sequence.
        self._next = min(self._next, refusal.seq)
        self._sent_to = min(self._sent_to, refusal.seq - 1)
        self._rest(0.0)

    def _count_refusal(self, refusal: pb.Refusal) -> str:
        text = _enum_text(pb.Refusal.Code, refusal.code, "CODE_", refusal.message)
        self._up.publish(refusals=self._up.status.refusals + 1, last_error=text)
        return text


def _enum_text(enum: Any, number: int, prefix: str, message: str) -> str:
    """`out of sequence: message`; a number of a newer protocol stands as it is."""
    name = enum.Name(number) if number in enum.values() else str(number)
    return f"{name.removeprefix(prefix).lower().replace('_', ' ')}: {message[:MAX_TEXT_CHARS]}"
