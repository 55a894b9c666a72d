"""What a fleet's agents signed, for attestations made by hand (evidence_files.py), and what it comes to, slowly."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from builders import H100, TRAINING, Chain, busy, gap

from flopmeter.contract import w_table
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Cycles, Figure, flop
from flopmeter.contract.usage import IDLE, Measured, Usage, Workload, WorkloadKind
from flopmeter.wire.v1 import batch_pb2

SUM_NAMES = [f.name for f in batch_pb2.Usage.DESCRIPTOR.fields if 6 <= f.number <= 17]


@dataclass(frozen=True)
class Fleet:
    """Signed records of some nodes, with whose rows are the run's."""

    records: tuple[bytes, ...]
    inventories: tuple[bytes, ...]
    keys: tuple[bytes, ...]


def fleet(nodes: int = 2, windows: int = 3, usage: Callable[[int, int], list[Usage]] | None = None) -> Fleet:
    """Nodes with two GPUs: one on the run, one half on the run and half idle, or in a gap."""
    other = Workload(WorkloadKind.POD, job="other", dtype="fp8")
    records, chains = [], [Chain(f"gpu-{n:03}") for n in range(nodes)]
    for window in range(windows):
        for n, chain in enumerate(chains):
            rows = [busy(0, 0, percent=37 + window), busy(1, 1), busy(1, 2, duration_ns=30_000_000_000)]
            rows += [gap(1, 0, duration_ns=7_000_000_001)] if window % 2 else []
            rows = usage(n, window) if usage else rows
            records.append(chain.next(usage=rows, workloads=(TRAINING, other, IDLE)))
    return Fleet(tuple(records), tuple(c.inventory for c in chains), tuple(c.public_key for c in chains))


Group = tuple[str, int, int, int, str]  # capability, class, measured, spread, dtype


def groups_of(records: Sequence[bytes]) -> dict[Group, list[int]]:
    """The run's sums, row by row, as protobuf reads them; its workload is the first of each batch."""
    sums: dict[Group, list[int]] = defaultdict(lambda: [0] * 12)
    for raw in records:
        for u in batch_pb2.Batch.FromString(raw[72:-64]).usage:
            if u.workload_index == 0:
                key = ("9.0", u.evidence_class, u.measured, u.spread_ppm, TRAINING.dtype)
                sums[key] = [a + getattr(u, name) for a, name in zip(sums[key], SUM_NAMES, strict=True)]
    return dict(sorted(sums.items()))


def priced(group: Group, sums: Sequence[int]) -> Figure:
    arch = w_table.current().arch(group[0], H100)
    assert arch is not None
    _, elapsed, active, hmma, imma, dmma, other, fp64, fp32, fp16, int_, _ = sums
    cycles = Cycles(
        EvidenceClass(group[1]), Measured(group[2]), group[3], elapsed, active, hmma, imma, dmma, other, fp64, fp32,
        fp16, int_,
    )  # fmt: skip
    return flop(cycles, arch, group[4])


def figure(f: Figure) -> dict[str, str]:
    return {"lower": str(f.lower), "point": str(f.point), "upper": str(f.upper)}


def extent(records: Sequence[bytes]) -> dict[str, str]:
    """When they begin and end, and how long that is."""
    batches = [batch_pb2.Batch.FromString(raw[72:-64]) for raw in records]
    ends = min(b.window_start_unix_ns for b in batches), max(b.window_end_unix_ns for b in batches)
    begin, end = (datetime.fromtimestamp(ns // 10**9, UTC) for ns in ends)
    texts = {"/period/start": f"{begin:%Y-%m-%dT%H:%M:%SZ}", "/period/end": f"{end:%Y-%m-%dT%H:%M:%SZ}"}
    return {**texts, "/totals/wallSeconds": str((ends[1] - ends[0]) // 10**9)}
