"""What the meter remembers of one entity between readings, and how that is written into a journal."""

from dataclasses import dataclass, field
from typing import Any

from flopmeter.agent.reading import CYCLE_IDS
from flopmeter.contract.identity import identities
from flopmeter.contract.usage import Anchor, Device, GapReason, Workload, WorkloadKind

from .calibrate import Evidence, Held, HeldKey
from .crosscheck import Checks
from .entity import Entity
from .interval import NUMBERS, Point
from .ratios import EXACT, PLACES

#: A cadence slower than 10 ticks is believed up to this: percentages over longer are not taken, as other
#: tools re-seed their samples after 10 minutes (reference/metering.md 1.2).
MAX_CADENCE_NS = 600_000_000_000


@dataclass(slots=True, eq=False)
class Track:
    """One entity. Times are CLOCK_BOOTTIME of the current boot, -1 = none yet.

    Everything up to `accounted_ns` is in a window, as cycles or as a gap. `base` is the last good reading;
    where it holds cycle counters, the time since is open until the next good one, however long that takes.
    """

    entity: Entity
    born_ns: int = -1  # known to be there since
    seen_ns: int = -1  # last reading taken, good or failed
    waits_ns: int = -1  # last reading that waited to be taken
    loaded_ns: int = -1  # readings up to here were taken before a restart
    accounted_ns: int = -1
    owed_unix_ns: int = -1  # after a reboot: wall clock of `accounted_ns` in the boot before
    base: Point | None = None
    workload: Workload | None = None  # at the last good reading
    sharers: tuple[Workload, ...] = ()  # at the last good reading, where there were several
    waiting: bool = False  # they were given the entity, and no process of theirs was there
    why: GapReason = GapReason.NONE  # why there is no base
    bridging: bool = False  # readings failed or were incomplete since `base`
    lacking: int = 0  # readings since `base` that lacked some of its counters
    doubted: tuple[Point, Workload | None] | None = None  # a reading that does not fit `base`
    epoch: int = -1
    anchored_ns: int = -1
    start: Point | None = None  # the epoch's first reading, until the scale is known
    rest: tuple[int, ...] = ()  # 10^-6 cycles that rounding left of each counter x k, since the epoch's start
    cadences: tuple[int, int] = (0, 0)  # lengths of the last two intervals
    shared: str = ""
    held: Held = field(default_factory=Held)
    checks: Checks = field(default_factory=Checks)

    @property
    def counting(self) -> bool:
        """Whether cycle counters hold the time since `base`."""
        base, entity = self.base, self.entity
        return (
            base is not None
            and base.counters[0] is not None
            and entity.sm_count > 0
            and not entity.energy_only
        )

    def longest_ns(self, long_ns: int) -> int:
        """An interval without counters longer than this is a gap: 10 ticks, or twice the usual cadence."""
        before, last = self.cadences
        return max(long_ns, 2 * min(min(before, last) or last, MAX_CADENCE_NS))

    def forget_base(self, why: GapReason) -> None:
        self.base = None
        self.doubted = None
        self.bridging = False
        self.lacking = 0
        self.start = None
        self.why = why
        self.checks.restart()

    def reboot(self, offset_ns: int) -> None:
        """The boot clock starts anew; the time since `accounted_ns` is owed by the wall clock (`offset_ns`)."""
        if self.owed_unix_ns < 0 and self.accounted_ns >= 0:
            self.owed_unix_ns = self.accounted_ns + offset_ns
        self.forget_base(GapReason.RESET)
        self.born_ns = self.seen_ns = self.waits_ns = self.loaded_ns = -1
        self.accounted_ns = self.anchored_ns = -1
        self.cadences = (0, 0)


def anchor_of(point: Point, epoch: int, scale: int, k: tuple[int, ...] = EXACT) -> Anchor:
    counters = tuple((key, v) for key, v in zip(CYCLE_IDS, point.counters, strict=True) if v is not None)
    energy = -1 if point.energy_mj is None else point.energy_mj
    k_ppm = () if k == EXACT else tuple(p for p, v in zip(k, point.counters, strict=True) if v is not None)
    return Anchor(-1, point.t_boot_ns, point.t_unix_ns, epoch, scale, counters, energy, k_ppm)


def dump_track(t: Track) -> dict[str, Any]:
    """As JSON holds it. Only integers, strings and lists: Python writes integers of any size exactly."""
    return {
        "times": [
            t.born_ns,
            t.seen_ns,
            t.accounted_ns,
            t.owed_unix_ns,
            t.anchored_ns,
            t.lacking,
            *t.cadences,
        ],
        "base": t.base and list(t.base),
        "workload": _from_workload(t.workload),
        "sharers": [_from_workload(w) for w in t.sharers],
        "waiting": t.waiting,
        "rest": list(t.rest),
        "why": int(t.why),
        "bridging": t.bridging,
        "doubted": t.doubted and [list(t.doubted[0]), _from_workload(t.doubted[1])],
        "epoch": t.epoch,
        "start": t.start and list(t.start),
        "shared": t.shared,
        "evidence": [getattr(t.held.evidence, name) for name in Evidence.__slots__],
        "held_ns": t.held.held_ns,
        "held_late_ns": t.held.late_ns,
        "checks": t.checks.dump(),
        "held": [
            [
                _from_workload(k.workload),
                k.evidence_class,
                k.measured,
                k.fallback_class,
                k.fallback_measured,
                k.fallback_spread_ppm,
                raw,
                sampled,
            ]
            for k, (raw, sampled) in t.held.sums.items()
        ],
    }


def load_track(entity: Entity, data: dict[str, Any]) -> Track:
    """The track that was dumped. Raises KeyError, TypeError or ValueError for anything else."""
    born, seen, accounted, owed, anchored, lacking, cadence1, cadence2 = _ints(data["times"], 8)
    doubted = data["doubted"]
    # Journals of agents that did not know how late a reading was have one number less.
    held = Held(
        evidence=Evidence(*_ints([*data["evidence"], 0][:6], 6)),
        held_ns=_ints([data["held_ns"]], 1)[0],
        late_ns=_ints([data.get("held_late_ns", 0)], 1)[0],
    )
    for workload, *key, raw, sampled in data["held"]:
        held.sums[HeldKey(_sure_workload(workload), *_ints(key, 5))] = (
            _ints(raw, len(NUMBERS)),
            _ints(sampled, len(NUMBERS)),
        )
    return Track(
        entity=entity,
        born_ns=born,
        seen_ns=seen,
        loaded_ns=seen,
        accounted_ns=accounted,
        owed_unix_ns=owed,
        base=_to_point(data["base"]),
        workload=_to_workload(data["workload"]),
        sharers=tuple(_sure_workload(w) for w in data["sharers"]),
        waiting=bool(data.get("waiting")),
        rest=tuple(_ints(data["rest"], len(data["rest"]) and PLACES)),
        why=GapReason(data["why"]),
        bridging=bool(data["bridging"]),
        lacking=lacking,
        doubted=None if doubted is None else (_sure_point(doubted[0]), _to_workload(doubted[1])),
        epoch=_ints([data["epoch"]], 1)[0],
        anchored_ns=anchored,
        start=_to_point(data["start"]),
        cadences=(cadence1, cadence2),
        shared=str(data["shared"]),
        held=held,
        checks=Checks.load(data["checks"]) if "checks" in data else Checks(),
    )


def dump_device(d: Device) -> list[Any]:
    return [getattr(d, name) for name in Device.__slots__]


def load_device(data: list[Any]) -> Device:
    entity, name, capability, sms, mhz, serial, mig, parent, instance, pci, persistence, confidential = data
    if not all(isinstance(v, str) for v in (entity, name, capability, serial, parent, pci)):
        raise TypeError("journal: a device's names are text")
    if not all(v is None or isinstance(v, bool) for v in (persistence, confidential)):
        raise TypeError("journal: a device's switches are on, off or not known")
    _ints([sms, mhz, instance], 3)
    return Device(
        entity,
        name,
        capability,
        sms,
        mhz,
        serial,
        bool(mig),
        parent,
        instance,
        pci,
        persistence,
        confidential,
    )


def _from_workload(w: Workload | None) -> list[Any] | None:
    """Whole: two keys that only an identity tells apart must not become one."""
    if w is None:
        return None
    named = [int(w.kind), w.job, w.step, w.run, w.user, w.dtype, w.restart]
    return [*named, [list(each) for each in w.identities]] if w.identities else named


def _to_workload(data: list[Any] | None) -> Workload | None:
    return None if data is None else _sure_workload(data)


def _sure_workload(data: list[Any]) -> Workload:
    kind, job, step, run, user, dtype, restart, *rest = data
    seen = [(name, value) for name, value in (rest[0] if rest else ())]
    if not all(
        isinstance(v, str) for v in (job, step, run, user, dtype, *(v for each in seen for v in each))
    ):
        raise TypeError("journal: a workload's names are text")
    return Workload(
        WorkloadKind(kind), job, step, run, user, dtype, _ints([restart], 1)[0], identities=identities(seen)
    )


def _to_point(data: list[Any] | None) -> Point | None:
    return None if data is None else _sure_point(data)


def _sure_point(data: list[Any]) -> Point:
    boot, unix, counters, energy, khz, late = data if len(data) == 6 else [*data, 0]
    if len(counters) != len(CYCLE_IDS):
        raise ValueError(f"journal: expected {len(CYCLE_IDS)} counters, got {len(counters)}")
    _ints([v for v in counters if v is not None], None)
    _ints([v for v in (energy,) if v is not None], None)
    _ints([boot, unix, khz, late], 4)
    return Point(boot, unix, tuple(counters), energy, khz, late)


def _ints(values: list[Any], count: int | None) -> list[int]:
    if not all(type(v) is int for v in values) or (count is not None and len(values) != count):
        raise ValueError(f"journal: expected {count or ''} integers, got {values!r:.80}")
    return values
