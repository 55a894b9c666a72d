"""Evidence log: what a leaf costs where it is appended, and a head, a proof and an export of a log of many leaves.

A store is filled with records in bulk and given its log by the collector's own path for older stores; then the log is
sealed, grown, proven from and exported as a collector and its commands do. FLOPMETER_BENCH_LEAVES sets how many
(default a million; ten million take some ten minutes and 5 GB).
"""

import os
import random
import sqlite3
import statistics
import time
from contextlib import ExitStack, closing
from pathlib import Path

import corpus
from harness import Figure, calibrate, cores, median, pinned, progress
from rows import RecordRows

from flopmeter.collector.keys import log_key
from flopmeter.collector.log import seal as seal_module
from flopmeter.collector.log.append import Appender, backfill
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.log.export import export
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.contract.record import record_hash
from flopmeter.evidence.merkle import verify_inclusion
from flopmeter.wire.v1 import batch_pb2

LEAVES = int(os.environ.get("FLOPMETER_BENCH_LEAVES", "1_000_000"))
GROUP, GROUPS = 100, 200
HEADS, BETWEEN = 100, 1_000  # heads made, and leaves appended before each
PROOFS = 300
GOAL_APPEND_US = 6.0


def run(folder: Path) -> list[Figure]:
    path = folder / "log.db"
    SqliteStore(path).close()
    progress(f"log: putting in {LEAVES:,} records")
    _fill(path)
    key = log_key(folder / "keys")
    server, _ = cores()
    with ExitStack() as stack:
        stack.enter_context(pinned(server))
        db = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        calibration = calibrate()
        db.execute("PRAGMA synchronous = FULL")
        progress("log: giving them their indexes")
        begin = time.perf_counter()
        made = backfill(db)
        backfill_s = time.perf_counter() - begin
        progress(f"log: {made:,} leaves in {backfill_s:.0f} s; the first head over all of them")
        sealing = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))  # as the office's
        sealing.execute("PRAGMA synchronous = FULL")
        sealing.execute("PRAGMA wal_autocheckpoint = 0")
        log = EvidenceLog(sealing)
        begin = time.perf_counter()
        log.seal(key, time.time_ns)
        first_s = time.perf_counter() - begin
        progress(f"log: {first_s:.0f} s; appending, sealing, proving")
        appended = _append(db)
        seals, locked = _seals(db, log, key)
        proofs = _proofs(log)
        progress("log: exporting")
        begin = time.perf_counter()
        exported = export(db, folder / "export")
        export_s = time.perf_counter() - begin
    append_us = 1e6 * median(appended) / GROUP
    size = log_size = exported.checkpoint.size
    hashes, prove_ms, verify_us = proofs
    named = f"{size / 1e6:.1f} M leaves"
    return [
        Figure("log", f"a leaf, appended in a commit of {GROUP}", f"{append_us:.1f} us", "-", "-",
               f"< {GOAL_APPEND_US:.0f} us", append_us < GOAL_APPEND_US, calibration,
               {"us_per_leaf_p99": 1e6 * sorted(appended)[int(0.99 * len(appended))] / GROUP, "leaves": log_size}),
        Figure("log", f"a head over {BETWEEN:,} new of {named}, p50 / p99",
               f"{1e3 * median(seals):.0f} / {1e3 * _p99(seals):.0f} ms", "-", calibration_us=calibration),
        Figure("log", "  of which the store's write lock, p50 / p99",
               f"{1e3 * median(locked):.1f} / {1e3 * _p99(locked):.1f} ms", "-", calibration_us=calibration),
        Figure("log", f"a proof of inclusion in {named}", f"{32 * max(hashes):,} B, made in {prove_ms:.1f} ms",
               f"checked in {verify_us:.0f} us", calibration_us=calibration),
        Figure("log", "the export", f"{size / export_s:,.0f} leaves/s",
               f"{exported.files:,} files, {exported.bytes / 1e9:.2f} GB", calibration_us=calibration),
        Figure("log", "an older store: indexes, then the first heads",
               f"{made / backfill_s:,.0f} leaves/s", f"{made / first_s:,.0f} leaves/s", calibration_us=calibration),
    ]  # fmt: skip


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


def _fill(path: Path) -> None:
    """Records of one agent, in bulk: small ones, so that ten million fit."""
    batch = batch_pb2.Batch(
        agent_version=corpus.VERSION, inventory_digest=bytes(32), window_start_boot_ns=1, window_end_boot_ns=2,
        window_start_unix_ns=1_790_000_000_000_000_000, window_end_unix_ns=1_790_000_060_000_000_000,
    )  # fmt: skip
    raw = bytes(72) + batch.SerializeToString() + bytes(64)
    digest = record_hash(raw)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -262144")
        db.execute("BEGIN")
        db.execute("INSERT INTO agents VALUES (1, ?, ?, 'n', '0.1.0', 'bench', 1)", (bytes(16), bytes(32)))
        build = RecordRows(db)
        db.executemany(build.sql, (build.row(1_790_000_000, 1, i, digest, raw) for i in range(1, LEAVES + 1)))
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL")


def _rows(db: sqlite3.Connection, count: int) -> tuple[list[tuple], list[int]]:
    """The next records, written; as store.base.Transaction has them."""
    (last,) = db.execute("SELECT max(position) FROM records").fetchone()
    old = db.execute("SELECT * FROM records WHERE position = 1").fetchone()
    rows = [(n, old[1], 1, n, *old[4:]) for n in range(last + 1, last + 1 + count)]
    db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return rows, [1_790_000_000_000_000_000] * count


def _append(db: sqlite3.Connection) -> list[float]:
    """Seconds of each append within a commit, the rows beside it left out."""
    appender, found = Appender(db), []
    for _ in range(GROUPS):
        db.execute("BEGIN IMMEDIATE")
        records, starts = _rows(db, GROUP)
        begin = time.perf_counter()
        appender.append(records=records, starts_unix_ns=starts)
        found.append(time.perf_counter() - begin)
        db.execute("COMMIT")
    return found[1:]


def _seals(db: sqlite3.Connection, log: EvidenceLog, key) -> tuple[list[float], list[float]]:
    """Seconds of each head, and of its transaction."""
    appender, seals, locked = Appender(db), [], []
    persist = seal_module.Sealer._persist

    def timed(*args) -> bool:
        begin = time.perf_counter()
        try:
            return persist(*args)
        finally:
            locked.append(time.perf_counter() - begin)

    seal_module.Sealer._persist = timed
    try:
        for _ in range(HEADS):
            db.execute("BEGIN IMMEDIATE")
            records, starts = _rows(db, BETWEEN)
            appender.append(records=records, starts_unix_ns=starts)
            db.execute("COMMIT")
            begin = time.perf_counter()
            log.seal(key, time.time_ns)
            seals.append(time.perf_counter() - begin)
            if len(seals) == 1:
                locked.clear()  # what came before the first was appended without heads
    finally:
        seal_module.Sealer._persist = persist
    return seals[1:], locked


def _proofs(log: EvidenceLog) -> tuple[list[int], float, float]:
    """Hashes of each proof, then ms to make one and us to check one, medians."""
    head, rng = log.latest(), random.Random(5)
    made, checked, hashes = [], [], []
    for _ in range(PROOFS):
        index = rng.randrange(head.size)
        begin = time.perf_counter()
        proof = log.inclusion(index, head.size)
        made.append(time.perf_counter() - begin)
        leaf = log.leaf_hash(index)
        begin = time.perf_counter()
        verify_inclusion(index, head.size, leaf, proof, head.root)
        checked.append(time.perf_counter() - begin)
        hashes.append(len(proof))
    return hashes, 1e3 * statistics.median(made), 1e6 * statistics.median(checked)
