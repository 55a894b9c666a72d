"""Agents whose clocks are wrong, shipping for real: the collector knows by how much, whatever the network does."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest
from chains import BOOT, append, open_chain
from chaos_proxy import ChaosProxy
from processes import wait_for
from uplinks import WAIT_S, settled

from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.status import Identity, Timing
from flopmeter.agent.shipping.uplink import Uplink
from flopmeter.collector.clock_offset import Offset
from flopmeter.collector.running import RunningCollector, run_collector
from flopmeter.collector.settings import CollectorSettings

S = 1_000_000_000
QUICK = Timing(clock_s=0.0, heartbeat_s=0.05, backoff_base_s=0.01, backoff_cap_s=0.05, ack_s=0.5)


@dataclass
class Node:
    """An agent with a clock of its own."""

    name: str
    away_ns: int
    chain: Chain
    sealed: int = 0

    def unix_ns(self) -> int:
        return time.time_ns() + self.away_ns

    def seal(self, count: int = 1) -> None:
        append(self.chain, self.sealed, count)
        self.sealed += count


class Fleet:
    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self._stack = root, stack
        settings = CollectorSettings(
            store=root / "b.db", listen="127.0.0.1:0", http="", admit_new=True, linger_ms=5
        )
        self.collector: RunningCollector = stack.enter_context(run_collector(settings, time.time_ns))

    def node(self, name: str, away_ns: int) -> Node:
        chain = open_chain(self.root / name)
        self._stack.callback(chain.spool.close)
        return Node(name, away_ns, chain)

    def ship(
        self,
        node: Node,
        target: str = "",
        unix_ns: Callable[[], int] | None = None,
        timing: Timing = QUICK,
    ) -> Uplink:
        uplink = Uplink(
            target or self.collector.address,
            node.chain,
            Identity(node.name, "0.1.0", BOOT),
            rng=Random(1),
            timing=timing,
            unix_ns=unix_ns or node.unix_ns,
        )
        self._stack.callback(uplink.stop)
        uplink.start()
        return uplink

    def offset(self, node: Node) -> Offset | None:
        with closing(sqlite3.connect(self.root / "b.db")) as db:
            sql = "SELECT lower_ns, upper_ns, measured_unix_ns FROM clocks JOIN agents USING (agent_no) WHERE node = ?"
            row = db.execute(sql, (node.name,)).fetchone()
        return None if row is None else Offset(*row)

    def holds(self, node: Node) -> bool:
        """Whether what is kept is true now."""
        found = self.offset(node)
        return found is not None and found.lower_ns <= node.away_ns <= found.upper_ns


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_each_nodes_offset_is_known_and_sure(fleet: Fleet) -> None:
    nodes = [
        fleet.node(f"n{i}", away) for i, away in enumerate((0, 3 * S, -3_600 * S, 10**9 * S, -(10**9) * S))
    ]
    for node in nodes:
        node.seal(3)
    for uplink in [fleet.ship(node) for node in nodes]:
        settled(uplink, 3)
    for node in nodes:
        assert fleet.holds(node), (node.name, node.away_ns, fleet.offset(node))
        found = fleet.offset(node)
        assert found is not None
        assert found.width_ns < 20 * S


def test_an_older_agent_has_none(fleet: Fleet) -> None:
    node = fleet.node("old", 5 * S)
    node.seal(2)
    settled(fleet.ship(node, unix_ns=lambda: 0), 2)
    assert fleet.offset(node) is None


def test_a_clock_that_is_set_is_found_out_by_the_next_acks(fleet: Fleet) -> None:
    node = fleet.node("n", 0)
    node.seal()
    uplink = fleet.ship(node, timing=replace(QUICK, ack_s=60))  # one stream, whatever the machine's load
    settled(uplink, 1)
    assert fleet.holds(node)
    for away in (90 * S, -90 * S, 0):
        node.away_ns = away
        node.seal()
        settled(uplink, node.sealed)

        def told() -> bool:
            fleet.collector.review()  # as every 15 s: where no record comes, the clock is kept by itself
            return fleet.holds(node)

        wait_for(f"the clock is {away} ns off", told, WAIT_S)
    assert uplink.status.connects == 1


def test_after_a_partition_it_is_measured_anew_and_never_by_what_was_before(fleet: Fleet) -> None:
    node = fleet.node("n", 7 * S)
    node.seal()
    with ChaosProxy(fleet.collector.address, 1, cut=0, mangle=0) as way:
        uplink = fleet.ship(node, way.address)
        settled(uplink, 1)
        assert fleet.holds(node)
    uplink.stop()  # the proxy is gone; so is what was in flight
    node.away_ns = -7 * S
    node.seal(2)
    settled(fleet.ship(node), 3)
    assert fleet.holds(node)


def test_cuts_duplicates_and_delays_never_make_it_lie(fleet: Fleet) -> None:
    """Whatever is kept at any moment is true at that moment: the clock itself is left alone."""
    node = fleet.node("n", 11 * S)
    with ChaosProxy(fleet.collector.address, 2, cut=0.1) as way:
        uplink = fleet.ship(node, way.address)
        for _ in range(25):
            node.seal(2)
            settled(uplink, node.sealed)
            assert fleet.holds(node), fleet.offset(node)
        assert way.done["twice"], way.done
        assert way.done["held"], way.done
    assert uplink.status.connects > 1, way.done
