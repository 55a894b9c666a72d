"""The floor: what the same records cost in C-level calls alone, in one process, nothing around them.

    floor.py --corpus F --folder D [--records 4096] [--repeats 3]

Each record: libsodium verify, protobuf parse of its Batch, its 96 numbers added to totals, SHA-256, one row in SQLite
(FULL, 1,024 rows a transaction, the collector's own columns and index). CPU time per part; prints one JSON object.
"""

import argparse
import hashlib
import json
import sqlite3
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import corpus
import nacl.bindings
from rows import RecordRows

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.store.migrate import migrate
from flopmeter.contract.record import DOMAIN, HEADER_BYTES, SIGNATURE_BYTES
from flopmeter.wire.v1 import batch_pb2

GROUP = 1_024


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """(CPU ns of this process, the result)."""
    start = time.process_time_ns()
    result = work()
    return time.process_time_ns() - start, result


def verify(signed: list[bytes], keys: list[bytes]) -> None:
    check = nacl.bindings.crypto_sign_open
    for message, key in zip(signed, keys, strict=True):
        check(message, key)


def add_up(batches: list[batch_pb2.Batch]) -> list[int]:
    """All 12 numbers of all rows, unrolled: the cheapest that Python's protobuf gives."""
    assert len(SUM_FIELDS) == 12
    a = b = c = d = e = f = g = h = i = j = k = m = 0
    for batch in batches:
        for u in batch.usage:
            a += u.duration_ns
            b += u.sm_elapsed_cycles
            c += u.sm_active_cycles
            d += u.hmma_cycles
            e += u.imma_cycles
            f += u.dmma_cycles
            g += u.tensor_other_cycles
            h += u.fp64_cycles
            i += u.fp32_cycles
            j += u.fp16_cycles
            k += u.int_cycles
            m += u.energy_mj
    return [a, b, c, d, e, f, g, h, i, j, k, m]


class Floor:
    """The parts, run in turn on the same records, so that a slow phase of the machine falls on all alike."""

    def __init__(self, nodes: list[corpus.Node], count: int, folder: Path) -> None:
        pairs = [
            (r, n.public_key)
            for k in range(len(nodes[0].records))
            for n in nodes
            for r in n.records[k : k + 1]
        ]
        pairs = pairs[:count]
        self.records = [r for r, _ in pairs]
        self.keys = [k for _, k in pairs]
        # crypto_sign_open takes the signature in front; moving it there is no part of the floor
        self.signed = [r[-SIGNATURE_BYTES:] + DOMAIN + r[:-SIGNATURE_BYTES] for r in self.records]
        self.payloads = [r[HEADER_BYTES:-SIGNATURE_BYTES] for r in self.records]
        self.db = sqlite3.connect(folder / "floor.db", isolation_level=None)
        migrate(self.db, "floor")
        self.db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        self.build = RecordRows(self.db)
        self.position = 0

    def once(self) -> dict[str, float]:
        """CPU us per record of each part."""
        n = len(self.records)
        cost: dict[str, float] = {}
        parse = batch_pb2.Batch.FromString
        cost["verify"], _ = timed(lambda: verify(self.signed, self.keys))
        cost["parse"], batches = timed(lambda: [parse(p) for p in self.payloads])
        cost["sum"], _ = timed(lambda: add_up(batches))
        cost["sha256"], hashes = timed(lambda: [hashlib.sha256(r).digest() for r in self.records])
        rows = [
            self.build.row(self.position // 4096, i, self.position + i, h, r)
            for i, (h, r) in enumerate(zip(hashes, self.records, strict=True))
        ]
        cost["sqlite"], _ = timed(lambda: self.store(rows))
        self.position += n
        return {name: ns / 1e3 / n for name, ns in cost.items()}

    def store(self, rows: list[tuple]) -> None:
        for at in range(0, len(rows), GROUP):
            self.build.commit(self.db, rows[at : at + GROUP])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--records", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    floor = Floor(corpus.load(args.corpus), args.records, args.folder)
    runs = [floor.once() for _ in range(args.repeats)]
    parts = {name: statistics.median(r[name] for r in runs) for name in runs[0]}
    print(
        json.dumps(
            {"parts_us": parts, "us_per_record": sum(parts.values()), "record_bytes": len(floor.records[0])}
        )
    )


if __name__ == "__main__":
    main()
