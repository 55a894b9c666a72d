"""A collector that is restored from an older copy is found out by its agents, told so, and refilled by them."""

import asyncio
import itertools
import json
import shutil
import sqlite3
import threading
import time
from random import Random

import pytest
from chains import BOOT, append, open_chain
from serving import settings_for, stored
from uplinks import FAST

from flopmeter.agent.access.heads import CONTRADICTIONS, Heads
from flopmeter.agent.shipping.status import Identity
from flopmeter.agent.shipping.uplink import Uplink
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.running import RunningCollector

WAIT_S = 60.0
#: Window ends of these chains lie in 2001; the collector's clock is a little later.
CLOCK = itertools.count(10**18 + 90 * 86_400 * 10**9, 1_000_000)


class Node:
    """An agent's chain with its memory of the log; each `with` is one life of its uplink."""

    def __init__(self, state, **limits) -> None:
        self.state = state
        self.limits = limits
        self.chain = open_chain(state, **limits)

    def ship(
        self,
        running: RunningCollector,
        first: int,
        count: int,
        *,
        covered: bool = True,
        contradictions: int = 1,
    ) -> Heads:
        """Ship `count` records; back when a head covers them all, or so many heads contradicted what is known."""
        heads = Heads(self.state, tell=self.chain.tell_contradiction)
        uplink = Uplink(
            running.address,
            self.chain,
            Identity("node-a", "0.1.0", BOOT),
            rng=Random(1),
            timing=FAST,
            heads=heads,
        )
        uplink.start()
        try:
            for n in range(count):  # a write each, so that the spool is many segments
                append(self.chain, first + n, 1)
            spool = self.chain.spool
            wait(lambda: uplink.status.connects >= 1 and spool.pending == 0)
            assert spool.acked_seq == first + count
            if covered:
                seal(running)
                wait(
                    lambda: (
                        (heads.known is not None and spool.covered_seq == first + count)
                        or heads.contradictions >= contradictions
                    )
                )
        finally:
            uplink.stop()
        return heads

    def close(self) -> None:
        self.chain.spool.close()


def wait(true) -> None:
    until = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < until
        threading.Event().wait(0.01)


def seal(running: RunningCollector) -> None:
    office = running._collector._log
    asyncio.run_coroutine_threadsafe(office.seal(), running._loop).result(WAIT_S)


def collector(tmp_path) -> RunningCollector:
    """One whose log gets a head when `seal` is called, and at its stop."""
    running = RunningCollector(settings_for(tmp_path, checkpoint_s=60), lambda: next(CLOCK), review_s=None)
    running._loop.call_soon_threadsafe(running._collector._log._task.cancel)
    return running


def copy_of(tmp_path, to) -> None:
    """The store, keys and all, of a collector that is stopped."""
    to.mkdir(exist_ok=True)
    for name in ("b.db", "b.db-wal", "b.db-shm"):
        (to / name).unlink(missing_ok=True)
        if (tmp_path / name).exists():
            shutil.copy2(tmp_path / name, to / name)


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path / "state")
    yield made
    made.close()


def events(tmp_path) -> list[tuple[str, dict]]:
    with sqlite3.connect(tmp_path / "b.db") as db:
        found = [(k, json.loads(d)) for k, d in db.execute("SELECT key, data FROM events ORDER BY event_no")]
    db.close()
    return found


def test_a_restored_collector_is_found_out_refilled_and_told(tmp_path, node):
    old = tmp_path / "old"
    with collector(tmp_path) as running:
        assert node.ship(running, 0, 5).known is not None
    copy_of(tmp_path, old)
    with collector(tmp_path) as running:
        heads = node.ship(running, 5, 5)
        assert heads.standing == ""
        assert stored(running) == list(range(1, 11))
    known = heads.known.size
    copy_of(old, tmp_path)  # somebody sets it back
    with collector(tmp_path) as running:
        heads = node.ship(running, 10, 0)
        assert heads.standing  # set back at the Welcome, then another log of its own
        assert heads.known.size == known
        assert stored(running) == list(range(1, 11))  # the books are whole again
        # What was metered next tells of it.
        first = node.chain._remarks[0]
        assert first.name.startswith("log-set-back-")
        assert first.detail.startswith("set-back: ")
        # The log grows past what was known: it is another one by now, and stays so.
        heads = node.ship(running, 10, 6, contradictions=2)  # the Welcome's, and the one over those six
        assert "does not prove that it goes on" in heads.standing
    assert (node.state / CONTRADICTIONS / f"{first.name.removeprefix('log-')}.json").exists()
    assert check_store(tmp_path / "b.db", ()).difference is None


def test_a_head_that_goes_on_is_no_alarm_over_restarts_of_both(tmp_path, node):
    for life in range(3):
        with collector(tmp_path) as running:
            heads = node.ship(running, 4 * life, 4)
            assert heads.standing == ""
            assert heads.contradictions == 0
    assert not (node.state / CONTRADICTIONS).exists()


def test_what_no_head_covers_is_kept_although_it_was_acknowledged(tmp_path):
    """With next to nothing kept for its own sake: the refill reaches back to the last record that a head covers."""
    node = Node(tmp_path / "state", keep_acked_bytes=0, limit_bytes=1 << 16)
    old = tmp_path / "old"
    try:
        with collector(tmp_path) as running:
            node.ship(running, 0, 5)
        copy_of(tmp_path, old)
        with collector(tmp_path) as running:
            node.ship(running, 5, 60, covered=False)
            spool = node.chain.spool
            assert (spool.acked_seq, spool.covered_seq) == (65, 5)
            assert spool.oldest_seq <= 6
        copy_of(old, tmp_path)  # and with it the only copies of 60 records that were acknowledged
        with collector(tmp_path) as running:
            assert stored(running) == list(range(1, 6))
            node.ship(running, 65, 0)
            assert stored(running) == list(range(1, 66))
            assert spool.covered_seq == 65
            assert spool.oldest_seq > 6  # covered: the room is free again
    finally:
        node.close()


def test_an_old_collector_without_a_log_keeps_nothing_longer(tmp_path):
    node = Node(tmp_path / "state", keep_acked_bytes=0, limit_bytes=1 << 16)
    try:
        with collector(tmp_path) as running:
            running._collector.server.heads = None
            heads = node.ship(running, 0, 60, covered=False)
            assert heads.known is None
            assert node.chain.spool.oldest_seq > 6
    finally:
        node.close()
