"""What a collector makes of agents' clocks: in the store with the next commit, believed within reason, and of no weight."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders import Chain
from desk import Desk
from serving import settings_for, stored
from wire_client import WireClient

from flopmeter.collector.clock_offset import Offset
from flopmeter.collector.ingest import stream as stream_module
from flopmeter.collector.running import RunningCollector, run_collector
from flopmeter.wire.v1 import ingest_pb2

S = 1_000_000_000
MS = 1_000_000
AWAY = 90 * S


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningCollector]:
    with run_collector(settings_for(tmp_path), time.time_ns) as running:
        yield running


@pytest.fixture
def agent() -> Chain:
    chain = Chain("gpu-001")
    chain.unix_ns = time.time_ns() - 3_600 * S
    return chain


def kept(running: RunningCollector) -> dict[str, tuple[int, int, int]]:
    with closing(sqlite3.connect(running.store_path)) as db:
        rows = db.execute(
            "SELECT node, lower_ns, upper_ns, measured_unix_ns FROM agents JOIN clocks USING (agent_no)"
        )
        return {node: tuple(found) for node, *found in rows}


def greeting(chain: Chain, t_unix_ns: int) -> bytes:
    body = ingest_pb2.HelloBody.FromString(chain.hello_body())
    body.t_unix_ns = t_unix_ns
    return body.SerializeToString()


def beat(t_unix_ns: int, acked_seq: int = 0, since_ack_ns: int = 0) -> bytes:
    said = ingest_pb2.Heartbeat(t_unix_ns=t_unix_ns, acked_seq=acked_seq, since_ack_ns=since_ack_ns)
    return ingest_pb2.StreamRequest(heartbeat=said).SerializeToString()


def hello(client: WireClient, away_ns: int) -> None:
    """With a clock that is off by that."""
    nonce = client.read("challenge").challenge.nonce
    now = time.time_ns() + away_ns
    client.send(client.chain.hello(nonce, body=greeting(client.chain, now)))
    client.read("welcome")
    client.send(ingest_pb2.StreamRequest(inventory=client.chain.inventory).SerializeToString())


def committed(client: WireClient) -> None:
    client.records(client.chain.next())
    client.ack(client.chain.seq)


def test_a_hello_tells_the_clock_and_it_is_kept_with_the_first_record(
    running: RunningCollector, agent: Chain
) -> None:
    with WireClient(running.address, agent) as client:
        hello(client, AWAY)
        assert kept(running) == {}, "of a clock alone there is no commit"
        committed(client)
        lower, upper, measured = kept(running)["gpu-001"]
        assert lower <= AWAY <= upper
        assert upper - lower < 20 * S
        assert abs(measured - time.time_ns()) < 60 * S


def test_an_agent_that_says_no_clock_has_no_offset(running: RunningCollector, agent: Chain) -> None:
    with WireClient(running.address, agent) as client:
        client.hello()  # as flopmeter 0.1 says it
        committed(client)
        client.send(beat(time.time_ns()))  # … and its heartbeat
        committed(client)
    assert kept(running) == {}


def test_a_heartbeat_behind_an_ack_tells_of_a_clock_that_was_set(
    running: RunningCollector, agent: Chain
) -> None:
    with WireClient(running.address, agent) as client:
        hello(client, 0)
        committed(client)
        got = time.monotonic_ns()
        assert kept(running)["gpu-001"][0] <= 0 <= kept(running)["gpu-001"][1]
        client.send(beat(time.time_ns() - AWAY, 1, time.monotonic_ns() - got))
        committed(client)
        lower, upper, _ = kept(running)["gpu-001"]
        assert lower <= -AWAY <= upper < -AWAY + 20 * S


def test_what_cannot_be_changes_nothing_and_costs_no_stream(running: RunningCollector, agent: Chain) -> None:
    with WireClient(running.address, agent) as client:
        hello(client, 0)
        committed(client)
        before = kept(running)
        now = time.time_ns() + AWAY
        for said in (
            beat(0, 1, 0),
            beat((1 << 64) - 1, 1, 0),
            beat(now, 2, 0),  # never acked
            beat(now, (1 << 64) - 1, 0),
            beat(now, 1, (1 << 64) - 1),
            beat(now, 1, 3_599 * S),  # we had not said it then
            beat(now, 0, 0),
        ):
            client.send(said)
        committed(client)
        assert kept(running) == before
    assert stored(running) == [1, 2]


def test_an_ack_of_another_stream_says_nothing(running: RunningCollector, agent: Chain) -> None:
    """What was acked before a reconnect is not known any more; and an ack that is said again counts since the first."""
    with WireClient(running.address, agent) as client:
        client.hello()
        committed(client)
    with WireClient(running.address, agent) as client:
        client.hello()
        client.send(beat(time.time_ns() + AWAY, 1, 5 * MS))
        committed(client)
        assert kept(running) == {}
        client.records(agent.records[1])  # a duplicate, acked again
        client.ack(2)
        client.send(beat(time.time_ns() + AWAY, 2, 0))
        committed(client)
        lower, upper, _ = kept(running)["gpu-001"]
        assert lower <= AWAY <= upper


def test_acks_of_one_number_are_remembered_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    at = iter(range(100, 200))
    monkeypatch.setattr(stream_module, "steady_ns", lambda: next(at))
    stream = stream_module.Stream(None, b"", 0.0, stream_module.Tasks())
    for seq in (5, 5, 7, 7, 6, 9, 12, 15):
        stream.acking(seq)
    assert [seq for seq, _ in stream.acks] == [7, 9, 12, 15]
    assert stream.acks[0] == (7, 101), "the first of it"
    assert stream.beaten(10**18, 5, 0, 10**18) is None, "forgotten"
    found = stream.beaten(10**18, 7, 0, 10**18)
    assert found is not None
    assert found.width_ns > 0


def test_a_clock_waits_for_a_commit_and_is_measured_anew_after_a_failed_one(tmp_path: Path) -> None:
    with Desk(tmp_path / "b.db", ()) as desk:
        chain, intake = Chain("gpu-001"), desk.intake
        agent = desk.agent(chain)

        def commit() -> list[tuple[int, ...]]:
            desk.offer(agent, chain.next())
            desk.commit()
            return desk.rows("SELECT * FROM clocks")

        assert commit() == []
        intake.clock(agent, None)
        intake.clock(agent, Offset(1, 2, 3))
        assert not intake.group, "worth no commit of its own"
        intake.take_group()  # it is empty, and so not committed
        intake.clock(agent, Offset(1, 2, 4))  # not worth keeping
        assert commit() == [(1, 1, 2, 3)]
        intake.clock(agent, Offset(AWAY, AWAY, 4))
        intake.take_group()
        desk.recover()  # its commit failed
        intake.clock(agent, Offset(AWAY, AWAY, 5))
        assert commit() == [(1, AWAY, AWAY, 5)]
        intake.review(desk.now)  # of the day
        desk.commit()
        assert not intake.review(desk.now)
        intake.clock(agent, Offset(-AWAY, -AWAY, 6))
        assert intake.review(desk.now), "where no record comes, it waits for no longer than the next look"
        desk.commit()
        assert desk.rows("SELECT * FROM clocks") == [(1, -AWAY, -AWAY, 6)]
        assert not intake.review(desk.now)
