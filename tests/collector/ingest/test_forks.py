"""Clones and set-back copies: usage that is in the books is never counted again, and what proves it is kept."""

import copy
import sqlite3
import threading

import pytest
from builders import Chain
from desk import Desk
from processes import wait_for
from wire_client import WireClient

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.ingest.decide import TAKEN, RefusalCode, Refused
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.contract.record import record_hash


@pytest.fixture
def desk(tmp_path):
    with Desk(tmp_path / "books.sqlite") as desk:
        yield desk


def sealed_again(chain, raw):
    """The payload of `raw` under the chain's next number, as an agent that lost its place seals it."""
    boot, chain.boot_id = chain.boot_id, raw[16:32]
    again = chain.next(payload=raw[72:-64])
    chain.boot_id = boot
    return again


@pytest.mark.parametrize("restarted", [False, True])
def test_an_older_boot_sealed_again_counts_nothing(desk, restarted):
    chain = Chain()
    agent = desk.agent(chain)
    old = [chain.next() for _ in range(3)]
    chain.reboot()
    new = chain.next()
    for raw in (*old, new):
        assert desk.offer(agent, raw) is TAKEN
    desk.commit()
    before = desk.totals()
    if restarted:
        desk.recover()
    out = desk.offer(agent, sealed_again(chain, old[1]))
    assert isinstance(out, Refused)
    assert out.code == RefusalCode.OVERLAP
    assert desk.totals() == before


def test_two_live_copies_of_one_state_are_an_event_and_not_a_sum(desk):
    first = Chain()
    agent = desk.agent(first)
    assert desk.offer(agent, first.next()) is TAKEN
    second = copy.copy(first)
    second.reboot()  # the copy runs on another machine, hence in another boot
    assert desk.offer(agent, second.next()) is TAKEN
    desk.commit()
    before = desk.totals()
    first.seq, first.prev_hash = second.seq, second.prev_hash  # the first takes up behind the books' head
    out = desk.offer(agent, first.next())
    assert isinstance(out, Refused)
    assert out.code == RefusalCode.CONFLICT
    (event,) = desk.commit().events
    assert event.type == "evidence.fork"
    assert desk.totals() == before
    assert check_store(desk.store.path, ()).difference is None


def durable_seq(store):
    db = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return db.execute("SELECT coalesce(max(seq), 0) FROM records").fetchone()[0]
    finally:
        db.close()


def test_a_welcome_promises_only_what_is_durable(tmp_path):
    """An older stream of the agent keeps sending while the newer one says Hello."""
    chain = Chain()
    settings = CollectorSettings(
        store=tmp_path / "books.sqlite", listen="127.0.0.1:0", http="", admit_new=True, linger_ms=50
    )
    stop = threading.Event()

    def pump(client):
        while not stop.is_set():
            client.records(chain.next())
            stop.wait(0.001)

    with (
        run_collector(settings) as collector,
        WireClient(collector.address, chain) as older,
        WireClient(collector.address, chain) as newer,
    ):
        older.hello()
        thread = threading.Thread(target=pump, args=(older,))
        thread.start()
        try:
            wait_for("some records to be durable", lambda: durable_seq(settings.store) > 5)
            welcome = newer.hello()
            durable = durable_seq(settings.store)
        finally:
            stop.set()
            thread.join()
        assert welcome.resume_seq - 1 == durable
        assert welcome.head_hash == record_hash(chain.records[durable - 1])
