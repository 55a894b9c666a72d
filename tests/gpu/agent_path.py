"""Readings through flopmeter's own path: meter, windows, usage rows, FLOP. What is validated is this code.

Only the record's wire format is not needed here; where protobuf is missing or too old for the checked-in
stubs, a stand-in for `flopmeter.agent.shipping.encode` takes its place, so that a bare GPU machine is enough.
"""

import hashlib
import json
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flopmeter.agent.reading import CYCLE_IDS, NodeFacts, Reading
from flopmeter.agent.sources.base import Source
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import ZERO, Cycles, Figure, flop, integer_ops
from flopmeter.contract.usage import Device, GapReason, Measured, Usage, Workload, WorkloadKind
from flopmeter.contract.w_table import current

try:
    from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed
except Exception:  # noqa: BLE001 - protobuf's version check raises an error of its own
    _stand_in = types.ModuleType("flopmeter.agent.shipping.encode")
    _stand_in.encode_inventory = lambda inventory: repr(inventory).encode()  # type: ignore[attr-defined]
    _stand_in.inventory_digest = lambda raw: hashlib.sha256(raw).digest()  # type: ignore[attr-defined]
    sys.modules["flopmeter.agent.shipping.encode"] = _stand_in
    sys.modules.pop("flopmeter.agent.metering.meter", None)
    from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed

#: What stood between two measurements: never a result.
BETWEEN = Workload(WorkloadKind.OTHER, job="between")
_SUMS = (
    "sm_elapsed_cycles",
    "sm_active_cycles",
    "hmma_cycles",
    "imma_cycles",
    "dmma_cycles",
    "tensor_other_cycles",
    "fp64_cycles",
    "fp32_cycles",
    "fp16_cycles",
    "int_cycles",
)


def job(name: str, dtype: str = "") -> Workload:
    """The workload that an experiment's readings state."""
    return Workload(WorkloadKind.OTHER, job=name, run="gpu-validation", dtype=dtype)


class AgentPath:
    """One meter over readings of one GPU. `counters` False: as on a driver without ids 248-260 (class A2)."""

    def __init__(
        self, facts: NodeFacts, tick_ns: int, *, counters: bool = True, journal: bytes | None = None
    ) -> None:
        settings = MeterSettings(tick_ns=tick_ns)
        self._meter = Meter(facts, settings, agent_version="gpu-validation", journal=journal, replay=False)
        self._counters = counters
        self.journal = journal
        self.rows: list[tuple[str, Usage]] = []  # (job, row)
        self.notices: list[str] = []
        self.scales: set[int] = set()  # as anchors tell: counters are summed over so many SMs
        self.k_ppm: set[tuple[int, ...]] = set()

    def observe(self, reading: Reading) -> None:
        if not self._counters and reading.cycles:
            reading = reading._replace(cycles={})
        for sealed in self._meter.observe(reading):
            self._take(sealed)

    def seal(self, *, final: bool = False) -> None:
        """Everything up to the last reading into rows."""
        last = self._meter.flush(final=final)
        if last is not None:
            self._take(last)

    def _take(self, sealed: Sealed) -> None:
        self.journal = sealed.journal
        batch = sealed.batch
        self.rows += [(batch.workloads[u.workload_index].job, u) for u in batch.usage]
        self.notices += [f"{n.kind.label}: {n.detail}" for n in batch.notices]
        self.scales |= {a.scale for a in batch.anchors}
        self.k_ppm |= {tuple(a.k_ppm) for a in batch.anchors if a.k_ppm}

    def usage(self, name: str) -> list[Usage]:
        return [u for job_name, u in self.rows if job_name == name]


def summed(rows: Iterable[Usage]) -> dict[tuple[EvidenceClass, Measured, int], list[int]]:
    """Cycles of rows that share what a price depends on."""
    sums: dict[tuple[EvidenceClass, Measured, int], list[int]] = {}
    for row in rows:
        found = sums.setdefault((row.evidence_class, row.measured, row.spread_ppm), [0] * len(_SUMS))
        for i, name in enumerate(_SUMS):
            found[i] += getattr(row, name)
    return sums


def priced(rows: Sequence[Usage], device: Device, dtype: str) -> dict[str, Any]:
    """The rows as FLOP by the contract: totals, by evidence class, cycles, gaps. JSON throughout."""
    arch = current().arch(device.compute_capability, device.name)
    flops, ops = ZERO, ZERO
    classes: dict[str, dict[str, int]] = {}
    cycles = dict.fromkeys((name.removesuffix("_cycles").removeprefix("sm_") for name in _SUMS), 0)
    spread = 0
    for (grade, measured, spread_ppm), sums in summed(rows).items():
        if grade is not EvidenceClass.GAP:
            for key, value in zip(cycles, sums, strict=True):
                cycles[key] += value
            spread = max(spread, spread_ppm)
        if arch is None:
            continue
        group = Cycles(grade, measured, spread_ppm, *sums)
        figure = flop(group, arch, dtype)
        flops, ops = flops + figure, ops + integer_ops(group, arch)
        known = classes.setdefault(grade.label, {"lower": 0, "point": 0, "upper": 0})
        for key in known:
            known[key] += getattr(figure, key)
    gaps = [row for row in rows if row.gap_reason is not GapReason.NONE]
    return {
        "flop": _figure(flops),
        "integer_ops": _figure(ops),
        "classes": classes,
        "cycles": cycles,
        "spread_ppm": spread,
        "rows": len(rows),
        "seconds": sum(row.duration_ns for row in rows) / 1e9,
        "gap_seconds": sum(row.duration_ns for row in gaps) / 1e9,
        "gap_reasons": sorted({row.gap_reason.label for row in gaps}),
        "energy_mj": sum(row.energy_mj for row in rows),
        "w_table": current().id if arch is not None else "",
    }


def _figure(f: Figure) -> dict[str, int]:
    return {"lower": f.lower, "point": f.point, "upper": f.upper}


def tensor_rates(device: Device) -> dict[str, int]:
    """W of the tensor dtypes of the device, by the current table."""
    arch = current().arch(device.compute_capability, device.name)
    names = ("fp64_tensor", "tf32", "bf16", "fp8", "int8")
    return {n: arch.rates[n] for n in names if n in arch.rates} if arch is not None else {}


def rate(device: Device, name: str) -> int:
    arch = current().arch(device.compute_capability, device.name)
    return arch.rates.get(name, 0) if arch is not None else 0


def has_counters(reading: Reading) -> bool:
    return CYCLE_IDS[0] in reading.cycles


class PersistentAgent:
    """An agent that keeps what it sealed, and its journal, in one file: it can be killed at any instant (E18)."""

    def __init__(self, source: Source, folder: Path, name: str, tick_ns: int) -> None:
        self._source = source
        self._file = folder / "agent.json"
        self._name = name
        kept = json.loads(self._file.read_text()) if self._file.exists() else {}
        journal = bytes.fromhex(kept["journal"]) if kept else None
        self._path = AgentPath(source.facts(), tick_ns, journal=journal)
        self._kept: list[dict[str, Any]] = kept.get("rows", [])
        self._starts = kept.get("starts", 0) + 1

    def tick(self) -> None:
        """One reading; then all that it closes is sealed and made durable."""
        device = self._source.facts().devices[0]
        reading = self._source.read(device.entity)
        self._path.observe(reading._replace(workload=job(self._name, "bf16")))
        self._path.seal()
        self._write()

    def stop(self) -> None:
        self.tick()
        self._path.seal(final=True)
        self._write()

    def _write(self) -> None:
        rows = self._kept + [_row_data(u) for _, u in self._path.rows]
        data = {
            "rows": rows,
            "journal": (self._path.journal or b"").hex(),
            "starts": self._starts,
            "notices": self._path.notices,
        }
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(data))
        part.replace(self._file)


def _row_data(u: Usage) -> dict[str, Any]:
    return {name: int(getattr(u, name)) for name in Usage.__slots__}


def rows_of(folder: Path) -> tuple[list[Usage], dict[str, Any]]:
    """What a PersistentAgent left, and the whole file."""
    data = json.loads((folder / "agent.json").read_text())
    rows = []
    for row in data["rows"]:
        values = dict(row)
        values["evidence_class"] = EvidenceClass(values["evidence_class"])
        values["measured"] = Measured(values["measured"])
        values["gap_reason"] = GapReason(values["gap_reason"])
        rows.append(Usage(**values))
    return rows, data
