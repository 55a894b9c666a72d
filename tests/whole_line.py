"""Agent and collector on one line without a network: the real parts, driven step by step, each of which may fail.

A box is a machine with one GPU that counts. An agent is the real pipeline, meter, chain, spool and uplink
session on it. The clerk is the collector: real intake, writer and store behind what server.py says to a stream.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from builders import UNIX_NS
from desk import Desk
from faulty_sqlite import Crash
from metering import FIELDS, SMS, Gpu, device
from power import let_go

from flopmeter.agent.errors import AgentError, SpoolFullError
from flopmeter.agent.metering.meter import MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.spool import MIN_LIMIT_BYTES
from flopmeter.agent.shipping.status import Identity
from flopmeter.agent.shipping.uplink import Uplink, _Session, _SessionError
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.decide import DUPLICATE, PushbackReason, PushedBack, Refused
from flopmeter.collector.ingest.group import Agent as KnownAgent
from flopmeter.collector.ingest.intake import hello_verified
from flopmeter.contract.record import HEADER_BYTES, SIGNATURE_BYTES
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.wire.v1 import batch_pb2
from flopmeter.wire.v1 import ingest_pb2 as pb

SECOND = 1_000_000_000
WINDOW_NS = 10 * SECOND
MAKE_METER = meter_factory(MeterSettings(window_ns=WINDOW_NS), agent_version="0.1.0")
SHARES = {249: 900, 252: 470, 259: 20}  # permille by GPM id
HMMA = FIELDS[252]


class Quiet(BaseException):
    """Nothing more has come."""


@dataclass
class Box:
    """A machine. `since` is when the first reading of it was taken, by the wall clock; -1 = never."""

    n: int
    wall: int = UNIX_NS
    up_since: int = UNIX_NS - 1_000 * SECOND
    boots: int = 0
    since: int = -1
    last: int = -1
    hmma: int = 0  # SM-cycles that ran since `since`

    def __post_init__(self) -> None:
        self.gpu = Gpu(f"GPU-{self.n}")
        self.job = Workload(WorkloadKind.SLURM, job=str(self.n), run=f"run-{self.n}", dtype="bf16")

    @property
    def name(self) -> str:
        return f"box-{self.n}"

    @property
    def boot_id(self) -> bytes:
        return hashlib.sha256(f"{self.n}/{self.boots}".encode()).digest()[:16]

    def facts(self) -> NodeFacts:
        devices = (device(self.n),)
        return NodeFacts(self.name, self.boot_id, "595.58.03", "13.595.58", "nvml", devices, "c1")

    def pass_time(self, ns: int) -> None:
        before = self.gpu.counters[252]
        self.wall += ns
        self.gpu.run(ns, SHARES)
        if self.since >= 0:
            self.hmma += (self.gpu.counters[252] - before) * SMS

    def reboot(self) -> None:
        self.pass_time(3 * SECOND)
        self.boots += 1
        self.wall += 20 * SECOND
        self.up_since = self.wall - 5 * SECOND
        self.gpu.reset()


class Wire:
    """One stream: messages under way up and down, and those that the agent's end may read now."""

    def __init__(self) -> None:
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.handed: list[bytes] = []
        self.answer: Callable[[], None] | None = None  # while the handshake lasts

    async def write(self, data: bytes) -> None:
        self.up.append(data)

    async def read(self) -> bytes:
        if not self.handed and self.answer is not None:
            self.answer()
        if not self.handed:
            raise Quiet
        return self.handed.pop(0)


class Agent:
    """A state directory and the process that has it, on `box`."""

    def __init__(self, box: Box, state: Path, loop: asyncio.AbstractEventLoop, keep_acked_bytes: int) -> None:
        self.box = box
        self.state = state
        self.keep_acked_bytes = keep_acked_bytes
        self.loop = loop
        self.session: _Session | None = None
        self.wire = Wire()
        self.pipeline: Pipeline

    @property
    def chain(self) -> Chain:
        return self.pipeline.chain

    def start(self) -> None:
        self.session = None
        self.pipeline = Pipeline.open(
            self.box.facts(),
            MAKE_METER,
            PipelineSettings(
                state=self.state,
                spool_limit_bytes=MIN_LIMIT_BYTES * 4,
                keep_acked_bytes=self.keep_acked_bytes,
            ),
            agent_version="0.1.0",
        )
        identity = Identity(self.box.name, "0.1.0", self.box.boot_id)
        self.uplink = Uplink("the model", self.chain, identity, rng=Random(1))  # never started: no thread

    def die(self) -> None:
        """As SIGKILL does it: nothing is written, locks are let go."""
        self.session = None
        let_go(self.state)

    def live(self, seconds: int) -> None:
        """Read the GPU once a second."""
        box = self.box
        for _ in range(seconds):
            box.pass_time(SECOND)
            if box.since < 0:
                box.since = box.wall
            box.last = box.wall
            reading = box.gpu.reading(box.wall - box.up_since, unix=box.wall, workload=box.job)
            self.pipeline.observe(reading)

    def seal(self) -> None:
        """What is open becomes a record, as at a stop; then it runs on."""
        self.pipeline.stop(0)
        self.start()

    def _do(self, what: Coroutine[Any, Any, Any]) -> Any:
        """A step of the uplink. Where it ends the stream, or asks for a restart, that is done."""
        try:
            return self.loop.run_until_complete(what)
        except (_SessionError, SpoolFullError):
            self.session = None
        except AgentError:
            self.die()
            self.start()
        return None

    def connect(self, clerk: "Clerk") -> None:
        self.wire = wire = Wire()
        self.session = session = _Session(self.uplink, wire)
        nonce = hashlib.sha256(os.urandom(8)).digest()
        wire.handed.append(pb.StreamResponse(challenge=pb.Challenge(nonce=nonce)).SerializeToString())
        wire.answer = lambda: clerk.greet(wire, nonce)
        self._do(session._handshake())
        wire.answer = None

    def send(self) -> bool:
        return self.session is not None and bool(self._do(self.session._send_some()))

    def hear(self, messages: list[bytes]) -> None:
        if self.session is not None:
            self.wire.handed += messages
            with contextlib.suppress(Quiet):
                self._do(self.session._receive())


@dataclass
class Stream:
    wire: Wire
    agent: KnownAgent
    awaiting: int = 0


@dataclass
class Clerk:
    """The collector. `condemned`: window starts whose records it refuses for good, those in their place too or not."""

    path: Path
    connect: Callable[..., Any]
    streams: dict[bytes, Stream] = field(default_factory=dict)  # by agent id
    condemned: dict[int, bool] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.streams.clear()
        self.desk = Desk(self.path, connect=self.connect)

    def settle(self) -> bool:
        """Commit what was taken and acknowledge it. After a failure: recover, and push back."""
        group = self.desk.intake.take_group()
        try:
            if not group:
                return True
            self.desk.writer.commit(group)
            done = self.desk.intake.committed(group)
        except StoreError:
            waiting = [s for s in self.streams.values() if s.agent.uncommitted]
            self.desk.recover()
            for stream in waiting:
                why = PushedBack(PushbackReason.STORE_UNAVAILABLE, "could not commit")
                self._push_back(stream, why, stream.agent.durable_seq + 1)
            return False
        except Crash:
            self.streams.clear()
            raise
        for agent in done.values():
            stream = self.streams.get(agent.agent_id)
            if stream is not None:
                self._say(stream, ack=pb.Ack(seq=agent.durable_seq))
        return True

    def greet(self, wire: Wire, nonce: bytes) -> None:
        hello = pb.StreamRequest.FromString(wire.up.pop()).hello
        body = pb.HelloBody.FromString(hello.body)
        assert hello_verified(nonce, hello.body, hello.signature, body.public_key)
        agent = self.desk.intake.hello(
            public_key=body.public_key,
            node=body.node,
            version=body.agent_version,
            oldest_seq=body.oldest_seq,
            newest_seq=body.newest_seq,
            now_unix_ns=self.desk.now,
        )
        assert isinstance(agent, KnownAgent), agent
        self.streams.pop(agent.agent_id, None)
        if not self.settle() or agent.uncommitted:
            busy = pb.Pushback(reason=pb.Pushback.REASON_STORE_UNAVAILABLE)
            wire.handed.append(pb.StreamResponse(pushback=busy).SerializeToString())
            return
        self.streams[agent.agent_id] = Stream(wire, agent)
        head = agent.head
        welcome = pb.Welcome(
            resume_seq=head.next_seq,
            head_hash=head.last_hash if head.last_seq else b"",
            head_boot_id=head.boot_id,
            head_window_end_boot_ns=head.window_end_boot_ns,
        )
        wire.handed.append(pb.StreamResponse(welcome=welcome).SerializeToString())

    def take(self, wire: Wire, data: bytes) -> None:
        """A message of a stream arrives; one of a stream that is over means nothing."""
        stream = next((s for s in self.streams.values() if s.wire is wire), None)
        if stream is None:
            return
        request = pb.StreamRequest.FromString(data)
        if request.inventory:
            assert self.desk.intake.inventory(stream.agent, request.inventory, self.desk.now) is None
        for raw in request.records.records:
            self._record(stream, raw)

    def _record(self, stream: Stream, raw: bytes) -> None:
        agent = stream.agent
        seq = int.from_bytes(raw[32:40], "big")
        if stream.awaiting and seq > stream.awaiting:
            return
        stream.awaiting = 0
        batch = batch_pb2.Batch.FromString(raw[HEADER_BYTES:-SIGNATURE_BYTES])
        start = batch.window_start_boot_ns
        doomed = start in self.condemned and (start not in self.refused or self.condemned[start])
        if doomed and seq == agent.head.next_seq:
            self.refused.add(start)
            self._refuse(stream, seq, pb.Refusal.CODE_IMPLAUSIBLE, "condemned by the test")
            return
        outcome = self.desk.offer(agent, raw)
        if outcome is DUPLICATE and seq <= agent.durable_seq:
            self._say(stream, ack=pb.Ack(seq=agent.durable_seq))
        elif isinstance(outcome, PushedBack):
            self._push_back(stream, outcome, agent.head.next_seq)
        elif isinstance(outcome, Refused):
            self._refuse(stream, seq, int(outcome.code), outcome.message)

    def _refuse(self, stream: Stream, seq: int, code: int, message: str) -> None:
        stream.awaiting = stream.agent.head.next_seq
        refusal = pb.Refusal(code=code, seq=seq, resume_seq=stream.awaiting, message=message)  # type: ignore[arg-type]
        self._say(stream, refusal=refusal)

    def _push_back(self, stream: Stream, pushed: PushedBack, resume_seq: int) -> None:
        stream.awaiting = resume_seq
        back = pb.Pushback(reason=int(pushed.reason), resume_seq=resume_seq, message=pushed.message)  # type: ignore[arg-type]
        self._say(stream, pushback=back)

    def _say(self, stream: Stream, **kind: Any) -> None:
        stream.wire.down.append(pb.StreamResponse(**kind).SerializeToString())
