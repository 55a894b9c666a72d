"""What each GPU did since the start of the agent, added up from the windows that are sealed and durable. Pure.

The integers are those of the signed records, row by row, so that what a scrape shows is what the collector was sent.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter

from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import MARKS, ZERO, Cycles, Figure, flop
from flopmeter.contract.usage import Device, GapReason, Measured, Usage
from flopmeter.contract.w_table import WTable, current

from .shipping.chain import SealedWindow

#: Pipe -> its bit, in the order of the books.
PIPES: dict[str, Measured] = {
    "hmma": Measured.HMMA,
    "imma": Measured.IMMA,
    "dmma": Measured.DMMA,
    "tensor_other": Measured.TENSOR_OTHER,
    "fp64": Measured.FP64,
    "fp32": Measured.FP32,
    "fp16": Measured.FP16,
    "int": Measured.INT,
}
_CYCLES = attrgetter(*(f"{pipe}_cycles" for pipe in PIPES))
#: A device that left the node (MIG was cut anew, a GPU fell off the bus) keeps its series for so many windows more,
#: so that a scrape sees its last one.
KEPT_WINDOWS = 10


@dataclass(slots=True)
class GpuTotal:
    """Of one entity. What was never measured is absent (None, or no key), never 0."""

    device: Device
    pipe_cycles: dict[str, int] = field(default_factory=dict)
    active_cycles: int | None = None
    elapsed_cycles: int | None = None  # of metered time; gaps have none
    flop: Figure | None = None  # None: its model is in no W table
    has_point: bool = False  # some class that has one was measured
    class_ns: dict[EvidenceClass, int] = field(default_factory=dict)
    gap_ns: dict[GapReason, int] = field(default_factory=dict)
    energy_mj: int | None = None
    newest: EvidenceClass | None = None  # that of most of the last window
    window: int = 0  # the last that told of it, counted from the start

    def copy(self) -> "GpuTotal":
        return replace(
            self,
            pipe_cycles=dict(self.pipe_cycles),
            class_ns=dict(self.class_ns),
            gap_ns=dict(self.gap_ns),
        )


class GpuTotals:
    """Filled by the loop, looked at by scrapes on threads of their own."""

    def __init__(self, table: WTable | None = None) -> None:
        self._table = table or current()
        self._gpus: dict[str, GpuTotal] = {}
        self._windows = 0
        self._lock = threading.Lock()

    def take(self, windows: Iterable[SealedWindow]) -> None:
        """Add windows, each once, when they are durable."""
        with self._lock:
            for window in windows:
                self._windows += 1
                self._take(window)

    def _take(self, window: SealedWindow) -> None:
        devices = window.inventory.devices
        spent: dict[str, dict[EvidenceClass, int]] = {}
        for row in window.batch.usage:
            if row.measured & Measured.OTHERS:
                continue  # what others were given of a shared GPU: in no total of the GPU's
            device = devices[row.entity_index]
            total = self._gpus.get(device.entity)
            if total is None:
                total = self._gpus[device.entity] = GpuTotal(device)
            total.device, total.window = device, self._windows
            dtype = window.batch.workloads[row.workload_index].dtype
            self._add(total, row, dtype)
            times = spent.setdefault(device.entity, {})
            times[row.evidence_class] = times.get(row.evidence_class, 0) + row.duration_ns
        for entity, times in spent.items():
            self._gpus[entity].newest = max(times, key=lambda grade: (times[grade], grade))
        here = {device.entity for device in devices}
        for entity, total in list(self._gpus.items()):
            if entity not in here and self._windows - total.window >= KEPT_WINDOWS:
                del self._gpus[entity]

    def _add(self, total: GpuTotal, row: Usage, dtype: str) -> None:
        grade, measured = row.evidence_class, row.measured
        total.class_ns[grade] = total.class_ns.get(grade, 0) + row.duration_ns
        if grade is EvidenceClass.GAP:
            total.gap_ns[row.gap_reason] = total.gap_ns.get(row.gap_reason, 0) + row.duration_ns
        else:
            total.elapsed_cycles = (total.elapsed_cycles or 0) + row.sm_elapsed_cycles
        pipes = dict(zip(PIPES, _CYCLES(row), strict=True))
        for pipe, bit in PIPES.items():
            if measured & bit:
                total.pipe_cycles[pipe] = total.pipe_cycles.get(pipe, 0) + pipes[pipe]
        if measured & Measured.SM_ACTIVE:
            total.active_cycles = (total.active_cycles or 0) + row.sm_active_cycles
        if measured & Measured.ENERGY:
            total.energy_mj = (total.energy_mj or 0) + row.energy_mj
        arch = self._table.arch(total.device.compute_capability, total.device.name)
        if arch is None:
            return
        cycles = Cycles(
            evidence_class=grade,
            # Whose share of a shared GPU a row is, is uncertain; that the GPU did it, is not.
            measured=measured & ~MARKS,
            spread_ppm=row.spread_ppm,
            elapsed=row.sm_elapsed_cycles,
            active=row.sm_active_cycles,
            **pipes,
        )
        total.flop = (total.flop or ZERO) + flop(cycles, arch, dtype)
        total.has_point = total.has_point or grade not in UPPER_ONLY

    def look(self) -> Mapping[str, GpuTotal]:
        """By entity, as of the last window; nobody changes what this returns."""
        with self._lock:
            return {entity: total.copy() for entity, total in self._gpus.items()}
