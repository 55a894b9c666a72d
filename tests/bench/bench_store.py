"""Store: rows per second of the collector's own commit path, once the store is large.

1.5 million records are put in by a bulk path first (12,500 nodes x 120 windows, nodes in another order each window).
Then the collector's intake fills groups of 100 and its writer commits them: records, agents' heads, totals, hours,
events, WAL, synchronous=FULL. Only the commits are timed. Beside it: the bare rows, nothing else, in the same file.
"""

import hashlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
from harness import Figure, calibrate, cores, median, pinned, progress
from rows import RecordRows

from flopmeter.collector.ingest.admission import Admission
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.ingest.group import Group
from flopmeter.collector.ingest.intake import Intake
from flopmeter.collector.ingest.writer import Writer
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.store.sqlite import SqliteStore

ROWS, NODES = 1_500_000, 12_500
RECORD_BYTES = (850, 1_000)  # what a node of 8 GPUs seals
GROUP, GROUPS, SENDERS = 100, 200, 2_500
WARM = 10  # first commits, not counted: caches of a store just opened
GOAL_ROWS_PER_S = 15_000


def run(folder: Path) -> list[Figure]:
    path = folder / "books.db"
    SqliteStore(path).close()  # makes the tables
    progress(f"store: putting in {ROWS:,} rows")
    begin = time.perf_counter()
    _fill(path)
    progress(
        f"store: {path.stat().st_size / 1e9:.1f} GB in {time.perf_counter() - begin:.0f} s; {GROUPS} groups of {GROUP}"
    )
    nodes = corpus.build(SENDERS, GROUP * GROUPS // SENDERS, first=NODES)
    server, _ = cores()
    with pinned(server):
        calibration = calibrate()
        ours = _ours(path, nodes)[WARM:]
        bare = _bare(path, nodes)[WARM:]
    rate, floor = GROUP * len(ours) / sum(ours), GROUP * len(bare) / sum(bare)
    slow = sorted(ours)[int(len(ours) * 0.99)]
    return [
        Figure(
            "store", f"rows/s at groups of {GROUP} after {ROWS / 1e6:.1f} M rows", f"{rate:,.0f}",
            f"{floor:,.0f} bare rows, same file", f"{rate / floor:.2f}x", f">= {GOAL_ROWS_PER_S:,}",
            rate >= GOAL_ROWS_PER_S, calibration,
            {
                "commit_ms": {"p50": 1e3 * median(ours), "p99": 1e3 * slow, "worst": 1e3 * max(ours)},
                "rows_per_s_of_median_commit": GROUP / median(ours), "store_bytes": path.stat().st_size,
                "bytes_per_row": path.stat().st_size / (ROWS + 2 * GROUP * GROUPS),
            },
        ),
        Figure(
            "store", f"  commit of {GROUP} rows, p50 / p99",
            f"{1e3 * median(ours):.1f} / {1e3 * slow:.1f} ms",
            f"{1e3 * median(bare):.1f} ms bare rows, p50", calibration_us=calibration,
        ),
    ]  # fmt: skip


def _fill(path: Path) -> None:
    """The bulk path: no journal, no fsync; the rows and the index are what they would be."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -262144")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO agents (agent_no, agent_id, public_key, node, version, admitted_how, admitted_unix_ns)"
            " VALUES (?, ?, ?, ?, '0.1.0', 'bench', 1)",
            (
                (n, hashlib.sha256(b"%d" % n).digest()[:16], bytes(32), f"old-{n}")
                for n in range(1, NODES + 1)
            ),
        )
        build = RecordRows(db)
        db.executemany(build.sql, (build.row(*values) for values in _old_rows()))
        db.executemany(  # as commits of a hundred left them; what the hashes are of does not matter here
            "INSERT INTO log (first_index, kind, first_number, count, hashes) VALUES (?, 'batch', ?, ?, ?)",
            ((i, i + 1, GROUP, os.urandom(32 * GROUP)) for i in range(0, ROWS, GROUP)),
        )
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")
    finally:
        db.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())  # else the first commits measured would wait for these rows to reach the disk


def _old_rows() -> Iterator[tuple[int, int, int, bytes, bytes]]:
    rng = random.Random(3)
    pool = os.urandom(4 << 20)
    last = len(pool) - 1_100
    order = list(range(1, NODES + 1))
    start_s = int(time.time()) - 60 * 10_000
    for window in range(ROWS // NODES):
        rng.shuffle(order)
        for number in order:
            at = rng.randrange(last)
            yield (
                start_s + 60 * window,
                number,
                window + 1,
                pool[at : at + 32],
                pool[at : at + rng.randint(*RECORD_BYTES)],
            )


def _ours(path: Path, nodes: list[corpus.Node]) -> list[float]:
    """Seconds of each commit."""
    store = SqliteStore(path)
    try:
        intake = Intake(store.catalogue, Admission(admit_new=True))
        writer = Writer(store.books, shipped())
        for group in _opening(intake, nodes):
            writer.commit(group)
            intake.committed(group)
        seconds = []
        for group in _groups(intake, nodes):
            begin = time.perf_counter()
            writer.commit(group)
            seconds.append(time.perf_counter() - begin)
            intake.committed(group)
        return seconds
    finally:
        store.close()


def _opening(intake: Intake, nodes: list[corpus.Node]) -> Iterator[Group]:
    for node in nodes:
        agent = intake.hello(
            public_key=node.public_key, node=node.name, version=corpus.VERSION, oldest_seq=1,
            newest_seq=len(node.records), now_unix_ns=time.time_ns(),
        )  # fmt: skip
        assert intake.inventory(agent, node.inventory, time.time_ns()) is None
    yield intake.take_group()


def _groups(intake: Intake, nodes: list[corpus.Node]) -> Iterator[Group]:
    """Groups of 100 verified records, window after window, nodes in another order in each."""
    rng = random.Random(5)
    order = list(range(len(nodes)))
    agents = {id(n): intake.hello(
        public_key=n.public_key, node=n.name, version=corpus.VERSION, oldest_seq=1, newest_seq=len(n.records),
        now_unix_ns=time.time_ns(),
    ) for n in nodes}  # fmt: skip
    for k in range(len(nodes[0].records)):
        rng.shuffle(order)
        for i, number in enumerate(order, 1):
            node = nodes[number]
            outcome, _ = intake.offer(agents[id(node)], node.records[k], time.time_ns())
            assert outcome is TAKEN, outcome
            if i % GROUP == 0:
                yield intake.take_group()


def _bare(path: Path, nodes: list[corpus.Node]) -> list[float]:
    """Seconds of committing the same records' rows alone."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        start_s = int(time.time()) + 1_000_000  # behind every window that is there: the index's right edge
        build = RecordRows(db)
        rows = [
            build.row(
                start_s + 60 * k, number, k + 1, hashlib.sha256(node.records[k]).digest(), node.records[k]
            )
            for k in range(len(nodes[0].records))
            for number, node in enumerate(nodes)
        ]
        seconds = []
        for at in range(0, len(rows), GROUP):
            begin = time.perf_counter()
            build.commit(db, rows[at : at + GROUP])
            seconds.append(time.perf_counter() - begin)
        return seconds
    finally:
        db.close()
