"""The stream end to end on loopback: what an agent sees, and what is in the store when it sees it."""

import asyncio
import sqlite3
import threading
import urllib.error
import urllib.request

import grpc
import pytest
from builders import UNIX_NS, Chain, inventory_message
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import wait_for
from wire_client import Ended, WireClient

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import CollectorError, StoreError
from flopmeter.collector.ingest import committer as committer_module
from flopmeter.collector.ingest import server as server_module
from flopmeter.collector.ingest import stream as stream_module
from flopmeter.collector.running import keep_beating, run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.store.sqlite import open_for_reading
from flopmeter.wire.v1 import ingest_pb2

NOW = UNIX_NS + 86_400 * 10**9
Refusal, Pushback = ingest_pb2.Refusal, ingest_pb2.Pushback


def settings_for(tmp_path, **more):
    values = {"store": tmp_path / "b.db", "listen": "127.0.0.1:0", "http": "127.0.0.1:0", "admit_new": True}
    return CollectorSettings(**{**values, "linger_ms": 5, **more})


@pytest.fixture
def running(tmp_path):
    with run_collector(settings_for(tmp_path), lambda: NOW) as running:
        yield running


@pytest.fixture
def chain():
    return Chain("gpu-001")


def stored(running):
    connection = open_for_reading(running.store_path)
    try:
        return [s for (s,) in connection.execute("SELECT seq FROM records ORDER BY position")]
    finally:
        connection.close()


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


def test_overload_is_told_and_passes(tmp_path, chain, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_QUEUED_RECORDS", 3)
    with (
        run_collector(settings_for(tmp_path, linger_ms=50), lambda: NOW) as running,
        WireClient(running.address, chain) as client,
    ):
        client.hello()
        sent = [chain.next() for _ in range(5)]
        client.records(*sent)
        pushback = client.read("pushback").pushback
        assert (pushback.reason, pushback.resume_seq) == (Pushback.REASON_OVERLOADED, 4)
        assert pushback.retry_after_ms > 0
        client.ack(3)
        client.records(*sent[3:])
        client.ack(5)


def test_a_store_that_cannot_commit_pushes_back_and_recovers(tmp_path, chain, monkeypatch):
    monkeypatch.setattr(committer_module, "RECOVERY_PAUSE_S", 0.02)
    with (
        run_collector(settings_for(tmp_path), lambda: NOW) as running,
        WireClient(running.address, chain) as client,
    ):
        client.hello()
        client.records(chain.next())
        client.ack(1)
        committer, books = running._collector.server._committer, running._collector.store.books
        good_write, good_probe = books.write, committer._probe

        def full(*_):
            raise StoreError("database or disk is full", "free space")

        books.write = committer._probe = full
        client.records(chain.next(), chain.next())
        pushback = client.read("pushback").pushback
        assert (pushback.reason, pushback.resume_seq) == (Pushback.REASON_STORE_UNAVAILABLE, 2)
        wait_for("not ready", lambda: http_status(running, "/readyz") == 503)
        assert http_status(running, "/healthz") == 200
        client.records(chain.records[1])  # too early: told again
        assert client.read("pushback").pushback.resume_seq == 2
        books.write, committer._probe = good_write, good_probe
        wait_for("ready", lambda: http_status(running, "/readyz") == 200)
        client.records(*chain.records[1:])
        client.ack(3)
        assert stored(running) == [1, 2, 3]


def test_a_writer_that_does_not_come_back_from_the_disk_is_seen(running, chain, monkeypatch):
    monkeypatch.setattr(committer_module, "WRITER_STUCK_S", 0.05)
    books = running._collector.store.books
    good, go_on = books.write, threading.Event()

    def hangs(transaction):
        go_on.wait(20)
        good(transaction)

    with WireClient(running.address, chain) as client:
        client.hello()
        wait_for("alive", lambda: http_status(running, "/healthz") == 200)
        books.write = hangs
        client.records(chain.next())
        wait_for("stuck", lambda: http_status(running, "/healthz") == 503)
        go_on.set()
        client.ack(1)
    wait_for("alive again", lambda: http_status(running, "/healthz") == 200)


def test_systemds_watchdog_hears_nothing_while_the_writer_is_stuck():
    class Systemd:
        beat_s, beats = 1e-6, 0

        def beat(self):
            self.beats += 1

    async def watch():
        systemd, done = Systemd(), asyncio.Event()
        lives = [True, True, False, False, True, False]
        beating = asyncio.create_task(keep_beating(systemd, lambda: lives.pop(0) if lives else done.set()))
        await asyncio.wait_for(done.wait(), 20)
        beating.cancel()
        return systemd.beats

    assert asyncio.run(watch()) == 3
    unasked = Systemd()
    unasked.beat_s = 0.0
    asyncio.run(keep_beating(unasked, lambda: True))  # ends at once
    assert unasked.beats == 0


def test_a_defect_in_a_commit_acknowledges_nothing_and_passes(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        writer = running._collector.server._committer._writer
        good, calls = writer._books.write, []

        def broken(transaction):
            calls.append(transaction)
            writer._books.write = good
            raise ZeroDivisionError

        writer._books.write = broken
        client.records(chain.next(), chain.next())
        assert client.read("pushback").pushback.resume_seq == 1
        wait_for("ready", lambda: running._collector.server.ready)
        client.send(inventory_message(chain.inventory))  # may have been in the group that failed
        client.records(*chain.records)
        client.ack(2)
    assert len(calls) == 1
    assert stored(running) == [1, 2]


def test_a_stream_with_records_in_the_next_group_hears_of_both_commits_at_once_and_no_later(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next())
        client.ack(1)
        server = running._collector.server
        books, go = server._committer._writer._books, threading.Semaphore(0)
        write, begun = books.write, []

        def gated(transaction):
            begun.append(len(transaction.records))
            assert go.acquire(timeout=10)
            write(transaction)

        books.write = gated
        for n in (2, 3, 4):  # each is taken while the commit of the one before it is under way
            client.records(chain.next())
            wait_for("taken", lambda n=n: server._committer.queued_records == 1 + (n > 2))
            if n > 2:
                go.release()
            wait_for("its commit", lambda n=n: len(begun) == n - 1)
        go.release()
        assert [client.read("ack").ack.seq for _ in range(2)] == [3, 4]
    assert begun == [1, 1, 1]


def test_a_duplicate_is_not_acknowledged_before_its_first_copy_is_durable(tmp_path, chain):
    running = run_collector(settings_for(tmp_path), lambda: NOW)
    server = running._collector.server
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next())
        client.ack(1)
        server._committer._linger_s = 60.0  # what is taken from here on is durable when the collector stops
        client.records(chain.next())
        wait_for("taken", lambda: len(server._intake.group.records) == 1)
        client.records(chain.records[1])
        client.records(chain.seal(b"", seq=9))
        # Replies come in order: had the duplicate been answered, it would be here.
        assert client.read("pushback").pushback.reason == Pushback.REASON_OUT_OF_SEQUENCE
        assert running.counters.duplicates == 1
        assert stored(running) == [1]
        client.records(chain.records[0])  # but what is durable is acknowledged again
        assert client.read("ack").ack.seq == 1
        running.stop()
        assert client.read("ack").ack.seq == 2
    assert stored(running) == [1, 2]


def test_a_commit_that_took_effect_and_then_failed_is_found_in_the_store(running, chain):
    """What the writer knew before it is not the store's state any more: not one number of it may be used again."""
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next())
        client.ack(1)
        books = running._collector.store.books
        good = books.write

        def durable_and_unsaid(transaction):
            books.write = good
            good(transaction)
            raise StoreError("disk I/O error")

        books.write = durable_and_unsaid
        client.records(chain.next())
        assert client.read("pushback").pushback.resume_seq == 2
        wait_for("ready", lambda: running._collector.server.ready)
        client.records(chain.records[1])
        client.ack(2)
        client.records(chain.next())
        client.ack(3)
    assert stored(running) == [1, 2, 3]
    assert running.counters.commit_failures == 1
    assert check_store(running.store_path, ()).difference is None


def test_stopping_while_the_store_is_broken_commits_nothing_behind_the_failed_group(tmp_path, chain):
    running = run_collector(settings_for(tmp_path), lambda: NOW)
    committer, books = running._collector.server._committer, running._collector.store.books
    failing, good_write = threading.Event(), books.write
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next())
        client.ack(1)

        def slow_failure(_):
            books.write = good_write  # the next commit would work, and must not happen
            failing.wait(20)
            raise StoreError("disk full")

        def no(*_):
            raise StoreError("disk full")

        books.write, committer._probe = slow_failure, no
        client.records(chain.next())
        wait_for("committing", lambda: committer._committing_records == 1)
        client.records(chain.next())  # taken behind the group that is about to fail
        wait_for("taken", lambda: len(committer._intake.group.records) == 1)
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        wait_for("stopping", lambda: committer.stopping)
        failing.set()
        stopping.join(20)
        assert not stopping.is_alive()
    assert stored(running) == [1]


def test_stopping_commits_an_admission_that_was_under_way(tmp_path, chain):
    running = run_collector(settings_for(tmp_path, linger_ms=10_000), lambda: NOW)
    with WireClient(running.address, chain) as client:
        # Only a full group or the stop ends so long a linger.
        client.send(chain.hello(client.read("challenge").challenge.nonce))
        wait_for("the hello", lambda: running._collector.server._committer._waiting)
        running.stop()
        assert client.read("welcome").welcome.resume_seq == 1
        with pytest.raises(Ended):
            while True:  # a goodbye may come first
                client.read("pushback")
    connection = sqlite3.connect(tmp_path / "b.db")
    assert connection.execute("SELECT node FROM agents").fetchall() == [("gpu-001",)]
    connection.close()


def test_records_taken_before_the_stop_are_acknowledged(tmp_path, chain):
    running = run_collector(settings_for(tmp_path), lambda: NOW)
    with WireClient(running.address, chain) as client:
        client.hello()
        running._collector.server._committer._linger_s = 60.0
        client.records(chain.next(), chain.next())
        wait_for("taken", lambda: len(running._collector.server._intake.group.records) == 2)
        running.stop()
        client.ack(2)
        assert client.read("pushback").pushback.reason == Pushback.REASON_SHUTTING_DOWN
    assert stored(running) == [1, 2]


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


def http_status(running, path):
    try:
        with urllib.request.urlopen(f"http://{running.http_address}{path}", timeout=10) as r:
            return r.status
    except urllib.error.HTTPError as e:
        e.close()
        return e.code


def test_metrics_count_what_happened(running, chain):
    with WireClient(running.address, chain) as client:
        client.hello()
        client.records(chain.next())
        client.ack(1)
        client.records(chain.seal(b"\xff"))
        client.read("refusal")
        with urllib.request.urlopen(f"http://{running.http_address}/metrics", timeout=10) as r:
            text = r.read().decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines["flopmeter_collector_records_total"] == "1.0"
    assert lines["flopmeter_collector_streams"] == "1.0"
    assert lines["flopmeter_collector_ready"] == "1.0"
    assert lines['flopmeter_collector_refusals_total{code="malformed"}'] == "1.0"
    assert float(lines['flopmeter_collector_commit_seconds_bucket{le="+Inf"}']) >= 1
    assert http_status(running, "/nothing") == 404
