"""The stream while commits fail, hang or stop: nothing is acknowledged that is not in the store."""

import asyncio
import sqlite3
import threading

import pytest
from builders import inventory_message
from processes import wait_for
from serving import NOW, Pushback, http_status, settings_for, stored
from wire_client import Ended, WireClient

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest import committer as committer_module
from flopmeter.collector.ingest import server as server_module
from flopmeter.collector.running import keep_beating, run_collector


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


def test_a_store_that_cannot_commit_pushes_back_and_recovers(tmp_path, chain, monkeypatch, caplog):
    caplog.set_level("INFO", "flopmeter.collector.ingest.committer")
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
        assert "commits again" not in caplog.text
        wait_for("ready", lambda: http_status(running, "/readyz") == 200)
        assert caplog.text.count("commits again") == 1
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
        await asyncio.wait_for(done.wait(), 60)
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
            assert go.acquire(timeout=60)
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
        stopping.join(60)
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


def test_a_hello_whose_admission_was_lost_while_the_log_was_read_is_told_to_come_again(
    tmp_path, chain, monkeypatch
):
    """Else it would wait for an agent that the collector has forgotten, and for ever."""
    monkeypatch.setattr(committer_module, "RECOVERY_PAUSE_S", 0.02)
    with (
        run_collector(settings_for(tmp_path), lambda: NOW) as running,
        WireClient(running.address, chain) as client,
    ):
        server, books = running._collector.server, running._collector.store.books
        good_write, good_welcome = books.write, server.heads.welcome

        def full(*_):
            books.write = good_write
            raise StoreError("database or disk is full", "free space")

        async def slow(stream, known_size):
            books.write = full
            server._committer.taken()
            while books.write is full or not server.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            return await good_welcome(stream, known_size)

        server.heads.welcome = slow
        nonce = client.read("challenge").challenge.nonce
        client.send(chain.hello(nonce))
        assert client.read("pushback").pushback.reason == Pushback.REASON_STORE_UNAVAILABLE
        with pytest.raises(Ended):
            client.read()
        server.heads.welcome = good_welcome
        with WireClient(running.address, chain) as again:
            again.hello()
            again.records(chain.next())
            again.ack(1)
        assert stored(running) == [1]
