"""Is counter 248 a sum over the SMs or their average? NVML does not say (reference/metering.md 1.3, 7.2).

Over at least 5 s the counter's rate is held against the clock: near 1 clock it is an average (SM-cycles =
counter x SMs), near N clocks a sum (SM-cycles = counter). A rate that no average can have, above the
highest clock, is a sum even without clock samples. Until that is decided intervals are held back here,
added up per workload, in raw counters and, where percentages were read too, in sampled cycles; they are
priced when the answer is known. After 60 s without one, what was held back is priced by the percentages,
or as a gap, and the question stays open.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import repeat

from flopmeter.contract.checks import Check
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import GapReason, Workload

from .entity import Entity
from .interval import ELAPSED_TOLERANCE_PERCENT, NUMBERS, Interval, Numbers
from .shares import APPORTIONED, Part, split

#: Least time of evidence, and half-width of the bands around 1 and N (reference/metering.md 7.2, item 2).
ENOUGH_NS = 5_000_000_000
BAND_PERMILLE = 100
#: An interval is held back for at most about this long.
PATIENCE_NS = 60_000_000_000
#: A part of a division is a whole number of ns and of cycles, rounded apart once an interval: at most 240 of
#: them are held back (60 s, 250 ms each).
ROUNDING_NS = 1_000
_KHZ_NS = 1_000_000


class Scale(StrEnum):
    """What the cycle counters add up over."""

    AVERAGE = "average"
    SUM = "sum"

    def multiplier(self, entity: Entity) -> int:
        """SM-cycles per counted cycle."""
        return entity.sm_count if self is Scale.AVERAGE else 1

    def summed_over(self, entity: Entity) -> int:
        """contract.usage.Anchor.scale: 1 for an average, the SM count for a sum."""
        return 1 if self is Scale.AVERAGE else entity.sm_count


@dataclass(slots=True)
class Evidence:
    """Counted cycles against the clock, for one entity. All integers, so that a journal holds it exactly."""

    clocked_cycles: int = 0
    clocked_ns: int = 0
    clock_cycles: int = 0  # mean clock x time, cycles of one SM
    cycles: int = 0
    time_ns: int = 0
    late_ns: int = 0  # by which the cycles may be of a longer time

    def add(
        self,
        cycles: int,
        duration_ns: int,
        clocks: tuple[int, int, int, int] | None,
        late_ns: int = 0,
    ) -> None:
        """An interval's; `late_ns`: interval.Point.late_ns of its start."""
        self.cycles += cycles
        self.time_ns += duration_ns
        self.late_ns += late_ns
        if clocks is not None:
            total_khz, count, _, _ = clocks
            self.clocked_cycles += cycles
            self.clocked_ns += duration_ns
            self.clock_cycles += total_khz * duration_ns // (count * _KHZ_NS)

    def ratio_permille(self) -> int:
        """Counted cycles per clock cycle, in thousandths; 0 without clock samples."""
        return self.clocked_cycles * 1_000 // self.clock_cycles if self.clock_cycles else 0

    def scale_detail(self, entity: Entity) -> str:
        """What is said of a rate that fits neither scale: an alarm (reference/metering.md 7.2, item 2)."""
        got = self.ratio_permille() / 1_000
        return f"{Check.SCALE}: expected 1 or {entity.sm_count} counts of id 248 per clock, got {got:.3f}"

    def verdict(self, entity: Entity) -> Scale | None:
        """The scale, or None where there is too little evidence or it fits neither."""
        sms = entity.sm_count
        if sms == 1:
            return Scale.SUM  # one SM: sum and average are the same
        if sms < 1 or self.time_ns < ENOUGH_NS:
            return None
        if self.clocked_ns >= ENOUGH_NS:
            ratio = self.ratio_permille()
            if abs(ratio - 1_000) <= BAND_PERMILLE:
                return Scale.AVERAGE
            if abs(ratio - 1_000 * sms) <= BAND_PERMILLE * sms:
                return Scale.SUM
            return None
        most_of_one = entity.ceiling_khz * (self.time_ns + self.late_ns) * ELAPSED_TOLERANCE_PERCENT
        return Scale.SUM if self.cycles * _KHZ_NS * 100 > most_of_one else None


@dataclass(frozen=True, slots=True)
class HeldKey:
    """What intervals must share to be held back as one sum, whichever way they will be priced."""

    workload: Workload
    evidence_class: int  # once the scale is known: counters, or their percentages where those disagreed
    measured: int
    fallback_class: int  # EvidenceClass; 0 = percentages were not read
    fallback_measured: int
    fallback_spread_ppm: int


@dataclass(slots=True)
class Held:
    """Intervals of one entity whose scale is not known yet."""

    evidence: Evidence = field(default_factory=Evidence)
    sums: dict[HeldKey, tuple[list[int], list[int]]] = field(default_factory=dict)  # raw, by percentages
    held_ns: int = 0
    late_ns: int = 0  # by which the cycles may be of a longer time

    def add(self, parts: Sequence[Part], raw: Interval, fallback: Interval | None, late_ns: int = 0) -> None:
        """`raw` to its one workload, or divided among several; `fallback`: the same time by percentages.

        `late_ns`: interval.Point.late_ns of its start.
        """
        self.held_ns += raw.numbers[0]
        self.late_ns += late_ns
        if len(parts) == 1:
            self._add(parts[0][0], raw, fallback)
            return
        beside = [row for _, row in split(fallback, parts)] if fallback else repeat(None)
        for (workload, row), sampled in zip(split(raw, parts), beside, strict=False):
            self._add(workload, row, sampled)

    def _add(self, workload: Workload, raw: Interval, fallback: Interval | None) -> None:
        key = HeldKey(
            workload,
            int(raw.evidence_class),
            raw.measured,
            int(fallback.evidence_class) if fallback else 0,
            fallback.measured if fallback else 0,
            fallback.spread_ppm if fallback else 0,
        )
        sums = self.sums.setdefault(key, ([0] * len(NUMBERS), [0] * len(NUMBERS)))
        for i, number in enumerate(raw.numbers):
            sums[0][i] += number
        if fallback:
            for i, number in enumerate(fallback.numbers):
                sums[1][i] += number

    def clear(self) -> None:
        """Forget what was held back: it is in the books already."""
        self.sums.clear()
        self.held_ns = self.late_ns = 0

    def release(self, entity: Entity, scale: Scale | None) -> Iterator[tuple[Workload, Interval | int]]:
        """Everything held back, priced: an Interval each, or the duration in ns of a gap. Empties itself.

        With the scale known, sums that no device can have counted are gaps too.
        """
        late_ns = self.late_ns
        sums, self.sums, self.held_ns, self.late_ns = self.sums, {}, 0, 0
        for key, (raw, sampled) in sums.items():
            if scale is not None:
                multiplier = scale.multiplier(entity)
                numbers: Numbers = (raw[0], *(n * multiplier for n in raw[1:-1]), raw[-1])
                time_ns = raw[0] + late_ns + (ROUNDING_NS if key.measured & APPORTIONED else 0)
                most = entity.sm_count * entity.ceiling_khz * time_ns * ELAPSED_TOLERANCE_PERCENT
                if numbers[1] * _KHZ_NS * 100 > most:
                    yield key.workload, raw[0]
                else:
                    yield key.workload, Interval(EvidenceClass(key.evidence_class), key.measured, 0, numbers)
            elif key.fallback_class:
                grade = EvidenceClass(key.fallback_class)
                yield (
                    key.workload,
                    Interval(grade, key.fallback_measured, key.fallback_spread_ppm, tuple(sampled)),
                )
            elif raw[0]:  # what others had is no time of the entity's
                yield key.workload, raw[0]


#: The gap that stands for intervals whose scale was never decided.
UNDECIDED_GAP = GapReason.REFUSED
