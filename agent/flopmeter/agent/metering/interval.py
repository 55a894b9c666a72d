"""What lies between two readings of one entity: counter deltas, or a gap. Pure, integers throughout.

Two ways lead to SM-cycles (reference/metering.md 3.1), and where both are open the counters win:

    counters      cycles = (value now - value before) x multiplier x k      exact, to the cycle
    percentages   cycles = SMs x mean clock x time x percent                each number rounded down

The multiplier is 1 where id 248 is a sum over SMs and the SM count where it is an average (calibrate.py); k is 1
unless a pipe's percentage showed otherwise (ratios.py). Where counter and percentage disagree, the percentages
price the interval, as shares of the cycles that id 248 counted: no clock is needed for that.
Percentages and clocks come as floats from the driver; they are turned into integers at once, in units of
10^-6 percent and of 1 kHz, so that the same reading gives the same cycles on every machine.
"""

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from operator import itemgetter, sub
from typing import NamedTuple

from flopmeter.agent.reading import (
    ANY_TENSOR_UTIL,
    CYCLE_IDS,
    DFMA_TENSOR_UTIL,
    DMMA_TENSOR_UTIL,
    FP16_UTIL,
    FP32_UTIL,
    FP64_UTIL,
    HMMA_TENSOR_UTIL,
    IMMA_TENSOR_UTIL,
    INTEGER_UTIL,
    MAX_PERCENT,
    SM_UTIL,
    Reading,
)
from flopmeter.contract.evidence_class import EvidenceClass, spread_step
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ, MIN_TICK_NS
from flopmeter.contract.usage import GapReason, Measured

from .crosscheck import silent_zero
from .entity import Entity
from .ratios import (
    EXACT,
    HUNDRED_PERCENT,
    ONE,
    PERCENT_UNITS,
    PLACES,
    PLAIN,
    Judged,
    Ratios,
    agree,
    clean,
    needs_settling,
    settle,
)

#: What is added up, in this order: contract.usage.Usage's numbers with `tensor_any` in the place of
#: tensor_other, which is derived once per row when the window is sealed (contract.pipes.residual).
NUMBERS = (
    "duration_ns",
    "sm_elapsed_cycles",
    "sm_active_cycles",
    "hmma_cycles",
    "imma_cycles",
    "dmma_cycles",
    "tensor_any_cycles",
    "fp64_cycles",
    "fp32_cycles",
    "fp16_cycles",
    "int_cycles",
    "energy_mj",
)
Numbers = tuple[int, ...]

SM_ACTIVE = int(Measured.SM_ACTIVE)
HMMA = int(Measured.HMMA)
IMMA = int(Measured.IMMA)
DMMA = int(Measured.DMMA)
TENSOR = int(Measured.TENSOR_OTHER)
FP64 = int(Measured.FP64)
FP32 = int(Measured.FP32)
FP16 = int(Measured.FP16)
INT = int(Measured.INT)
ENERGY = int(Measured.ENERGY)
ALL_CYCLES = SM_ACTIVE | HMMA | IMMA | DMMA | TENSOR | FP64 | FP32 | FP16 | INT

#: Elapsed cycles may exceed SMs x highest clock x time by this: the reading's two timestamps are taken
#: beside the driver's sample, not in it; 2 % of the shortest tick (250 ms) is 5 ms.
ELAPSED_TOLERANCE_PERCENT = 102
#: And by the time that the reading before took, where that was long: a throttled or preempted agent stands still
#: between the driver's sample and its clock. The collector grants a row no more (ingest/encode.ELAPSED_SLACK_NS).
MAX_LATE_NS = MIN_TICK_NS
#: Far above any GPU (1.4 kW): an energy counter that ran faster was not read. The slack is for exporters
#: whose energy gauge is as old as their collect interval (30 s, reference/metering.md 2.2).
MAX_DEVICE_WATTS = 10_000
ENERGY_SLACK_NS = 30_000_000_000
#: NVML's is read with the others, and later by no more than a read may take (settings.read_deadline's default).
NVML_ENERGY_SLACK_NS = 2_000_000_000
NJ_PER_MJ = 1_000_000
#: Clock samples further apart than this do not tell what the clock was between them, so that their spread bounds
#: nothing: reference/metering.md 3.1 asks for 10-20 a second. An exporter's gauges have a class of their own,
#: whose half-width is for "30 s gauges" (7.1).
MAX_SAMPLE_APART_NS = 2_000_000_000
#: NVML's utilisation is the share of the last 1/6 to 1 s, by product (reference/metering.md 2.3): the most of it.
UTILISATION_WINDOW_NS = 1_000_000_000
_KHZ_NS = 1_000_000  # kHz x ns / this = cycles

#: Where each GPM cycle id stands in CYCLE_IDS order: elapsed, active, any, dmma, hmma, imma, dfma, int,
#: fp64, fp32, fp16.
_MASK_OF_ID = (0, SM_ACTIVE, TENSOR, DMMA, HMMA, IMMA, DMMA, INT, FP64, FP32, FP16)
_MAX_COUNTER = (1 << 63) - 1
_NO_REST = (0,) * PLACES
_NOTHING: Mapping[int, float] = {}
_all_ids = itemgetter(*CYCLE_IDS)

Counters = tuple[int | None, ...]  # in CYCLE_IDS order; None = not read
NO_COUNTERS: Counters = (None,) * len(CYCLE_IDS)


class Point(NamedTuple):
    """What an interval needs of a reading: one end of it."""

    t_boot_ns: int
    t_unix_ns: int
    counters: Counters
    energy_mj: int | None
    clock_khz: int  # the last sample; 0 = not read
    late_ns: int = 0  # the counters may be older than `t_boot_ns` by up to this, MAX_LATE_NS at most

    @property
    def has_counters(self) -> bool:
        return self.counters[0] is not None


class Interval(NamedTuple):
    """Cycles of one entity between two readings; `measured` is contract.usage.Measured as an int."""

    evidence_class: EvidenceClass
    measured: int
    spread_ppm: int
    numbers: Numbers
    rest: tuple[int, ...] = ()  # of each counter x k, in 10^-6 cycles: carried into the next interval
    judged: tuple[Judged, ...] = ()  # counters against percentages, where not all agree


class Why(Enum):
    """Why two points give no interval."""

    RESET = "counters restarted"
    REFUSED = "a pipe was active for longer than time passed"
    TOO_FAST = "more cycles than the SMs can run"


class NoInterval(NamedTuple):
    why: Why
    detail: str


def counters_of(cycles: Mapping[int, int]) -> Counters:
    """The since-boot counters in CYCLE_IDS order; a value that no counter can have is not read."""
    if not cycles:
        return NO_COUNTERS
    try:
        found: tuple[int, ...] = _all_ids(cycles)
        if min(found) >= 0 and max(found) <= _MAX_COUNTER and type(sum(found)) is int:
            return found
    except (KeyError, TypeError):
        pass
    return tuple(v if type(v) is int and 0 <= v <= _MAX_COUNTER else None for v in map(cycles.get, CYCLE_IDS))


def point(reading: Reading) -> Point:
    clocks = reading.sm_clock_mhz
    energy = reading.energy_mj
    if type(energy) is not int or not 0 <= energy < _MAX_COUNTER:
        energy = None
    return Point(
        reading.t_boot_ns,
        reading.t_unix_ns,
        counters_of(reading.cycles),
        energy,
        _khz(clocks[-1]) if clocks else 0,
        min(max(reading.late_ns, 0), MAX_LATE_NS),
    )


def energy_between(before: Point | None, now: Point, entity: Entity) -> int | None:
    """Millijoules, or None where an end was not read, the counter restarted (driver reload) or leapt."""
    if before is None or before.energy_mj is None or now.energy_mj is None:
        return None
    delta = now.energy_mj - before.energy_mj
    slack_ns = ENERGY_SLACK_NS if entity.from_dcgm else NVML_ENERGY_SLACK_NS
    most = (now.t_boot_ns - before.t_boot_ns + slack_ns) * MAX_DEVICE_WATTS  # nJ
    return delta if 0 <= delta * NJ_PER_MJ <= most else None


def by_counters(  # noqa: PLR0917
    before: Point,
    now: Point,
    entity: Entity,
    multiplier: int,
    ratios: Ratios = PLAIN,
    rest: tuple[int, ...] = (),
    percent: Mapping[int, float] = _NOTHING,
) -> Interval | NoInterval:
    """The exact way. `multiplier` 0: the scale is not known yet; the cycles are then raw counter deltas.

    `percent`: percentages of this very interval; `rest`: what rounding left of the one before. Where they
    disagree with the counters, or have what no counter has, the percentages give the pipes.
    Ids that nothing gives are not measured. RESET if any counter is lower than before; TOO_FAST if more
    cycles passed than the SMs can run; REFUSED if a pipe was active for longer than time passed, or nobody
    knows for how long.
    """
    duration = now.t_boot_ns - before.t_boot_ns
    measured = ALL_CYCLES
    absent: tuple[int, ...] = ()
    try:
        deltas: list[int] = list(map(sub, now.counters, before.counters))
    except TypeError:
        pairs = list(zip(now.counters, before.counters, strict=True))
        deltas = [0 if a is None or b is None else a - b for a, b in pairs]
        absent = tuple([place for place, (a, b) in enumerate(pairs) if a is None or b is None])
        measured = _bits(place for place in range(PLACES) if place not in absent)
    if min(deltas) < 0:
        at = deltas.index(min(deltas))
        return NoInterval(
            Why.RESET, f"counter {CYCLE_IDS[at]} went from {before.counters[at]} to {now.counters[at]}"
        )
    elapsed, scale = deltas[0], multiplier or 1
    # What passed before a late stamp was read is in this interval's cycles, and in the time of the one before.
    most = entity.sm_count * entity.ceiling_khz * (duration + before.late_ns)
    if elapsed * scale * _KHZ_NS * 100 > most * ELAPSED_TOLERANCE_PERCENT:
        return NoInterval(
            Why.TOO_FAST,
            f"counter 248: {elapsed * scale} SM-cycles in {duration} ns, at most {most // _KHZ_NS}",
        )
    k = ratios.k
    grade = entity.cycles_class
    judged: tuple[Judged, ...] = ()
    if (percent and not (elapsed and not absent and agree(deltas, percent, k))) or needs_settling(
        deltas, ratios
    ):
        settled = settle(deltas, absent, percent, ratios)
        if isinstance(settled, str):
            return NoInterval(Why.REFUSED, settled)
        judged, shares = settled
    else:
        shares = {}
    if shares:
        grade = entity.percent_class
        measured |= _bits(shares)
        cycles = [d * p // ONE * scale for d, p in zip(deltas, k, strict=True)]
        for place, part in shares.items():
            cycles[place] = elapsed * scale * part // HUNDRED_PERCENT
    elif k is EXACT:
        cycles = deltas if scale == 1 else [d * scale for d in deltas]
    else:
        made = [divmod(d * scale * p + r, ONE) for d, p, r in zip(deltas, k, rest or _NO_REST, strict=True)]
        cycles, rest = [whole for whole, _ in made], tuple([left for _, left in made])
    energy = energy_between(before, now, entity)
    if energy is None:
        energy = 0
    else:
        measured |= ENERGY
    elapsed, active, tensor, dmma, hmma, imma, dfma, whole, fp64, fp32, fp16 = cycles
    # DFMA and DMMA are two names of the FP64 tensor pipe: the larger counts (metering.md 4.2).
    dmma = max(dmma, dfma)
    return Interval(
        grade,
        measured,
        0,
        (duration, elapsed, active, hmma, imma, dmma, tensor, fp64, fp32, fp16, whole, energy),
        rest,
        judged,
    )


def clock(before_khz: int, reading: Reading) -> tuple[int, int, int, int] | None:
    """(sum in kHz, number, lowest, highest) of the clock samples of the interval, or None if none is usable.

    One sample alone says nothing of the time before it, so the sample at the interval's start joins it.
    A sample outside (0, MAX_SM_CLOCK_MHZ], or below 1 kHz, is not one.
    """
    clocks = reading.sm_clock_mhz
    # A driver's buffer holds 50 a second, of few different whole MHz: a sum of such floats is exact.
    if (
        len(clocks) > 1
        and _whole(steps := {*clocks})
        and 0 < (low := min(steps)) <= (high := max(steps)) <= MAX_SM_CLOCK_MHZ
    ):
        return int(sum(clocks)) * 1_000, len(clocks), int(low) * 1_000, int(high) * 1_000
    # As _khz, without a call for each.
    samples = [khz for mhz in clocks if 0 < mhz <= MAX_SM_CLOCK_MHZ and (khz := round(mhz * 1_000))]
    if not samples:
        return None
    if len(samples) == 1 and before_khz:
        samples.append(before_khz)
    return sum(samples), len(samples), min(samples), max(samples)


def by_percent(
    since_ns: int, before: Point | None, reading: Reading, now: Point, entity: Entity
) -> tuple[Interval | None, str]:
    """The sampled way: (interval or None, what was refused).

    `since_ns` is where the percentages start (the reading before); `before` its values, where it had any.
    Percentages and a clock give A2, A3, B1 or B2; utilisation alone, or percentages without a clock, give
    class C, an upper bound; neither gives None: a gap.
    """
    duration = now.t_boot_ns - since_ns
    dead = silent_zero(reading, entity.board_watts) if entity.from_dcgm else ""
    fractions, refused = _clean(reading._replace(percent={}) if dead else reading)
    refused = dead or refused
    clocks = clock(before.clock_khz if before else 0, reading)
    energy = energy_between(before, now, entity)
    bits = 0 if energy is None else ENERGY
    if entity.sm_count == 0:
        return None, refused or "SM count not known"
    if clocks is None or not (ANY_TENSOR_UTIL in fractions or HMMA_TENSOR_UTIL in fractions):
        return _by_utilisation(duration, fractions, energy, entity), refused
    total, count, low, high = clocks
    vague = not entity.from_dcgm and (count == 1 or duration > count * MAX_SAMPLE_APART_NS)
    # Half-range over mean of the clock samples (metering.md 3.1), rounded up, in parts per million. It is not
    # narrowed by their number: how evenly they lie in the interval nobody says.
    spread = spread_step(1_000_000 if vague else -(-(high - low) * count * 1_000_000 // (2 * total)))
    if spread is None or (vague and max(entity.ceiling_khz, high) * count > 2 * total):
        # Between the samples the clock may have been anything, and no spread that is told reaches the highest.
        return _by_utilisation(duration, fractions, energy, entity), refused
    unit = entity.sm_count * total * duration  # SM x kHz x ns x samples
    elapsed = unit // (count * _KHZ_NS)
    whole = count * _KHZ_NS * HUNDRED_PERCENT
    cycles = {key: unit * part // whole for key, part in fractions.items()}
    for key, bit in _PERCENT_BITS:
        if key in cycles:
            bits |= bit
    get = cycles.get
    if entity.from_dcgm:
        grade = EvidenceClass.B1 if HMMA_TENSOR_UTIL in cycles else EvidenceClass.B2
    else:
        grade = entity.percent_class
    return Interval(
        grade,
        bits,
        spread,
        (
            duration,
            elapsed,
            get(SM_UTIL, 0),
            get(HMMA_TENSOR_UTIL, 0),
            get(IMMA_TENSOR_UTIL, 0),
            max(get(DFMA_TENSOR_UTIL, 0), get(DMMA_TENSOR_UTIL, 0)),
            get(ANY_TENSOR_UTIL, 0),
            get(FP64_UTIL, 0),
            get(FP32_UTIL, 0),
            get(FP16_UTIL, 0),
            get(INTEGER_UTIL, 0),
            energy or 0,
        ),
    ), refused


def energy_only(since_ns: int, before: Point | None, now: Point, entity: Entity) -> Interval:
    """A GPU whose SMs are metered in its MIG instances: time and energy, no cycles, nothing twice."""
    energy = energy_between(before, now, entity)
    numbers = (now.t_boot_ns - since_ns, *(0,) * 10, energy or 0)
    return Interval(EvidenceClass.C, 0 if energy is None else ENERGY, 0, numbers)


def gap_numbers(entity: Entity, duration_ns: int) -> Numbers:
    """A gap's price: the most SM-cycles that can have passed, rounded up; nothing else."""
    most = 0 if entity.energy_only else -(-entity.sm_count * entity.ceiling_khz * duration_ns // _KHZ_NS)
    return (duration_ns, most, *(0,) * 10)


def failure_reason(code: str) -> GapReason:
    """Which gap an error code means: NVML's names, and our own of a read that did not come back."""
    if "TIMEOUT" in code or "HUNG" in code:
        return GapReason.READ_HUNG
    if any(word in code for word in ("LOST", "RESET_REQUIRED", "NOT_FOUND")):
        return GapReason.LOST
    return GapReason.READ_FAILED


_PERCENT_BITS = (
    (SM_UTIL, SM_ACTIVE),
    (HMMA_TENSOR_UTIL, HMMA),
    (IMMA_TENSOR_UTIL, IMMA),
    (DFMA_TENSOR_UTIL, DMMA),
    (DMMA_TENSOR_UTIL, DMMA),
    (ANY_TENSOR_UTIL, TENSOR),
    (FP64_UTIL, FP64),
    (FP32_UTIL, FP32),
    (FP16_UTIL, FP16),
    (INTEGER_UTIL, INT),
)


def _whole(clocks: set[float]) -> bool:
    """Whether all are floats without a fraction; NaN and infinity have none that is whole."""
    return {*map(type, clocks)} == {float} and all(map(float.is_integer, clocks))


def _khz(mhz: float) -> int:
    return round(mhz * 1_000) if 0 < mhz <= MAX_SM_CLOCK_MHZ else 0


def _clean(reading: Reading) -> tuple[dict[int, int], str]:
    """Usable percentages in units of 10^-6 percent, at most 100 %, and what was refused."""
    fractions, refused = clean(reading.percent)
    if SM_UTIL not in fractions:
        value = reading.utilization_gpu_pct
        if value is not None and not (math.isfinite(value) and 0 <= value <= MAX_PERCENT):
            refused = refused or f"utilisation: expected 0 to {MAX_PERCENT}, got {value}"
        elif value is not None and not (fractions.keys() & {ANY_TENSOR_UTIL, HMMA_TENSOR_UTIL}):
            fractions[SM_UTIL] = min(round(value * PERCENT_UNITS), HUNDRED_PERCENT)
    return fractions, refused


def _bits(places: Iterable[int]) -> int:
    bits = 0
    for place in places:
        bits |= _MASK_OF_ID[place]
    return bits


def _by_utilisation(
    duration: int,
    fractions: Mapping[int, int],
    energy: int | None,
    entity: Entity,
) -> Interval | None:
    """Class C: the SMs may have been busy for as long as any kernel ran, at the highest clock there is.

    A bound, so that clock samples do not help: between them the clock may have been higher. Utilisation is of
    the second before it was read; of the time before that, and on an exporter's page, it says nothing.
    """
    busy = fractions.get(SM_UTIL)
    if busy is None:
        return None
    unit = entity.sm_count * entity.ceiling_khz * duration
    elapsed = -(-unit // _KHZ_NS)
    known = 0 if entity.from_dcgm else min(duration, UTILISATION_WINDOW_NS)
    unit = entity.sm_count * entity.ceiling_khz * (known * busy + (duration - known) * HUNDRED_PERCENT)
    active = min(elapsed, -(-unit // (_KHZ_NS * HUNDRED_PERCENT)))
    bits = SM_ACTIVE | (0 if energy is None else ENERGY)
    return Interval(EvidenceClass.C, bits, 0, (duration, elapsed, active, *(0,) * 8, energy or 0))
