"""A backup that is made under load is a store to go on from: whole, good, and refilled by the agents to the same books."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from books_dump import dump, record_hashes
from processes import flopmeter, wait_for
from rig import Calm, CollectorProcess, Items, make_trace, open_pipeline

from flopmeter.agent.reading import Happening, NodeFacts, Reading
from flopmeter.agent.sources.trace import TraceFile

pytestmark = pytest.mark.faults
SECONDS = 360
#: Readings that come when a copy was made, whatever the machine's load: some ten records.
LAST = 80


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    directory = tmp_path_factory.mktemp("calm")
    return Calm(make_trace(directory / "trace.jsonl", SECONDS), directory / "state")


@pytest.fixture(scope="module")
def trace(calm: Calm) -> tuple[NodeFacts, list[Reading | Happening]]:
    file = TraceFile(calm.trace)
    try:
        return file.facts(), list(file.items())
    finally:
        file.close()


def test_a_collector_goes_on_from_a_backup_that_was_made_while_agents_were_sending(
    calm: Calm, trace: tuple[NodeFacts, list[Any]], tmp_path: Path
) -> None:
    facts, items = trace
    state = calm.state_with_its_key(tmp_path / "state")
    store, copies = tmp_path / "live" / "books.sqlite", tmp_path / "copies"
    store.parent.mkdir()
    copies.mkdir()
    process = CollectorProcess(store, linger_ms=1)
    agent = open_pipeline(facts, state, process.address)
    made: list[dict[str, Any]] = []
    failed: list[str] = []

    def back_up_again_and_again() -> None:
        while not stop.is_set():
            done = flopmeter("collector", "backup", "--store", store, "-o", copies, "--json")
            if done.returncode:
                failed.append(done.stderr)
                return
            made.append(json.loads(done.stdout))

    stop = threading.Event()
    beside = threading.Thread(target=back_up_again_and_again)
    try:
        with process:
            third = len(items) // 3
            for item in items[:third]:
                agent.observe(item)
            assert agent.wait_acked(60)
            beside.start()
            for item in items[third:-LAST]:
                agent.observe(item)
                if len(made) < 2:
                    agent.wait_acked(5)  # the load goes on for as long as two copies take
            wait_for("a copy that lacks the rest", lambda: made or failed)
            for item in items[-LAST:]:
                agent.observe(item)
            agent.play(Items(facts, []))
            assert agent.wait_acked(60)
            stop.set()
            beside.join(60)
        assert not failed, failed
        whole = set(record_hashes(store))
        states = [set(record_hashes(Path(m["backup"]))) for m in made]
        assert states[0] < whole, "the copy missed nothing: there was no load"
        for m, held in zip(made, states, strict=True):
            assert held <= whole
            assert len(held) == int(m["last"]["records"])
            checked = flopmeter("collector", "fsck", "--store", m["backup"])
            assert checked.returncode == 0, checked.stdout + checked.stderr

        # The restore, as docs/backup.md has it: the collector is stopped, the copy in its place.
        for name in ("books.sqlite", "books.sqlite-wal", "books.sqlite-shm"):
            store.with_name(name).unlink(missing_ok=True)
        Path(made[0]["backup"]).rename(store)
        with process:
            wait_for(
                "the agent sends again what the copy lacks",
                lambda: len(record_hashes(store)) == len(whole),
                60,
            )
    finally:
        stop.set()
        agent.close()
        process.stop()
    assert set(record_hashes(store)) == whole == set(record_hashes(calm.store))
    assert dump(store) == calm.dump
    checked = flopmeter("collector", "fsck", "--store", store)
    assert checked.returncode == 0, checked.stdout + checked.stderr
