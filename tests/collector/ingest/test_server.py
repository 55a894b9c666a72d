"""The stream end to end on loopback: what an agent sees, and what is in the store afterwards."""

import asyncio
import urllib.error
import urllib.request

import grpc
import pytest
from builders import Chain, inventory_message
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import wait_for
from serving import NOW, Pushback, Refusal, http_status, settings_for, stored
from wire_client import Ended, WireClient

from flopmeter.collector.errors import CollectorError, StoreError
from flopmeter.collector.ingest import server as server_module
from flopmeter.collector.ingest import stream as stream_module
from flopmeter.collector.running import run_collector
from flopmeter.wire.v1 import ingest_pb2


def test_an_ack_means_it_is_in_the_store(running, chain):
    with WireClient(running.address, chain) as client:
        welcome = client.hello()
        assert (welcome.resume_seq, welcome.head_hash, welcome.t_unix_ns) == (1, b"", NOW)
        assert (welcome.max_record_bytes, welcome.max_in_flight_records) == (1 << 20, 256)
        for n in range(1, 4):
            client.records(chain.next())
            client.ack(n)
            assert stored(running) == list(range(1, n + 1))


def test_many_records_in_one_message_and_many_messages_get_one_ack_at_the_end(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        for _ in range(10):
            client.records(*(chain.next() for _ in range(20)))
        client.ack(200)
    assert stored(running) == list(range(1, 201))


def test_a_new_stream_resumes_behind_what_is_durable(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next(), chain.next())
        client.ack(2)
    with WireClient(running.address, chain) as client:
        welcome = client.hello()
        assert welcome.resume_seq == 3
        assert welcome.head_hash == chain.prev_hash
        assert welcome.head_boot_id == chain.boot_id
        assert welcome.head_window_end_boot_ns == chain.boot_ns
        client.records(chain.records[1])  # sent again: acknowledged again
        client.ack(2)
        client.records(chain.next())
        client.ack(3)


def test_a_half_closed_stream_still_gets_its_last_ack(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next())
        client.half_close()
        client.ack(1)
        with pytest.raises(Ended) as e:
            client.read()
        assert e.value.code == grpc.StatusCode.OK


def test_out_of_sequence_is_pushed_back_once_and_the_stream_goes_on(running, chain):
    first, *later = [chain.next() for _ in range(5)]
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(*later)
        pushback = client.read("pushback").pushback
        assert (pushback.reason, pushback.resume_seq) == (Pushback.REASON_OUT_OF_SEQUENCE, 1)
        assert "expected record 1, got 2" in pushback.message
        client.records(*later)  # still on their way: no answer each
        client.records(first, *later)
        client.ack(5)


def test_an_inventory_may_follow_its_record(running, chain):
    with WireClient(running.address, chain) as client:
        client.send(chain.hello(client.read("challenge").challenge.nonce))
        client.read("welcome")
        raw = chain.next()
        client.records(raw)
        assert client.read("pushback").pushback.reason == Pushback.REASON_INVENTORY_UNKNOWN
        client.send(inventory_message(chain.inventory))
        client.records(raw)
        client.ack(1)


def test_a_refused_record_leaves_the_stream_open_for_its_replacement(running, chain, caplog):
    with WireClient(running.address, chain) as client:
        client.hello()
        garbage = chain.seal(b"\xff")
        behind_it = Chain("gpu-001").seal(b"", seq=2)
        client.records(garbage, behind_it)
        refusal = client.read("refusal").refusal
        assert (refusal.code, refusal.seq, refusal.resume_seq) == (Refusal.CODE_MALFORMED, 1, 1)
        assert f"a record of node gpu-001', public key {chain.public_key.hex()}: malformed" in caplog.text
        client.records(chain.next())  # sealed again under the same number
        client.ack(1)


def test_a_clone_is_refused_and_becomes_an_event(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next(), chain.next())
        client.ack(2)
        client.records(chain.seal(b"other", seq=1))
        refusal = client.read("refusal").refusal
        assert (refusal.code, refusal.seq, refusal.resume_seq) == (Refusal.CODE_CONFLICT, 1, 3)
    wait_for("the event", lambda: running.counters.events["evidence.fork"] == 1)


def test_a_newer_stream_of_the_same_agent_takes_over(running, chain):
    with WireClient(running.address, chain) as old:
        old.hello()
        with WireClient(running.address, chain) as new:
            new.hello()
            with pytest.raises(Ended) as e:
                old.read()
            assert e.value.code == grpc.StatusCode.ABORTED
            new.records(chain.next())
            new.ack(1)


HELLOS = {
    "an old Hello": (lambda c, nonce: c.hello(bytes(32)), Refusal.CODE_BAD_SIGNATURE),
    "signed by another": (
        lambda c, nonce: c.hello(nonce, secret_key=Chain("x").secret_key), Refusal.CODE_BAD_SIGNATURE),
    "not a Hello": (lambda c, nonce: inventory_message(c.inventory), Refusal.CODE_MALFORMED),
    "not protobuf": (lambda c, nonce: b"\xff\xff", Refusal.CODE_MALFORMED),
    "body not protobuf": (lambda c, nonce: c.hello(nonce, body=b"\xff\xff"), Refusal.CODE_MALFORMED),
    "no key": (lambda c, nonce: c.hello(nonce, body=b""), Refusal.CODE_BAD_SIGNATURE),
}  # fmt: skip


@pytest.mark.parametrize("name", HELLOS)
def test_who_cannot_prove_who_it_is_is_turned_away(running, chain, name):
    make, code = HELLOS[name]
    with WireClient(running.address, chain) as client:
        client.send(make(chain, client.read("challenge").challenge.nonce))
        refusal = client.read("refusal").refusal
        assert (refusal.code, refusal.seq) == (code, 0)
        with pytest.raises(Ended):
            client.read()


def test_unknown_agents_are_refused_unless_listed(tmp_path, chain, caplog):
    listed = tmp_path / "admit"
    listed.write_text(f"# node keys\n{chain.public_key.hex()} gpu-001\n")
    with run_collector(settings_for(tmp_path, admit_new=False, admit=listed), lambda: NOW) as running:
        with WireClient(running.address, chain) as client:
            client.hello()
        stranger = Chain("stranger")
        with WireClient(running.address, stranger) as client:
            client.send(stranger.hello(client.read("challenge").challenge.nonce))
            refusal = client.read("refusal").refusal
            assert refusal.code == Refusal.CODE_UNKNOWN_AGENT
            assert stranger.public_key.hex() in refusal.message
        (line,) = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
        assert "of node stranger" in line
        assert f"public key {stranger.public_key.hex()}: unknown agent: " in line
        assert "--admit" in line


BAD_MESSAGES = {
    "not protobuf": b"\xff\xff\xff",
    "a second Hello": ingest_pb2.StreamRequest(hello=ingest_pb2.Hello()).SerializeToString(),
    "bad inventory": inventory_message(b"\xff\xff"),
    "too many records": ingest_pb2.StreamRequest(
        records=ingest_pb2.Records(records=[b""] * 257)
    ).SerializeToString(),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_message_that_breaks_the_protocol_ends_the_stream_with_its_reason(running, chain, name):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.send(BAD_MESSAGES[name])
        refusal = client.read("refusal").refusal
        assert (refusal.code, refusal.seq) == (Refusal.CODE_MALFORMED, 0)
        with pytest.raises(Ended):
            client.read()


def test_an_oversized_message_is_cut_off_while_reading(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(bytes(4 << 20))
        with pytest.raises(Ended) as e:
            client.read()
        assert e.value.code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_message_kinds_of_newer_agents_and_heartbeats_are_tolerated(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.send(bytes([0xFA, 0x07, 3]) + b"new")
        client.send(ingest_pb2.StreamRequest(heartbeat=ingest_pb2.Heartbeat(t_unix_ns=1)).SerializeToString())
        client.records(chain.next())
        client.ack(1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_fuzz_no_stream_of_messages_stops_the_collector(fuzzed, messages):
    with WireClient(fuzzed.address, Chain("fuzz")) as client:
        client.hello()
        for message in messages:
            client.send(message)
        client.half_close()
        with pytest.raises(Ended) as e:
            while True:
                client.read()
        assert e.value.code == grpc.StatusCode.OK


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    """One collector for all examples; at the end it still serves."""
    with run_collector(settings_for(tmp_path_factory.mktemp("fuzz")), lambda: NOW) as running:
        yield running
        chain = Chain("after")
        with WireClient(running.address, chain) as client:
            client.hello()
            client.records(chain.next())
            client.ack(1)


def test_silent_streams_are_closed(tmp_path, chain, monkeypatch):
    monkeypatch.setattr(server_module, "SWEEP_S", 0.01)
    monkeypatch.setattr(server_module, "HELLO_TIMEOUT_S", 0.1)
    with run_collector(settings_for(tmp_path), lambda: NOW) as running:
        with WireClient(running.address, chain) as client:
            client.read("challenge")
            with pytest.raises(Ended) as e:
                client.read()
            assert e.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        wait_for("gone", lambda: running._collector.server.stream_count == 0)


def test_a_peer_that_never_reads_is_cut_off(running, chain):
    server = running._collector.server

    class Stuck:
        async def write(self, _):
            await server._loop.create_future()

        async def abort(self, code, why):
            self.aborted = code

    async def flood():
        stream = stream_module.Stream(Stuck(), b"", 0.0, server._tasks)
        for _ in range(stream_module.MAX_UNREAD_REPLIES + 2):
            stream.send(b"x")
        return stream

    stream = asyncio.run_coroutine_threadsafe(flood(), server._loop).result(10)
    wait_for(
        "cut off", lambda: getattr(stream.context, "aborted", None) == grpc.StatusCode.RESOURCE_EXHAUSTED
    )


def test_an_address_in_use_is_said(tmp_path, running):
    second = settings_for(tmp_path, store=tmp_path / "other.db", listen=running.address)
    with pytest.raises(CollectorError, match=running.address) as e:
        run_collector(second)
    assert "another collector" in e.value.hint


def test_a_store_in_use_is_said(tmp_path, running):
    with pytest.raises(StoreError, match="another collector"):
        run_collector(settings_for(tmp_path))


def test_metrics_count_what_happened(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next())
        client.ack(1)
        client.records(chain.seal(b"\xff"))
        client.read("refusal")
        with urllib.request.urlopen(f"http://{running.http_address}/metrics", timeout=60) as r:
            text = r.read().decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines["flopmeter_collector_records_total"] == "1.0"
    assert lines["flopmeter_collector_streams"] == "1.0"
    assert lines["flopmeter_collector_ready"] == "1.0"
    assert lines['flopmeter_collector_refusals_total{code="malformed"}'] == "1.0"
    assert float(lines['flopmeter_collector_commit_seconds_bucket{le="+Inf"}']) >= 1
    assert http_status(running, "/nothing") == 404
