"""Exactly once, whoever is killed: fifty SIGKILLs on either side leave the books of the undisturbed run."""

from contextlib import suppress
from pathlib import Path
from random import Random
from subprocess import TimeoutExpired

import pytest
from books_dump import batches, dump
from log_rig import check_whole, opened
from rig import Calm, CollectorProcess, FedAgent, Items, make_trace, open_pipeline, positions

from flopmeter.agent.sources.trace import TraceFile

pytestmark = pytest.mark.faults

KILLS = 50


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    directory = tmp_path_factory.mktemp("calm")
    return Calm(make_trace(directory / "trace.jsonl"), directory / "state")


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
    # Not only the sums: a killed agent seals what one left alone would have, and says where a write was cut.
    assert batches(collector.store) == batches(calm.store)


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
        for i, upto in enumerate(positions(rng, KILLS, len(items))):
            collector.start()
            for item in items[begin:upto]:
                pipeline.observe(item)
            begin = max(begin, upto)
            assert collector.process is not None
            if i % 5 == 0:  # right behind a record that was sealed, whatever the machine's load
                while not pipeline.chain.spool.pending:
                    pipeline.observe(items[begin])
                    begin += 1
            else:
                with suppress(TimeoutExpired):
                    collector.process.wait(rng.uniform(0.0, 0.3))
            busy += pipeline.chain.spool.pending > 0
            collector.kill()
        assert collector.kills == KILLS
        assert busy >= 5, "hardly ever was there anything in flight: this tests nothing"
        with collector:
            pipeline.play(Items(trace.facts(), items[begin:]))
            assert pipeline.wait_acked(60)
    finally:
        pipeline.close()
        trace.close()
    assert dump(collector.store) == calm.dump
    check_whole(collector.store)
    with opened(collector.store) as log:
        assert log.latest() is not None
