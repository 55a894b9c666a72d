"""A real agent's uplink joins a real collector, ships, renews and is copied: books, access rows and log agree in the end."""

import json
import shutil
import sqlite3
import threading
import time
from dataclasses import replace
from random import Random
from typing import Self

import pytest
from chains import BOOT, append, open_chain
from serving import settings_for, stored
from uplinks import FAST

from flopmeter.agent.access.credentials import Joined
from flopmeter.agent.access.heads import Heads
from flopmeter.agent.access.state import load_identity
from flopmeter.agent.shipping.status import Identity
from flopmeter.agent.shipping.uplink import Uplink
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.running import RunningCollector

WAIT_S = 60.0
NOT_YET = 1.0  # a clock by which nothing is due


@pytest.fixture
def running(tmp_path):
    more = {"tls_name": "localhost,127.0.0.1", "enrol": "127.0.0.1:0", "admit_new": False}
    with RunningCollector(settings_for(tmp_path, **more)) as running:
        yield running


@pytest.fixture
def token(running):
    desk = running._collector._front.desk
    made, _ = desk.make_join_token(name="", nodes="node-*", uses=1, lasts_s=3600, who="test")
    return made.text()


class Node:
    """One node's agent, as far as its uplink."""

    def __init__(self, state, running, token: str) -> None:
        self.state = state
        self.chain = open_chain(state)
        self.now = NOT_YET
        host, _, port = running.enrol_address.rpartition(":")
        self.access = Joined(
            state,
            "node-a",
            (host, int(port)),
            lambda: token,
            rng=Random(1),
            look_s=0.02,
            retry_s=0.02,
            unix_s=lambda: self.now,
        )
        self.heads = Heads(state, tell=self.chain.tell_contradiction)
        self.uplink = Uplink(
            running.address,
            self.chain,
            Identity("node-a", "0.1.0", BOOT),
            rng=Random(1),
            timing=replace(FAST, connect_s=5, backoff_cap_s=0.2),
            access=self.access,
            heads=self.heads,
        )

    def __enter__(self) -> Self:
        self.uplink.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.uplink.stop()
        self.chain.spool.close()

    def until(self, true) -> None:
        deadline = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < deadline, (self.uplink.status, self.access.trouble)
            threading.Event().wait(0.02)

    def ships(self, first: int, count: int) -> None:
        append(self.chain, first, count)
        self.until(lambda: self.chain.spool.acked_seq == first + count)

    def renews(self) -> None:
        """At half of its life, by the agent's clock; the collector takes any time."""
        connects, before = self.uplink.status.connects, load_identity(self.state)
        self.now = before.half_life_unix_s + 0.11 * 86_400
        self.until(lambda: load_identity(self.state) != before)
        self.now = NOT_YET
        self.until(lambda: self.uplink.status.connects > connects)


def kinds(tmp_path) -> list[str]:
    with sqlite3.connect(tmp_path / "b.db") as db:
        found = [kind for (kind,) in db.execute("SELECT kind FROM access ORDER BY access_no")]
    db.close()
    return found


def test_a_node_joins_ships_and_renews_and_nothing_is_lost_or_booked_twice(tmp_path, running, token):
    with Node(tmp_path / "state", running, token) as node:
        node.ships(0, 20)
        for n in range(1, 4):
            append(node.chain, 20 * n, 20)  # on their way when the channel changes
            node.renews()
            node.until(lambda n=n: node.chain.spool.acked_seq == 20 * n + 20)
        assert stored(running) == list(range(1, 81))
        assert running.counters.duplicates == 0
        assert load_identity(node.state).sequence == 4
    assert kinds(tmp_path) == ["token-made", "token-used", "enrolled", "renewed", "renewed", "renewed"]
    running.stop()
    assert check_store(tmp_path / "b.db", ()).difference is None


def test_a_node_whose_token_was_used_by_another_meters_and_says_so(tmp_path, running, token):
    with Node(tmp_path / "state", running, token) as node:
        node.ships(0, 1)
    with Node(tmp_path / "other", running, token) as other:
        append(other.chain, 0, 3)
        other.until(lambda: "token-used" in other.uplink.status.last_error)
        assert other.uplink.status.fatal is None
        assert other.chain.spool.pending == 3


def test_a_copied_state_is_found_out_when_both_renew(tmp_path, running, token):
    with Node(tmp_path / "state", running, token) as node:
        node.ships(0, 2)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "state", copy)
    with Node(tmp_path / "state", running, token) as node:
        node.until(lambda: node.uplink.status.connected)
        node.renews()
    with Node(copy, running, token) as thief:
        thief.until(lambda: thief.uplink.status.connected)
        thief.now = load_identity(copy).half_life_unix_s + 0.11 * 86_400
        thief.until(lambda: "PERMISSION_DENIED" in thief.access.trouble)
    assert kinds(tmp_path)[-1] == "clone-seen"
    running.review()
    with sqlite3.connect(tmp_path / "b.db") as db:
        events = [
            json.loads(d) for (d,) in db.execute("SELECT data FROM events WHERE type = 'evidence.fork'")
        ]
    db.close()
    assert [e["agent"] for e in events] == [load_identity(copy).agent_id]
    with Node(tmp_path / "state", running, token) as node:
        append(node.chain, 2, 1)
        node.until(lambda: bool(node.uplink.status.last_error))
        assert node.chain.spool.pending == 1  # both copies are refused; what is metered is kept
