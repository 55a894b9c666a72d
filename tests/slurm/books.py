"""What the books say of jobs, and whether every nanosecond and every cycle of every device is in them once."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from books_dump import batches
from processes import flopmeter

from flopmeter.collector.encode import decode_inventory
from flopmeter.contract.usage import Batch, Measured, WorkloadKind

SUMS = ("duration_ns", "sm_elapsed_cycles", "sm_active_cycles", "hmma_cycles")
ELAPSED_ID = 248  # GPM: cycles elapsed (reference/metering.md 1.2)


@dataclass(frozen=True)
class Row:
    """All that the books hold of one workload."""

    kind: WorkloadKind
    job: str
    restart: int
    run: str
    elapsed_cycles: int
    hmma_cycles: int
    duration_ns: int
    gap: bool


def rows(store: Path) -> list[Row]:
    """The totals by workload, steps and identities of one job apart."""
    query = (
        f"SELECT w.kind, w.job, w.restart, w.run, t.gap_reason, t.measured, {', '.join(f't.{s}' for s in SUMS)} "
        "FROM totals t JOIN workloads w USING (workload_no)"
    )
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        found = db.execute(query).fetchall()
    return [
        Row(WorkloadKind(kind), job, restart, run, int(elapsed), int(hmma), int(duration), bool(gap))
        for kind, job, restart, run, gap, measured, duration, elapsed, _, hmma in found
        if not measured & Measured.OTHERS
    ]


def hmma_by_job(store: Path) -> dict[str, int]:
    """Job -> SM-cycles on the tensor pipe, those of its steps and restarts together; "idle", "unattributed"."""
    total: Counter[str] = Counter()
    for row in rows(store):
        total[row.job if row.kind is WorkloadKind.SLURM else row.kind.label] += row.hmma_cycles
    return {job: n for job, n in total.items() if n}


def runs_of_job(store: Path, job: int) -> set[str]:
    return {r.run for r in rows(store) if (r.kind, r.job) == (WorkloadKind.SLURM, str(job))}


def runs(store: Path) -> dict[str, dict[str, Any]]:
    """Run -> what `flopmeter runs list --json` says of it."""
    done = flopmeter("runs", "list", "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    return {run["run"]: run for run in json.loads(done.stdout)["runs"]}


def check_conservation(store: Path, ran: Mapping[str, int], *, gaps: bool = False) -> None:
    """Every device: workloads + idle + unattributed + gaps = its time and its cycles; and the books hold just that.

    `ran`: SM-cycles that elapsed on each device from its agent's first reading to its last, by the driver's script.
    """
    devices, records = _by_device(store)
    assert devices.keys() == ran.keys()
    for entity, of in devices.items():
        first, last = min(of.anchors), max(of.anchors)
        assert of.duration_ns == last[0] - first[0], entity
        assert of.elapsed_cycles == last[1] - first[1] == ran[entity], entity
    booked = [sum(r.duration_ns for r in rows(store)), sum(r.elapsed_cycles for r in rows(store))]
    assert booked == [records["duration_ns"], records["sm_elapsed_cycles"]]
    assert sum(r.hmma_cycles for r in rows(store)) == records["hmma_cycles"]
    assert gaps or not [r for r in rows(store) if r.gap]
    fsck = flopmeter("collector", "fsck", "--store", store)
    assert fsck.returncode == 0, fsck.stdout + fsck.stderr


def held(store: Path, entity: str) -> Counter[str]:
    """Nanoseconds by who held the device, by the signed records: "slurm 7", "idle", …"""
    found: Counter[str] = Counter()
    for named, batch in _batches(store):
        for usage in batch.usage:
            if named[usage.entity_index] == entity and not usage.measured & Measured.OTHERS:
                workload = batch.workloads[usage.workload_index]
                found[f"{workload.kind.label} {workload.job}".strip()] += usage.duration_ns
    return found


def _batches(store: Path) -> Iterator[tuple[list[str], Batch]]:
    """Every record with the devices that its inventory names."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        inventories = {
            bytes(digest): decode_inventory(bytes(raw))
            for digest, raw in db.execute("SELECT digest, bytes FROM inventories")
        }
    for _, batch in batches(store):
        yield [d.entity for d in inventories[batch.inventory_digest].devices], batch


@dataclass
class Device:
    duration_ns: int
    elapsed_cycles: int
    anchors: list[tuple[int, int]]  # (boot time, SM-cycles elapsed since boot)


def _by_device(store: Path) -> tuple[dict[str, Device], Counter[str]]:
    """What the signed records say of each device, and in sum."""
    devices: dict[str, Device] = {}
    total: Counter[str] = Counter()
    for named, batch in _batches(store):
        for entity in named:
            devices.setdefault(entity, Device(0, 0, []))
        for usage in batch.usage:
            if usage.measured & Measured.OTHERS:
                continue
            device = devices[named[usage.entity_index]]
            device.duration_ns += usage.duration_ns
            device.elapsed_cycles += usage.sm_elapsed_cycles
            total.update({name: getattr(usage, name) for name in SUMS})
        for anchor in batch.anchors:
            elapsed = dict(anchor.counters)[ELAPSED_ID]
            devices[named[anchor.entity_index]].anchors.append((anchor.t_boot_ns, elapsed))
    return devices, total
