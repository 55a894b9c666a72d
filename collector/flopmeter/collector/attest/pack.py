"""An auditor's pack: the run's signed batches with their places in the log, so that its total can be added up again.

Written as the records come, to files of a directory: nothing of it is held in memory but one block of the log.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

from flopmeter.collector.log.entry import BATCH, Salts
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.report.queries import Reader
from flopmeter.contract import w_table

from .batches import RunBatch, RunBatches, workload_bytes
from .errors import AttestRefused
from .values import canonical

FORMAT = "flopmeter-pack/1"
#: Log indexes in one block (docs/attestation-format.md 8): the log's tiles.
BLOCK = 256
_KEY, _INVENTORY = 1, 2

#: The members that a pack consists of, in the container's order.
MANIFEST, RECORDS, LEAVES, INVENTORIES, TABLE = (
    "pack/manifest.json",
    "pack/records.bin",
    "pack/leaves.bin",
    "pack/inventories.bin",
    "pack/w_table.toml",
)


class _Blocks:
    """Writes records.bin and leaves.bin, block by block."""

    def __init__(
        self, records: BinaryIO, leaves: BinaryIO, log: EvidenceLog, size: int, salts: Salts
    ) -> None:
        self._records, self._leaves = records, leaves
        self._log, self._size, self._salts = log, size, salts
        self._block, self._length = -1, 0
        self._places: list[bytes] = []
        self._blocks: list[int] = []

    def add(self, found: RunBatch) -> None:
        index = self._log.index_of(BATCH, found.position)
        if index is None or index >= self._size:
            raise AttestRefused(
                f"record {found.position}: expected it in the evidence log below {self._size}, got {index}",
                "see what is wrong with `flopmeter collector fsck`",
            )
        block, place = divmod(index, BLOCK)
        if block != self._block:
            self._close()
            self._block = block
        framed = struct.pack(">I", len(found.raw)) + found.raw
        self._records.write(framed)
        self._length += len(framed)
        salt = bytes.fromhex(self._salts.of(BATCH, found.position))
        self._places.append(struct.pack(">BQ", place, found.received_unix_ns) + salt)

    def end(self) -> None:
        self._close()
        self._leaves.write(b"".join(self._log.many_blocks(self._blocks, self._size)))

    def _close(self) -> None:
        if not self._places:
            return
        siblings = self._log.many_in_block(self._block, [p[0] for p in self._places], self._size)
        head = struct.pack(">QIHH", self._block, self._length, len(self._places), len(siblings))
        self._leaves.write(head + b"".join(self._places) + b"".join(siblings))
        self._blocks.append(self._block)
        self._places, self._length = [], 0


def write_pack(
    directory: Path, reader: Reader, log: EvidenceLog, *, salts: Salts, facts: Mapping[str, Any], size: int
) -> dict[str, Path | bytes]:
    """The pack's members, for a log of `size` leaves. `facts`: what the record was made of (create.facts_of)."""
    table = resources.files("flopmeter.contract").joinpath(w_table.CURRENT).read_bytes()
    if hashlib.sha256(table).hexdigest() != facts["wTableSha256"]:
        raise AttestRefused(
            "W table: expected the one that the record was made with, got another",
            "attest the run anew: its figures are another record's",
        )
    batches = RunBatches(reader, map(int, facts["workloads"]))
    workloads: set[tuple[str, str, str]] = set()
    left_out: list[dict[str, str | None]] = []
    agents: set[int] = set()
    inventories: set[bytes] = set()
    count = 0
    records_path, leaves_path = directory / "records.bin", directory / "leaves.bin"
    with records_path.open("wb") as records, leaves_path.open("wb") as leaves:
        blocks = _Blocks(records, leaves, log, size, salts)
        for found in batches.booked_between(int(facts["firstPosition"]), int(facts["lastPosition"])):
            blocks.add(found)
            count += 1
            agents.add(found.agent_no)
            inventories.add(found.batch.inventory_digest)
            workloads.update(_workloads(found))
            left_out += _left_out(found)
        blocks.end()
    manifest = {
        "format": FORMAT,
        "records": str(count),
        "smCycles": facts["smCycles"],
        "owed": facts["owed"],
        "leftOut": sorted(left_out, key=lambda o: (o["agent"], int(o["seq"] or 0), int(o["entity"] or 0))),
        "workloads": [
            {"sha256": digest, "scope": scope, "dtype": dtype} for digest, scope, dtype in sorted(workloads)
        ],
    }
    return {
        MANIFEST: canonical(manifest),
        RECORDS: records_path,
        LEAVES: leaves_path,
        INVENTORIES: _inventories(reader, batches, agents, inventories),
        TABLE: table,
    }


def _workloads(found: RunBatch) -> Iterable[tuple[str, str, str]]:
    from flopmeter.collector.ingest.decide import scope_of

    raw = workload_bytes(found.record.payload)
    for index in found.workload_nos:
        w = found.batch.workloads[index]
        yield hashlib.sha256(raw[index]).hexdigest(), scope_of(w, found.inventory), w.dtype


def _left_out(found: RunBatch) -> Iterable[dict[str, str | None]]:
    for entity, rest in found.left_out.items():
        index = rest.workload_index
        yield {
            "agent": found.record.agent_id.hex(),
            "seq": str(found.record.seq),
            "entity": str(entity),
            "restNs": str(rest.duration_ns),
            "cycles": str(rest.most_cycles),
            "workload": str(index) if rest.duration_ns and index in found.workload_nos else None,
        }


def _inventories(reader: Reader, batches: RunBatches, agents: set[int], digests: set[bytes]) -> bytes:
    keys = [bytes(key) for no, key in reader.rows("SELECT agent_no, public_key FROM agents") if no in agents]
    blocks = [(_KEY, raw) for raw in keys] + [(_INVENTORY, batches.inventory_bytes(d)) for d in digests]
    blocks.sort(key=lambda b: (b[0], hashlib.sha256(b[1]).digest()))
    return b"".join(struct.pack(">BI", kind, len(raw)) + raw for kind, raw in blocks)
