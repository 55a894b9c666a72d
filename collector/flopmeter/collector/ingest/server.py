"""The gRPC edge: one bidirectional stream per agent, raw bytes in and out. Runs on one event loop.

A stream reads, judges (`intake`) and goes on reading; nothing waits per record. Once per group the writer
commits, and each stream that had records in it gets one Ack of its highest number (with more of its records in
the next group: one for both commits). Verification stands in the loop, because libsodium is cheaper than handing
bytes to a thread (reference/performance.md 7).
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from flopmeter.collector.errors import StoreError
from flopmeter.collector.metrics import Counters
from flopmeter.contract.limits import (
    MAX_IN_FLIGHT_RECORDS,
    MAX_RECORD_BYTES,
    MAX_RECORDS_PER_MESSAGE,
)
from flopmeter.wire.v1 import ingest_pb2

from .committer import Committer
from .decide import DUPLICATE, TAKEN, PushbackReason, PushedBack, RefusalCode, Refused
from .encode import checkpoint, pushback, refusal
from .group import Agent
from .guard import Guard
from .heads import Heads, Log
from .intake import Intake, hello_verified
from .listening import MAX_STREAMS, bind, collector_version, make_server
from .refusal_log import RefusalLog
from .stream import Stream, Tasks, read_out
from .writer import Writer

SERVICE = "flopmeter.wire.v1.IngestService"
METHOD = f"/{SERVICE}/Stream"

#: Records taken and not yet committed, all agents together; past either, agents are told to wait.
MAX_QUEUED_RECORDS = 32_768
MAX_QUEUED_BYTES = 256 << 20
HELLO_TIMEOUT_S = 30.0
#: A stream that said nothing for so long is closed; agents send a heartbeat every minute or so.
IDLE_TIMEOUT_S = 900.0
SWEEP_S = 5.0
#: Between two looks for silent agents and a new day; a look at 50,000 agents takes some 10 ms.
REVIEW_S = 15.0
#: A look that is later than this by the collector's clock: the collector was not listening meanwhile.
PAUSE_S = 60.0
RETRY_STORE_MS = 2_000
RETRY_OVERLOADED_MS = 1_000
RETRY_SHUTDOWN_MS = 1_000
#: After a half-close: how long the last acks may take.
LAST_ACKS_S = 10.0

log = logging.getLogger(__name__)
_Request = ingest_pb2.StreamRequest
_Response = ingest_pb2.StreamResponse


class IngestServer:
    """Serves IngestService.Stream on an event loop, with one writer thread beside it."""

    def __init__(
        self,
        intake: Intake,
        writer: Writer,
        *,
        probe: Callable[[], None],
        linger_s: float,
        counters: Counters,
        unix_ns: Callable[[], int] = time.time_ns,
        raised: Callable[[], None] = lambda: None,
        review_s: float | None = REVIEW_S,
        guard: Guard | None = None,
    ) -> None:
        """`probe` and `raised` are the Committer's. `review_s` None: `review` is called by whoever moves the clock.

        `guard` None: plain text, and the record key alone says who speaks.
        """
        self._guard = guard
        self._intake = intake
        self._writer = writer
        self._unix_ns = unix_ns
        self.counters = counters
        self._streams: set[Stream] = set()
        self._by_agent: dict[int, Stream] = {}
        self._tasks = Tasks()
        self._sweeper: asyncio.Task[None] | None = None
        self._review_s = review_s
        self._reviewer: asyncio.Task[None] | None = None
        self._refusals = RefusalLog()
        #: What agents are told of the log; None until `keep_log`, and where none is kept.
        self.heads: Heads | None = None
        self._committer = Committer(
            intake,
            writer,
            probe=probe,
            linger_s=linger_s,
            counters=counters,
            committed=self._committed,
            failed=self._failed,
            raised=raised,
        )

    def keep_log(self, log: Log) -> None:
        """From now on agents are told of the log's heads: whoever makes one calls `heads.begun` and `heads.released`."""
        self.heads = Heads(
            log,
            lambda: self._by_agent,
            lambda told: _Response(checkpoint=checkpoint(*told)).SerializeToString(),
        )

    # --- life ---

    async def start(self, address: str) -> int:
        """Bind `address` and serve; the port. Raises OSError if it cannot be bound."""
        self._loop = asyncio.get_running_loop()
        credentials = None if self._guard is None else self._guard.credentials()
        self._server = make_server(credentials)
        handler: Any = grpc.stream_stream_rpc_method_handler(self._serve)  # no deserialiser: raw bytes
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Stream": handler}),)
        )
        if self._guard is not None:
            self._server.add_generic_rpc_handlers((self._guard.handler(),))
        port = bind(self._server, address, credentials)
        await self._server.start()
        self._committer.start()
        self._sweeper = self._loop.create_task(self._sweep())
        self._look()  # all runs, by the regimes of now
        if self._review_s is not None:
            self._reviewer = self._loop.create_task(self._review_now_and_then(self._review_s))
        return port

    async def stop(self, grace_s: float = 5.0) -> None:
        """Take nothing more, commit what was taken, acknowledge it, say goodbye, close."""
        await self._committer.stop()
        if self._sweeper is None:  # never bound
            return
        self._sweeper.cancel()
        if self._reviewer is not None:
            self._reviewer.cancel()
        for stream in list(self._streams):
            if stream.agent is not None:
                self._push_back(
                    stream,
                    PushedBack(PushbackReason.SHUTTING_DOWN, "the collector stops", RETRY_SHUTDOWN_MS),
                    stream.agent.head.next_seq,
                )
        await read_out(self._streams, grace_s)
        await self._server.stop(0)
        await self._tasks.cancel()
        await asyncio.gather(
            *(t for t in (self._sweeper, self._reviewer) if t is not None), return_exceptions=True
        )

    @property
    def ready(self) -> bool:
        """Whether records are being taken and committed."""
        return self._committer.ready

    @property
    def writer_lives(self) -> bool:
        """Whether the writer comes back from the disk. Any thread."""
        return self._committer.writer_lives

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    # --- one stream ---

    async def _serve(self, _requests: Any, context: Any) -> None:
        if len(self._streams) >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are open")
        stream = Stream(context, os.urandom(32), self._loop.time(), self._tasks)
        self._streams.add(stream)
        try:
            challenge = _Response(challenge=ingest_pb2.Challenge(nonce=stream.nonce))
            await context.write(challenge.SerializeToString())
            first = await context.read()
            if first is grpc.aio.EOF or not await self._hello(stream, first):
                return
            while (data := await context.read()) is not grpc.aio.EOF:
                stream.heard = self._loop.time()
                self._message(stream, data)
                if stream.closing:
                    break
            await self._finish(stream)
        finally:
            self._streams.discard(stream)
            if stream.agent is not None and self._by_agent.get(stream.agent.agent_no) is stream:
                del self._by_agent[stream.agent.agent_no]

    async def _hello(self, stream: Stream, data: bytes) -> bool:
        stream.heard = self._loop.time()
        try:
            request = _Request.FromString(data)
            hello = request.hello
            body = ingest_pb2.HelloBody.FromString(hello.body)
        except DecodeError as e:
            return await self._turn_away(stream, Refused(RefusalCode.MALFORMED, f"expected a Hello: {e}"))
        offset = stream.greeted(body.t_unix_ns, self._unix_ns())
        if request.WhichOneof("kind") != "hello":
            return await self._turn_away(stream, Refused(RefusalCode.MALFORMED, "expected a Hello first"))
        if not hello_verified(stream.nonce, hello.body, hello.signature, body.public_key):
            return await self._turn_away(
                stream,
                Refused(RefusalCode.BAD_SIGNATURE, "hello: the signature does not cover this stream's nonce"),
                body.public_key,
                body.node,
            )
        if self._guard is not None:
            fault, stream.until_unix_s = self._guard.judge(stream.context, body.public_key, body.node)
            if fault:
                refused = Refused(RefusalCode.UNKNOWN_AGENT, fault)
                return await self._turn_away(stream, refused, body.public_key, body.node)
        if not self.ready:
            return await self._not_now(stream)
        agent = self._intake.hello(
            public_key=body.public_key,
            node=body.node,
            version=body.agent_version,
            oldest_seq=body.oldest_seq,
            newest_seq=body.newest_seq,
            now_unix_ns=self._unix_ns(),
        )
        if isinstance(agent, Refused):
            return await self._turn_away(stream, agent, body.public_key, body.node)
        told = await self.heads.welcome(stream, body.known_log_size) if self.heads is not None else None
        # What the Welcome says must be durable: a new agent, a loss, and records of a stream before this,
        # which takes no more from here on.
        self._end_older(agent)
        while self._intake.group or agent.uncommitted or not agent.entered:
            if not (self._intake.knows(agent) and await self._committer.settled()):
                return await self._not_now(stream)
            self._end_older(agent)
            if agent.entered and not (agent.uncommitted or self._intake.group.access_no):
                break
        if agent.barred:  # meanwhile
            refused = Refused(RefusalCode.UNKNOWN_AGENT, agent.barred)
            return await self._turn_away(stream, refused, body.public_key, body.node)
        stream.agent = agent
        self._by_agent[agent.agent_no] = stream
        self._intake.clock(agent, offset)
        head = agent.head
        welcome = ingest_pb2.Welcome(
            resume_seq=head.next_seq,
            head_hash=head.last_hash if head.last_seq else b"",
            head_boot_id=head.boot_id,
            head_window_end_boot_ns=head.window_end_boot_ns,
            t_unix_ns=self._unix_ns(),
            collector_version=collector_version(),
            max_record_bytes=MAX_RECORD_BYTES,
            max_in_flight_records=MAX_IN_FLIGHT_RECORDS,
            checkpoint=checkpoint(*told) if told is not None else None,
        )
        await stream.context.write(_Response(welcome=welcome).SerializeToString())
        return True

    def _end_older(self, agent: Agent) -> None:
        older = self._by_agent.get(agent.agent_no)
        if older is not None:
            older.close(grpc.StatusCode.ABORTED, "a newer stream of this agent took over")

    async def _turn_away(self, stream: Stream, refused: Refused, key: bytes = b"", node: str = "") -> bool:
        """Refuse the whole stream (seq 0). `key` and `node` are what it says of itself."""
        self._count_refusal(refused, key, f"a stream from {stream.context.peer()} of node {node}")
        await stream.context.write(
            _Response(refusal=refusal(refused.code, refused.message)).SerializeToString()
        )
        return False

    def _count_refusal(self, refused: Refused, key: bytes, what: str) -> None:
        self.counters.refused(refused.code)
        code = refused.code.name.lower().replace("_", " ")
        self._refusals.say(key, what, code, refused.message, self._loop.time())

    async def _not_now(self, stream: Stream) -> bool:
        reason = (
            PushbackReason.SHUTTING_DOWN if self._committer.stopping else PushbackReason.STORE_UNAVAILABLE
        )
        self.counters.pushed_back(reason)
        said = pushback(reason, "the store cannot commit now", RETRY_STORE_MS)
        await stream.context.write(_Response(pushback=said).SerializeToString())
        return False

    def _message(self, stream: Stream, data: bytes) -> None:
        if stream.closing:
            return
        try:
            request = _Request.FromString(data)
        except DecodeError as e:
            self._refuse_stream(stream, f"expected a StreamRequest: {e}")
            return
        kind = request.WhichOneof("kind")
        if kind == "records":
            records = request.records.records
            if len(records) > MAX_RECORDS_PER_MESSAGE:
                self._refuse_stream(
                    stream,
                    f"expected at most {MAX_RECORDS_PER_MESSAGE} records a message, got {len(records)}",
                )
                return
            for raw in records:
                self._record(stream, raw)
        elif kind == "inventory":
            self._inventory(stream, request.inventory)
        elif kind == "heartbeat":
            assert stream.agent is not None
            b = request.heartbeat
            offset = stream.beaten(b.t_unix_ns, b.acked_seq, b.since_ack_ns, self._unix_ns())
            self._intake.clock(stream.agent, offset)
        elif kind == "hello":
            self._refuse_stream(stream, "expected one Hello per stream")
        # None: a message kind of a newer agent. Not understood, and nothing is owed for it.

    def _inventory(self, stream: Stream, raw: bytes) -> None:
        if not self.ready:
            return
        agent = stream.agent
        assert agent is not None
        refused = self._intake.inventory(agent, raw, self._unix_ns())
        if refused is not None:
            self._count_refusal(refused, agent.public_key, f"the inventory of node {agent.node}")
            self._refuse_stream(stream, refused.message)
        elif self._intake.group:
            self._committer.taken()

    def _record(self, stream: Stream, raw: bytes) -> None:
        agent = stream.agent
        assert agent is not None
        if stream.awaiting:
            if int.from_bytes(raw[32:40], "big") > stream.awaiting and len(raw) >= 40:
                return
            stream.awaiting = 0
        if not self.ready:
            reason = (
                PushbackReason.SHUTTING_DOWN if self._committer.stopping else PushbackReason.STORE_UNAVAILABLE
            )
            self._push_back(
                stream, PushedBack(reason, "commits do not work now", RETRY_STORE_MS), agent.durable_seq + 1
            )
            return
        committer = self._committer
        if committer.queued_records >= MAX_QUEUED_RECORDS or committer.queued_bytes >= MAX_QUEUED_BYTES:
            self._push_back(
                stream,
                PushedBack(PushbackReason.OVERLOADED, "too many records wait", RETRY_OVERLOADED_MS),
                agent.head.next_seq,
            )
            return
        outcome, seq = self._intake.offer(agent, raw, self._unix_ns())
        if outcome is TAKEN:
            self._committer.taken()
        elif outcome is DUPLICATE:
            self.counters.duplicates += 1
            if seq <= agent.durable_seq:  # else its first copy is on its way, and so is that one's ack
                self._ack(stream, agent)
        elif isinstance(outcome, PushedBack):
            self._push_back(stream, outcome, agent.head.next_seq)
        elif isinstance(outcome, Refused):
            self._count_refusal(outcome, agent.public_key, f"a record of node {agent.node}")
            if self._intake.group.conflicts:
                self._committer.taken()
            stream.awaiting = agent.head.next_seq
            said = refusal(outcome.code, outcome.message, seq, agent.head.next_seq)
            stream.send(_Response(refusal=said).SerializeToString())

    def _refuse_stream(self, stream: Stream, message: str) -> None:
        stream.send(_Response(refusal=refusal(RefusalCode.MALFORMED, message)).SerializeToString())
        stream.closing = True

    async def _finish(self, stream: Stream) -> None:
        """The agent has said all: let its last acks out before the stream ends."""
        agent = stream.agent
        if agent is not None and agent.uncommitted and self.ready:
            await self._committer.settled()
        await read_out([stream], LAST_ACKS_S)

    # --- replies ---

    def _ack(self, stream: Stream, agent: Agent) -> None:
        """Nothing past what is durable can be acknowledged from here: the number is no parameter."""
        stream.acking(agent.durable_seq)
        stream.send(_Response(ack=ingest_pb2.Ack(seq=agent.durable_seq)).SerializeToString())

    def _push_back(self, stream: Stream, pushed: PushedBack, resume_seq: int) -> None:
        self.counters.pushed_back(pushed.reason)
        stream.awaiting = resume_seq
        said = pushback(pushed.reason, pushed.message, pushed.retry_after_ms, resume_seq)
        stream.send(_Response(pushback=said).SerializeToString())

    # --- what the committer tells ---

    def _committed(self, agents: dict[int, Agent]) -> None:
        """One Ack per stream and commit, of its highest number.

        A stream that already has records in the next group hears of both commits with that one's: under load
        an ack costs as much as the record's checks. Put off once only; if the next commit fails, the pushback
        says what is durable.
        """
        for agent_no, agent in agents.items():
            stream = self._by_agent.get(agent_no)
            if stream is not None:
                stream.ack_due = bool(agent.uncommitted) and not stream.ack_due
                if not stream.ack_due:
                    self._ack(stream, agent)

    def _failed(self) -> None:
        """Whoever has records that are not durable comes again behind what is."""
        why = PushedBack(
            PushbackReason.STORE_UNAVAILABLE, "the store could not commit; nothing was lost", RETRY_STORE_MS
        )
        for stream in list(self._by_agent.values()):
            if stream.agent is not None and stream.agent.uncommitted:
                self._push_back(stream, why, stream.agent.durable_seq + 1)

    def _look(self, *, listening: bool = True) -> None:
        if not self.ready:
            return
        now = self._unix_ns()
        if now >= self._writer.due_unix_ns:  # of an idle fleet, too: a deadline waits for no record
            self._intake.group.review = True
        if self._intake.review(now, listening=listening):
            self._committer.taken()

    def judge_anew(self) -> None:
        """Have all runs judged in a commit of its own, if no record comes first: by other law files."""
        if self.ready:
            self._intake.group.review = True
            self._committer.taken()

    def log_contradicts(self, said: str) -> None:
        """Our own log contradicts itself, or what was signed of it: an event, with the next commit."""
        self._intake.group.log_faults.append(said)
        self._committer.taken()

    async def review(self) -> None:
        """Look for silent agents, and judge all runs if it is another day; what came of it is committed."""
        self._look_at_access()
        self._look()
        await self._committer.settled()

    async def _review_now_and_then(self, every_s: float) -> None:
        looked_ns = self._unix_ns()
        while True:
            await asyncio.sleep(every_s)
            now_ns = self._unix_ns()
            # The machine slept, this process was stopped, or the clock stepped: nothing could come meanwhile.
            self._look(listening=now_ns - looked_ns < (every_s + PAUSE_S) * 1e9)
            looked_ns = now_ns

    def _look_at_access(self) -> None:
        """Apply what was written of who may speak, and end the streams of those who may not any more."""
        if not self.ready:
            return
        try:
            if self._intake.look_at_access():
                self._committer.taken()
        except StoreError as e:  # the next commit says the same, and is recovered from
            log.warning("the access table cannot be read: %s", e)
        for agent in self._intake.take_barred():
            log.warning(
                "%r of node %r is refused from now on: %s", agent.agent_id.hex(), agent.node, agent.barred
            )
            stream = self._by_agent.get(agent.agent_no)
            if stream is not None:
                stream.close(grpc.StatusCode.PERMISSION_DENIED, agent.barred)

    async def _sweep(self) -> None:
        """Close streams that never said Hello, or have said nothing for long."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            self._look_at_access()
            for stream in list(self._streams):
                if stream.until_unix_s and stream.until_unix_s <= self._unix_ns() // 1_000_000_000:
                    stream.close(grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired")
                limit = HELLO_TIMEOUT_S if stream.agent is None else IDLE_TIMEOUT_S
                if now - stream.heard > limit:
                    stream.close(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing heard for {limit:.0f} s")
