"""What agents are told of the log's heads: whom, how often, by which proof; and nothing that is not durable is covered."""

import asyncio

import pytest
from builders import Chain, records_message
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from serving import settings_for
from signed_log import SignedLog, root_of
from wire_client import WireClient

from flopmeter.collector.ingest.group import Agent
from flopmeter.collector.ingest.heads import Head, Heads, Told
from flopmeter.collector.ingest.stream import Stream, Tasks
from flopmeter.collector.running import RunningCollector
from flopmeter.evidence.merkle import verify_consistency
from flopmeter.evidence.note import parse_checkpoint
from flopmeter.wire.v1 import ingest_pb2


class Log:
    """The log as heads.py knows it; counts what it is asked."""

    def __init__(self) -> None:
        self.log = SignedLog().grow(7)
        self.asked: list[tuple[int, int]] = []
        self.head: Head | None = None

    def vkey(self) -> str:
        return self.log.vkey

    def latest(self) -> Head | None:
        return self.head

    def consistency(self, old: int, new: int) -> list[bytes]:
        self.asked.append((old, new))
        return self.log.consistency(old, new)

    def sealed(self) -> Head:
        self.head = Head(self.log.size, self.log.note())
        return self.head


class Context:
    def __init__(self) -> None:
        self.written: list[Told] = []

    async def write(self, told) -> None:
        self.written.append(told)


class Site:
    """Streams of some agents, with the heads that they are told of."""

    def __init__(self, agents: int) -> None:
        self.log = Log()
        self.tasks = Tasks()
        self.streams: dict[int, Stream] = {}
        self.heads = Heads(self.log, lambda: self.streams, lambda told: told)
        for n in range(agents):
            self.join(n)

    def join(self, n: int) -> Stream:
        stream = Stream(Context(), b"", 0.0, self.tasks)
        stream.agent = Agent(n, bytes(16), bytes(32), "n", "", "", 0)
        self.streams[n] = stream
        return stream

    async def seal(self) -> None:
        self.heads.begun()
        await self.heads.released(self.log.sealed())
        while self.tasks._tasks:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def told(self, n: int) -> list[Told]:
        return self.streams[n].context.written


def test_a_head_goes_to_those_of_whom_it_covers_more_and_to_nobody_else():
    async def go() -> None:
        site = Site(3)
        for n in range(3):
            assert await site.heads.welcome(site.streams[n], 0) is None
        site.streams[0].agent.durable_seq = 4
        await site.seal()
        assert [t.covered_seq for t in site.told(0)] == [4]
        assert site.told(0)[0].vkey == site.log.log.vkey
        assert site.told(1) == site.told(2) == []
        site.log.log.grow(5)
        site.streams[1].agent.durable_seq = 9
        await site.seal()
        await site.seal()  # nothing new of anybody
        assert [t.covered_seq for t in site.told(0)] == [4]
        assert [t.covered_seq for t in site.told(1)] == [9]

    asyncio.run(go())


def test_what_became_durable_while_the_head_was_made_is_not_covered_by_it():
    async def go() -> None:
        site = Site(1)
        site.streams[0].agent.durable_seq = 4
        site.heads.begun()
        site.streams[0].agent.durable_seq = 6  # too late for this one
        await site.heads.released(site.log.sealed())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [t.covered_seq for t in site.told(0)] == [4]
        await site.seal()
        assert [t.covered_seq for t in site.told(0)] == [4, 6]

    asyncio.run(go())


def test_a_fleet_costs_one_proof_for_each_size_that_it_knows():
    async def go() -> None:
        site = Site(0)
        site.log.sealed()
        for n in range(500):
            stream = site.join(n)
            told = await site.heads.welcome(stream, 3 + n % 2)
            assert told.vkey
            stream.agent.durable_seq = 1
        assert sorted(site.log.asked) == [(3, 7), (4, 7)]
        site.log.log.grow(6)
        await site.seal()
        assert site.log.asked[2:] == [(7, 13)]
        assert all(len(site.told(n)) == 1 for n in range(500))

    asyncio.run(go())


def test_every_head_that_is_told_proves_itself_from_the_one_told_before():
    async def go() -> None:
        site = Site(0)
        site.log.sealed()
        stream = site.join(0)
        told = [await site.heads.welcome(stream, 5)]
        known, root = 5, root_of(site.log.log.leaves[:5])
        for seq in range(1, 12):
            site.log.log.grow(seq % 4)
            stream.agent.durable_seq = seq
            await site.seal()
        told += site.told(0)
        assert len(told) == 12
        for one in told:
            head = parse_checkpoint(one.note)
            if head.size != known:
                verify_consistency(known, root, head.size, head.root, one.consistency)
            assert head.size > known or head.root == root
            known, root = head.size, head.root

    asyncio.run(go())


def test_an_agent_that_knows_more_than_the_log_is_shown_what_there_is():
    """It is the agent that says what that means."""

    async def go() -> None:
        site = Site(0)
        site.log.sealed()
        stream = site.join(0)
        told = await site.heads.welcome(stream, 1_000_000)
        assert told.consistency == ()
        assert parse_checkpoint(told.note).size == 7
        empty = Site(0)
        assert await empty.heads.welcome(empty.join(0), 1_000_000) is None
        empty.streams[0].agent.durable_seq = 1
        await empty.seal()
        assert [(t.consistency, t.covered_seq) for t in empty.told(0)] == [((), 1)]

    asyncio.run(go())


def test_a_log_that_cannot_be_read_costs_no_stream(caplog):
    async def go() -> None:
        site = Site(0)
        site.log.sealed()

        def broken(*_: object) -> None:
            raise OSError("disk")

        site.log.consistency = broken
        assert await site.heads.welcome(site.join(0), 3) is None
        site.streams[0].agent.durable_seq = 1
        await site.seal()
        assert site.told(0) == []

    asyncio.run(go())
    assert "could not be read" in caplog.text


@pytest.fixture
def running(tmp_path):
    with RunningCollector(settings_for(tmp_path, checkpoint_s=60)) as running:
        yield running


def seal(running) -> None:
    office = running._collector._log
    asyncio.run_coroutine_threadsafe(office.seal(), running._loop).result(20)


def test_a_running_collector_tells_of_its_heads(running):
    chain = Chain("n")
    with WireClient(running.address, chain) as client:
        welcome = client.hello()
        assert not welcome.HasField("checkpoint")
        client.records(chain.next())
        client.ack(1)
        seal(running)
        said = client.read("checkpoint").checkpoint
        assert said.covered_seq == 1
        client.send(records_message(chain.next()))
        client.ack(2)
    with WireClient(running.address, chain) as client:
        told = client.hello().checkpoint
        assert parse_checkpoint(told.note).size >= 1
        assert told.covered_seq == 0


def old_messages():
    """The messages as an older flopmeter describes them: without what heads need."""
    proto = descriptor_pb2.FileDescriptorProto()
    ingest_pb2.DESCRIPTOR.CopyToProto(proto)
    dropped = 0
    for message in proto.message_type:
        new = [f for f in message.field if f.name == "checkpoint" or f.name.startswith("known_log_")]
        for field in new:
            message.field.remove(field)
            dropped += 1
    proto.message_type.remove(next(m for m in proto.message_type if m.name == "Checkpoint"))
    assert dropped == 5
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    package = proto.package
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))


def test_who_knows_nothing_of_heads_passes_over_them():
    old = old_messages()
    said = ingest_pb2.Checkpoint(note=b"note", consistency=[b"x" * 32], covered_seq=7, vkey="v")
    response = old("StreamResponse").FromString(
        ingest_pb2.StreamResponse(checkpoint=said).SerializeToString()
    )
    assert response.WhichOneof("kind") is None  # what uplink.py passes over
    welcome = old("Welcome").FromString(ingest_pb2.Welcome(resume_seq=3, checkpoint=said).SerializeToString())
    assert welcome.resume_seq == 3
    body = ingest_pb2.HelloBody(node="n", known_log_origin="o", known_log_size=9, known_log_root=bytes(32))
    assert old("HelloBody").FromString(body.SerializeToString()).node == "n"
    again = ingest_pb2.HelloBody.FromString(old("HelloBody")(node="n").SerializeToString())
    assert (again.known_log_size, again.known_log_root) == (0, b"")
