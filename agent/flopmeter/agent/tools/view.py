"""What the last interval of each entity shows, by the meter's own arithmetic. For eyes, not for the books."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from flopmeter.agent.metering import interval as arithmetic
from flopmeter.agent.metering.calibrate import Evidence
from flopmeter.agent.metering.crosscheck import TELL_AGAIN_NS, Checks, rate_detail
from flopmeter.agent.metering.entity import Entity, describe
from flopmeter.agent.metering.interval import Interval, NoInterval, Numbers, Point, Why
from flopmeter.agent.reading import Happening, HappeningKind, NodeFacts, Reading
from flopmeter.agent.workloads.attribution import Attributor, Holding
from flopmeter.contract.checks import Check
from flopmeter.contract.evidence_class import MISMATCH_PPM, UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import Cycles, Figure, flop
from flopmeter.contract.pipes import residual
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Device, Measured, Workload
from flopmeter.contract.w_table import WTable, current

from .advice import reading_name

UNKNOWN = Holding(None)
_CALIBRATING = "calibrating"  # calibrate.py: at least 5 s

#: Pipe columns: name -> (index into interval.NUMBERS, bit that says it was measured).
_PIPES: dict[str, tuple[int, Measured]] = {
    "sm_active": (2, Measured.SM_ACTIVE),
    "tensor": (6, Measured.TENSOR_OTHER),
    "hmma": (3, Measured.HMMA),
    "imma": (4, Measured.IMMA),
    "dmma": (5, Measured.DMMA),
    "fp64": (7, Measured.FP64),
    "fp32": (8, Measured.FP32),
    "fp16": (9, Measured.FP16),
    "int": (10, Measured.INT),
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One entity over its last interval. None = not measured, never 0."""

    device: Device
    evidence_class: EvidenceClass | None = None  # None = not known yet
    note: str = ""  # why there is no figure, or no better class
    pipes_pct: dict[str, float] = field(default_factory=dict)  # of the elapsed SM-cycles
    flop_per_s: Figure | None = None
    sm_clock_mhz: float | None = None
    power_w: float | None = None
    energy_mj: int | None = None
    utilization_pct: float | None = None
    workload: Workload | None = None
    error: str | None = None
    flags: tuple[str, ...] = ()  # what a person should look at: checks that failed in the last hour, sharing
    silent: bool = False  # a busy GPU whose profiling counters are all 0: they have failed
    once_calibrated: EvidenceClass | None = None  # the class to come, while the counters' scale is worked out


class EntityView:
    """Follows one entity from reading to reading."""

    def __init__(
        self, device: Device, source: str, parents: frozenset[str], table: WTable | None = None
    ) -> None:
        self._table = table or current()
        self._entity: Entity = describe(device, self._table, source=source, parents=parents)
        self._arch = self._table.arch(device.compute_capability, device.name)
        self._evidence = Evidence()
        self._last: Point | None = None
        self._checks = Checks()
        self._failed: dict[str, tuple[int, str]] = {}  # check -> when, and what it said

    def update(self, reading: Reading, holding: Holding = UNKNOWN) -> Shown:
        """What the interval that ends with `reading` shows; `holding`: who holds the entity, if that was looked up."""
        shown = self._update(reading)
        now = reading.t_boot_ns
        flags = [text for when, text in self._failed.values() if now - when < TELL_AGAIN_NS]
        if holding.shared:
            flags.append(f"shared: {holding.shared}")
        return replace(shown, flags=tuple(flags), workload=shown.workload or holding.workload)

    def _flag(self, details: Iterable[str], now_ns: int) -> None:
        for detail in details:
            self._failed[detail.partition(":")[0]] = now_ns, detail

    def _update(self, reading: Reading) -> Shown:
        if reading.error is not None:
            self._last = None
            self._checks.restart()
            return self._shown(reading, EvidenceClass.GAP, reading.error)
        before, now = self._last, arithmetic.point(reading)
        self._last = now
        if self._entity.energy_only:
            return self._shown(reading, None, "metered in its MIG instances")
        if before is None or now.t_boot_ns <= before.t_boot_ns:
            return self._shown(reading, None, "first reading")
        if before.has_counters and now.has_counters:
            return self._by_counters(before, now, reading)
        if before.has_counters and not reading.percent:  # an exporter that has not collected since
            self._last = before
            return replace(
                self._shown(reading, None, "no new counters"), once_calibrated=self._entity.cycles_class
            )
        found, refused = arithmetic.by_percent(before.t_boot_ns, before, reading, now, self._entity)
        silent = refused.startswith(Check.SILENT_ZERO)
        if silent:
            self._flag([refused], now.t_boot_ns)
        return replace(self._interval(reading, found, refused or "no pipe counters"), silent=silent)

    def _by_counters(self, before: Point, now: Point, reading: Reading) -> Shown:
        raw = arithmetic.by_counters(before, now, self._entity, 0)
        if isinstance(raw, NoInterval):
            self._evidence = Evidence()
            if raw.why is Why.TOO_FAST:
                self._flag([rate_detail(raw.detail)], now.t_boot_ns)
            return self._shown(reading, EvidenceClass.GAP, raw.detail)
        elapsed, duration = raw.numbers[1], raw.numbers[0]
        self._evidence.add(elapsed, duration, arithmetic.clock(before.clock_khz, reading), before.late_ns)
        scale = self._evidence.verdict(self._entity)
        if scale is not None:
            exact = arithmetic.by_counters(before, now, self._entity, scale.multiplier(self._entity))
            if isinstance(exact, Interval):
                return self._interval(reading, exact, "")
        sampled, _ = arithmetic.by_percent(before.t_boot_ns, before, reading, now, self._entity)
        grade = self._entity.cycles_class
        if sampled is not None and sampled.evidence_class not in UPPER_ONLY:
            return replace(self._interval(reading, sampled, _CALIBRATING), once_calibrated=grade)
        shown = self._shown(reading, None, _CALIBRATING)
        return replace(_with_pipes(shown, raw.numbers, raw.measured), once_calibrated=grade)

    def _interval(self, reading: Reading, found: Interval | None, note: str) -> Shown:
        if found is None:
            return self._shown(reading, EvidenceClass.GAP, note)
        entity = self._entity
        checks = self._checks.add(
            entity.device, found.measured, found.numbers, reading, exporter=entity.from_dcgm
        )
        self._flag(checks, reading.t_boot_ns)
        rate = None
        if self._arch is None:
            note = f"no W table for {reading_name(self._entity.device)}"
        elif found.evidence_class not in UPPER_ONLY:
            note = note if note == _CALIBRATING else ""
        if self._arch is not None:
            dtype = reading.workload.dtype if reading.workload else ""
            total = flop(_cycles(found), self._arch, dtype)
            seconds = found.numbers[0]
            rate = Figure(*(v * 1_000_000_000 // seconds for v in (total.lower, total.point, total.upper)))
        shown = self._shown(reading, found.evidence_class, note, rate)
        return _with_pipes(shown, found.numbers, found.measured)

    def _shown(
        self, reading: Reading, grade: EvidenceClass | None, note: str, rate: Figure | None = None
    ) -> Shown:
        clocks = reading.sm_clock_mhz
        return Shown(
            device=self._entity.device,
            evidence_class=grade,
            note=note,
            flop_per_s=rate,
            sm_clock_mhz=sum(clocks) / len(clocks) if clocks else None,
            power_w=None if reading.power_mw is None else reading.power_mw / 1000,
            energy_mj=reading.energy_mj,
            utilization_pct=reading.utilization_gpu_pct,
            workload=reading.workload,
            error=reading.error,
        )


class NodeView:
    """All entities of a node. `update` takes one round and gives what it showed, by entity, in order."""

    def __init__(self, facts: NodeFacts, attributor: Attributor | None = None) -> None:
        self._source = facts.source
        self._attributor = attributor or Attributor()
        self._views: dict[str, EntityView] = {}
        self._set(facts)

    def _set(self, facts: NodeFacts) -> None:
        parents = frozenset(d.parent for d in facts.devices if d.parent)
        self._views = {
            d.entity: self._views.get(d.entity) or EntityView(d, facts.source, parents) for d in facts.devices
        }

    def update(self, facts: NodeFacts, items: list[Reading | Happening]) -> list[Shown]:
        if {d.entity for d in facts.devices} != set(self._views):
            self._set(facts)
        shown = {}
        for item in items:
            if isinstance(item, Reading):
                if item.entity in self._views:
                    holding = UNKNOWN if item.error else self._attributor.shown(item)
                    shown[item.entity] = self._views[item.entity].update(item, holding)
            elif item.kind in (HappeningKind.REBOOT, HappeningKind.DRIVER_RELOAD):
                self._views = {}
                self._set(facts)
        return [shown[entity] for entity in self._views if entity in shown]


def workload_text(workload: Workload | None) -> str:
    """As a column shows it: `idle`, `?`, `slurm 4711.0`, or the run where one is named."""
    if workload is None or workload == UNATTRIBUTED:
        return "?"
    if workload == IDLE:
        return "idle"
    job = f"{workload.job}.{workload.step}" if workload.step else workload.job
    return workload.run or f"{workload.kind.label} {job}"


def _cycles(found: Interval) -> Cycles:
    _, elapsed, active, hmma, imma, dmma, tensor, fp64, fp32, fp16, whole, _ = found.numbers
    return Cycles(
        evidence_class=found.evidence_class,
        measured=Measured(found.measured),
        spread_ppm=found.spread_ppm,
        elapsed=elapsed,
        active=active,
        hmma=hmma,
        imma=imma,
        dmma=dmma,
        tensor_other=residual(
            tensor_any=tensor,
            hmma=hmma if found.measured & Measured.HMMA else None,
            imma=imma,
            dmma=dmma,
            elapsed=elapsed,
            mismatch_ppm=MISMATCH_PPM[found.evidence_class],
        ),
        fp64=fp64,
        fp32=fp32,
        fp16=fp16,
        int=whole,
    )


def _with_pipes(shown: Shown, numbers: Numbers, measured: int) -> Shown:
    elapsed = numbers[1]
    pipes = {
        name: 100 * numbers[index] / elapsed
        for name, (index, bit) in _PIPES.items()
        if measured & bit and elapsed > 0
    }
    shown.pipes_pct.update(pipes)
    return shown
