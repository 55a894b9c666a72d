"""Exactly once over a bad network, full disks, torn spools and a collector set back: equal books, or a named loss."""

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from books_dump import SUMS, dump, record_hashes, rows
from chaos_proxy import ChaosProxy
from processes import flopmeter, wait_for
from rig import GPUS, Calm, CollectorProcess, Items, make_trace, open_pipeline

from flopmeter.agent.access.heads import HEAD_FILE
from flopmeter.agent.pipeline import Pipeline
from flopmeter.agent.reading import Happening, NodeFacts, Reading
from flopmeter.agent.shipping.spool import MIN_LIMIT_BYTES, Spool
from flopmeter.agent.sources.trace import TraceFile
from flopmeter.collector import assembly
from flopmeter.collector.encode import decode_batch
from flopmeter.collector.running import RunningCollector, run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import NoticeKind

pytestmark = pytest.mark.faults
SECONDS = 240


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    directory = tmp_path_factory.mktemp("calm")
    return Calm(make_trace(directory / "trace.jsonl", SECONDS + 120), directory / "state")


@pytest.fixture(scope="module")
def facts(calm: Calm) -> NodeFacts:
    trace = TraceFile(calm.trace)
    trace.close()
    return trace.facts()


@pytest.fixture(scope="module")
def items(calm: Calm) -> list[Reading | Happening]:
    trace = TraceFile(calm.trace)
    try:
        return list(trace.items())
    finally:
        trace.close()


@contextmanager
def collector(store: Path) -> Iterator[RunningCollector]:
    settings = CollectorSettings(store=store, listen="127.0.0.1:0", http="", admit_new=True, linger_ms=5)
    with run_collector(settings) as found:
        yield found


@contextmanager
def closing(pipeline: Pipeline) -> Iterator[Pipeline]:
    try:
        yield pipeline
    finally:
        pipeline.close()


def fsck(store: Path) -> None:
    done = flopmeter("collector", "fsck", "--store", store)
    assert done.returncode == 0, done.stdout + done.stderr


def sums(store: Path, where: str = "1") -> list[int]:
    """All usage of the books, added up."""
    found = [row.split("|") for row in rows(store, f"SELECT {SUMS} FROM totals t WHERE {where}")]
    return [sum(int(row[i]) for row in found) for i in range(12)] if found else [0] * 12


def by_seq(store: Path) -> dict[int, str]:
    """The hash of each record, by its number."""
    return {int(seq): digest for seq, _, digest in (row.partition("|") for row in record_hashes(store))}


def notices(store: Path) -> set[NoticeKind]:
    """Every kind of notice that the records of the books hold."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
        records = [raw for (raw,) in db.execute("SELECT record FROM records")]
    db.close()
    return {n.kind for raw in records for n in decode_batch(parse_record(raw).payload).notices}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_duplicated_reordered_delayed_and_cut(
    calm: Calm, facts: NodeFacts, items: list[Any], tmp_path: Path, seed: int
) -> None:
    state = calm.state_with_its_key(tmp_path / "state")
    store = tmp_path / "books.sqlite"
    with (
        collector(store) as books,
        ChaosProxy(books.address, seed, cut=0.04, mangle=0.15) as network,
        closing(open_pipeline(facts, state, network.address)) as agent,
    ):
        for item in items:
            agent.observe(item)
        agent.play(Items(facts, []))
        network.calm = True
        assert agent.wait_acked(90)
    for mischief in ("twice", "held", "late", "cut before", "cut behind"):
        assert network.done[mischief], network.done
    assert dump(store) == calm.dump
    assert record_hashes(store) == record_hashes(calm.store)


def test_no_room_for_the_spool(
    calm: Calm, facts: NodeFacts, items: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC on a fifth of all writes: a recording waits for room, and nothing changes."""
    rng, full = Random(5), _Full(Random(6), 0.2)
    monkeypatch.setattr("flopmeter.agent.pipeline._ROOM_RETRY_S", 0.001)
    monkeypatch.setattr("flopmeter.agent.shipping.spool.os.pwrite", full.pwrite)
    state = calm.state_with_its_key(tmp_path / "state")
    store = tmp_path / "books.sqlite"
    with collector(store) as books, closing(open_pipeline(facts, state, books.address)) as agent:
        begin = 0
        while begin < len(items):
            end = begin + rng.randrange(1, 200)
            agent.play(Items(facts, items[begin:end]), group_windows=3)
            begin = end
        agent.play(Items(facts, []))
        assert agent.wait_acked(60)
    assert full.refused > 5
    assert dump(store) == calm.dump


def test_no_room_for_a_live_agent_is_bridged(
    calm: Calm, facts: NodeFacts, items: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live agent cannot wait: detail is given up, and the cycle counters price the time to the last cycle."""
    full = _Full(Random(6), 0.2)
    monkeypatch.setattr("flopmeter.agent.shipping.spool.os.pwrite", full.pwrite)
    state = calm.state_with_its_key(tmp_path / "state")
    store = tmp_path / "books.sqlite"
    with collector(store) as books, closing(open_pipeline(facts, state, books.address)) as agent:
        for item in items[:-160]:
            agent.observe(item)
        full.share = 0.0  # what a live agent gives up is bridged by what it reads next
        for item in items[-160:]:
            agent.observe(item)
        agent.play(Items(facts, []))
        assert agent.wait_acked(60)
        assert agent.counts.given_up > 5
    assert len(record_hashes(store)) < len(record_hashes(calm.store))
    assert sums(store) == sums(calm.store)
    fsck(store)


def test_no_room_for_the_books(
    calm: Calm, facts: NodeFacts, items: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits that fail, before or after they took effect, are made again and count once."""
    full = _FullStore(Random(8), 0.5)
    monkeypatch.setattr(assembly, "SqliteStore", partial(SqliteStore, connect=full.connect))
    state = calm.state_with_its_key(tmp_path / "state")
    store = tmp_path / "books.sqlite"
    with collector(store) as books, closing(open_pipeline(facts, state, books.address)) as agent:
        full.on = True
        _feed_slowly(agent, items, at_a_time=160)
        agent.play(Items(facts, []))
        full.on = False
        assert agent.wait_acked(90)
    assert full.refused == {"before": _EACH_WAY, "after": _EACH_WAY}
    assert dump(store) == calm.dump
    assert record_hashes(store) == record_hashes(calm.store)


def test_a_collector_restored_from_an_older_copy_is_refilled(
    calm: Calm, facts: NodeFacts, items: list[Any], tmp_path: Path
) -> None:
    state = calm.state_with_its_key(tmp_path / "state")
    store, copy = tmp_path / "books.sqlite", tmp_path / "copy.sqlite"
    half, more = len(items) // 3, 2 * len(items) // 3
    process = CollectorProcess(store)
    with closing(open_pipeline(facts, state, process.address)) as agent:
        with process:
            _feed(agent, items[:half])
        shutil.copy2(store, copy)
        with process:
            _feed(agent, items[half:more])
        assert len(record_hashes(store)) > len(record_hashes(copy)) > 50
        shutil.copy2(copy, store)
        with process:
            _feed(agent, items[more:])
            agent.play(Items(facts, []))
            assert agent.wait_acked(60)
    assert dump(store) == calm.dump
    assert record_hashes(store) == record_hashes(calm.store)


def _known_leaves(state: Path) -> int:
    """Of the head that the agent remembers; 0: it knows none."""
    path = state / HEAD_FILE
    note = json.loads(path.read_text())["note"] if path.exists() else ""
    return int(note.split("\n")[1]) if note else 0


def test_what_the_agent_no_longer_has_is_named_as_lost(
    calm: Calm, facts: NodeFacts, items: list[Any], tmp_path: Path
) -> None:
    state = calm.state_with_its_key(tmp_path / "state")
    store, copy = tmp_path / "books.sqlite", tmp_path / "copy.sqlite"
    half, more = len(items) // 3, 2 * len(items) // 3
    process = CollectorProcess(store, checkpoint_s=1)
    small = {"spool_limit_bytes": MIN_LIMIT_BYTES, "keep_acked_bytes": 0}
    with closing(open_pipeline(facts, state, process.address, **small)) as agent:
        with process:
            _feed_slowly(agent, items[:half])
        shutil.copy2(store, copy)
        leaves = int(rows(copy, "SELECT max(first_index + count) FROM log")[0])
        with process:
            _feed_slowly(agent, items[half:more])
            # The copy is found out by who remembers a head of what it lacks.
            wait_for("the agent knows a later head", lambda: _known_leaves(state) > leaves, 60)
        shutil.copy2(copy, store)
        with process:
            _feed_slowly(agent, items[more:])
            agent.play(Items(facts, []))
            assert agent.wait_acked(60)
        assert agent.counts.given_up == 0
    (loss,) = rows(store, "SELECT from_seq, to_seq FROM losses")
    first, last = map(int, loss.split("|"))
    held = len(record_hashes(copy))
    assert (first, last) == (held + 1, first + (last - first))
    assert last > first
    events = [
        json.loads(data) for data in rows(store, "SELECT data FROM events WHERE type = 'coverage.lost'")
    ]
    assert [(e["from_seq"], e["to_seq"]) for e in events] == [(str(first), str(last))]
    # What is there is what was there, less exactly the records that are named.
    kept, whole = by_seq(store), by_seq(calm.store)
    assert whole.keys() - kept.keys() == set(range(first, last + 1))
    assert kept.keys() < whole.keys()
    differ = {seq for seq, digest in kept.items() if digest != whole[seq]}
    # From the first batch on in which the agent says that the log was set back, its chain is another one.
    assert min(differ, default=last + 1) > last
    assert NoticeKind.LOG_CONTRADICTION in notices(store)
    fsck(store)


@pytest.mark.parametrize("shipped", [False, True], ids=["unsent", "shipped"])
def test_torn_spool_tails_between_kills(
    calm: Calm, facts: NodeFacts, items: list[Any], tmp_path: Path, shipped: bool
) -> None:
    """The last write of each life is torn, as if power had failed. Unsent, it is made again; shipped (which a
    disk that lies about fsync can do), the collector's books stand and the agent goes on behind them.
    """
    rng = Random(11)
    state = calm.state_with_its_key(tmp_path / "state")
    store = tmp_path / "books.sqlite"
    process = CollectorProcess(store)
    torn = 0
    if shipped:
        process.start()
    try:
        for _ in range(8):
            upto = rng.randrange(len(items) // 4, len(items))
            with closing(open_pipeline(facts, state, process.address if shipped else "")) as agent:
                _feed(agent, items[:upto], wait=shipped)
            torn += _tear(state / "spool", rng)
        if not shipped:
            process.start()
        with closing(open_pipeline(facts, state, process.address)) as agent:
            agent.play(Items(facts, items))
            assert agent.wait_acked(60)
    finally:
        process.stop()
    assert torn == 8
    assert rows(store, "SELECT count(*) FROM conflicts") == ["0"]
    if not shipped:
        assert dump(store) == calm.dump
    else:
        # Nothing is there twice, and what could not be told again is said: by a notice, and as a gap from
        # the head's window on. The interval across the head's edge ended in a window that the disk lost.
        got, whole = sums(store), sums(calm.store)
        assert NoticeKind.REANCHORED in notices(store)
        assert 0 <= whole[0] - got[0] <= torn * GPUS * 10**9
        gaps = sums(store, "t.evidence_class = 8")
        assert all(a - g <= b for a, g, b in zip(got, gaps, whole, strict=True))
        assert got[3] * 100 >= whole[3] * 90  # HMMA cycles: eight torn ends of 374 s are not a tenth
        assert rows(store, "SELECT DISTINCT gap_reason FROM totals t WHERE t.evidence_class = 8") in (
            [],
            ["9"],
        )
    fsck(store)


def _feed(agent: Pipeline, items: list[Any], *, wait: bool = True) -> None:
    for item in items:
        agent.observe(item)
    if wait:
        assert agent.wait_acked(60)


def _feed_slowly(agent: Pipeline, items: list[Any], at_a_time: int = 80) -> None:
    """In step with the collector, so that a small spool always has room and groups stay small."""
    for begin in range(0, len(items), at_a_time):
        _feed(agent, items[begin : begin + at_a_time])


def _tear(spool: Path, rng: Random) -> bool:
    """Cut the newest segment within its last entry, or leave rubbish behind it."""
    segment = max(spool.glob("*.seg"))
    size = segment.stat().st_size
    if rng.random() < 0.7:
        os.truncate(segment, size - rng.randrange(1, 900))
    else:
        with segment.open("ab") as f:
            f.write(rng.randbytes(rng.randrange(1, 3000)))
    held = Spool.open(spool)
    cut = bool(held.cuts)
    held.close()
    return cut


class _Full:
    """A disk that has no room for a share of all writes, or only for a part of them."""

    def __init__(self, rng: Random, share: float) -> None:
        self.share = share
        self.refused = 0
        self._rng = rng
        self._pwrite = os.pwrite

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if self._rng.random() >= self.share:
            return self._pwrite(fd, data, offset)
        self.refused += 1
        if self._rng.random() < 0.5:
            self._pwrite(fd, bytes(data)[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_EACH_WAY = 2


class _FullStore:
    """A store whose commits fail for want of room, half of them after all."""

    def __init__(self, rng: Random, share: float) -> None:
        self.on = False
        self.refused = {"before": 0, "after": 0}
        self._rng = rng
        self._share = share

    def connect(self, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        full = self

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                return full.execute(partial(sqlite3.Connection.execute, self, sql, *values), sql)

        return sqlite3.connect(*args, factory=Connection, **kwargs)

    def execute(self, run: Any, sql: str) -> sqlite3.Cursor:
        enough = min(self.refused.values()) >= _EACH_WAY
        if enough or not (self.on and sql.startswith("COMMIT") and self._rng.random() < self._share):
            found: sqlite3.Cursor = run()
            return found
        when = min(self.refused, key=lambda w: self.refused[w])  # in turn
        self.refused[when] += 1
        if when == "after":
            run()
        raise sqlite3.OperationalError("database or disk is full")
