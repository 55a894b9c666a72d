"""Exactly once, whoever is killed: fifty SIGKILLs on either side leave the books of the undisturbed run."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from subprocess import TimeoutExpired

import pytest
from books_dump import dump, rows
from rig import Calm, CollectorProcess, FedAgent, make_trace, positions

from flopmeter.agent.meter import Meter, MeterSettings
from flopmeter.agent.pipeline import Pipeline, PipelineSettings
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.agent.uplink import Timing
from flopmeter.contract.limits import DEFAULT_TICK_NS

pytestmark = pytest.mark.faults

KILLS = 50
QUICK = Timing(connect_s=5, ack_s=10, backoff_base_s=0.02, backoff_cap_s=0.2)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    directory = tmp_path_factory.mktemp("calm")
    return Calm(make_trace(directory / "trace.jsonl"), directory / "state")


def hashes(store: Path) -> list[str]:
    return rows(store, "SELECT seq, hex(hash) FROM records")


def open_pipeline(facts: NodeFacts, state: Path, collector: str) -> Pipeline:
    def make_meter(facts: NodeFacts, journal: bytes | None) -> Meter:
        return Meter(facts, MeterSettings(10**9, DEFAULT_TICK_NS), agent_version="0.1.0", journal=journal)

    settings = PipelineSettings(state=state, collector=collector, timing=QUICK)
    return Pipeline.open(facts, make_meter, settings, agent_version="0.1.0", rng=Random(7))


@pytest.mark.timeout(400)
def test_the_agent_is_killed_fifty_times(calm: Calm, tmp_path: Path) -> None:
    rng = Random(20261122)
    lines = calm.trace.read_bytes().splitlines(keepends=True)
    state = calm.state_with_its_key(tmp_path / "state")
    with CollectorProcess(tmp_path / "books.sqlite") as collector:
        agent = FedAgent(lines, state, collector.address, tmp_path / "fifo")
        for i, upto in enumerate(positions(rng, KILLS, len(lines))):
            if i % 5 == 4:
                agent.die_at_start(rng.uniform(0.0, 0.8))
            else:
                agent.live(upto, rng.uniform(0.0, 0.15))
        assert agent.kills == KILLS
        agent.finish()
    assert dump(collector.store) == calm.dump
    # Not only the sums: a killed agent seals the very bytes that one left alone would have.
    assert hashes(collector.store) == hashes(calm.store)


@pytest.mark.timeout(400)
def test_the_collector_is_killed_fifty_times(calm: Calm, tmp_path: Path) -> None:
    rng = Random(20261123)
    trace = TraceFile(calm.trace)
    items = list(trace.items())
    state = calm.state_with_its_key(tmp_path / "state")
    collector = CollectorProcess(tmp_path / "books.sqlite")
    pipeline = open_pipeline(trace.facts(), state, collector.address)
    busy = 0
    try:
        begin = 0
        for upto in positions(rng, KILLS, len(items)):
            collector.start()
            for item in items[begin:upto]:
                pipeline.observe(item)
            begin = upto
            assert collector.process is not None
            try:
                collector.process.wait(rng.uniform(0.0, 0.3))
            except TimeoutExpired:
                busy += pipeline.chain.spool.pending > 0
            collector.kill()
        assert collector.kills == KILLS
        assert busy >= 5, "hardly ever was there anything in flight: this tests nothing"
        with collector:
            pipeline.play(_Rest(trace, items[begin:]))
            assert pipeline.wait_acked(60)
    finally:
        pipeline.close()
        trace.close()
    assert dump(collector.store) == calm.dump


class _Rest:
    """What is left of a recording."""

    def __init__(self, trace: TraceFile, items: list) -> None:
        self._trace = trace
        self._items = items

    def facts(self) -> NodeFacts:
        return self._trace.facts()

    def items(self) -> Iterator:
        return iter(self._items)

    def close(self) -> None: ...
