"""From SM-cycles to FLOP: lower <= point <= upper, in exact integers (reference/metering.md 4.2, 4.3).

    lower = cycles x (1 - e) x least W x mma.sync allowance     tensor pipes only
    point = cycles x W(declared dtype)                          tensor pipes only; nothing from gaps and class C
    upper = cycles x (1 + e) x greatest W                       tensor and vector pipes, plus what was not measured

e is the evidence class's half-width plus the row's clock spread. lower is rounded down, upper up. width.py says what
each of these adds to the width. Two marks change that (contract.usage.Measured): an APPORTIONED row, the workload's
share of a shared entity, has no lower bound; an OTHERS row beside it, what other holders were given, has neither
lower nor point. Their uppers add up to the entity's, so that the workload's truth lies within its bounds whatever the
split really was. An OTHERS row states as sm_active the most that the SMs can have been active for others (the elapsed
cycles where nobody read it), so that pipes which nobody read stay in the upper bound.

Integer operations (imma) are kept apart, so that either reading of a law can be computed. Nominal 2:4-sparse figures
are in none of the three.
"""

import builtins
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from .errors import ContractError
from .evidence_class import CYCLE_ERROR_PPM, MISMATCH_PPM, UPPER_ONLY, EvidenceClass
from .pipes import residual_noise
from .usage import Measured
from .w_table import DTYPE_RATE, Arch

_MILLION = 1_000_000
_PERMILLE = 1_000
DEFAULT_RATE = "bf16"  # the point's dtype where none is declared (reference/metering.md 4.2)
MARKS = Measured.APPORTIONED | Measured.OTHERS
# As plain integers: flop() stands on the path of every judged commit, and an IntFlag's `in` costs a microsecond.
_SM_ACTIVE, _HMMA, _IMMA, _DMMA = (int(Measured[n]) for n in ("SM_ACTIVE", "HMMA", "IMMA", "DMMA"))
_ANY, _INT, _OTHERS, _MARKS = int(Measured.TENSOR_OTHER), int(Measured.INT), int(Measured.OTHERS), int(MARKS)
_TOLD_APART = _HMMA | _IMMA | _DMMA
_VECTOR = ((int(Measured.FP64), "fp64"), (int(Measured.FP32), "fp32"), (int(Measured.FP16), "fp16_vector"))
_ALL_VECTOR = sum(bit for bit, _ in _VECTOR)


@dataclass(frozen=True, slots=True)
class Figure:
    """A quantity with its bounds, integers: lower <= point <= upper."""

    lower: int
    point: int
    upper: int

    def __add__(self, other: "Figure") -> "Figure":
        return Figure(self.lower + other.lower, self.point + other.point, self.upper + other.upper)


ZERO = Figure(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Cycles:
    """SM-cycles of one group of usage that shares device model, evidence class, spread and dtype."""

    evidence_class: EvidenceClass
    measured: Measured
    spread_ppm: int
    elapsed: int
    active: int = 0
    hmma: int = 0
    imma: int = 0
    dmma: int = 0
    tensor_other: int = 0
    fp64: int = 0
    fp32: int = 0
    fp16: int = 0
    int: int = 0

    @property
    def most(self) -> builtins.int:
        """The most cycles that any one pipe can have been active."""
        return self.active if self.measured.value & _SM_ACTIVE else self.elapsed

    @property
    def error_ppm(self) -> builtins.int:
        return CYCLE_ERROR_PPM[self.evidence_class] + self.spread_ppm


@dataclass(frozen=True, slots=True)
class Calibration:
    """A job's own counts per dtype (ncu, CUPTI) over some steps: FLOP done in so many float-tensor SM-cycles.

    A recorded claim: it moves the point and narrows the bounds, never beyond what the hardware can do
    (reference/metering.md 4.2, rule b). Who claims it, and for which job, is for the run registry to record.
    """

    flop: int
    cycles: int  # HMMA and residual together
    error_ppm: int  # half-width of the ratio, as the claim states it

    def __post_init__(self) -> None:
        if self.flop <= 0 or self.cycles <= 0 or not 0 <= self.error_ppm <= _MILLION:
            raise ContractError(
                "calibration: expected FLOP and SM-cycles above 0 and an error of 0 to 1000000 ppm, "
                f"got {self.flop}, {self.cycles}, {self.error_ppm}"
            )

    def fits(self, arch: Arch) -> bool:
        """Whether `arch` can do what it claims; flop() takes no notice of one that does not fit its cycles."""
        low, high = arch.tensor_span()
        least = min(arch.legacy_permille("hmma"), arch.legacy_permille("residual"))
        lowest, highest = self.flop * (_MILLION - self.error_ppm), self.flop * (_MILLION + self.error_ppm)
        scale = self.cycles * _MILLION
        return highest * _PERMILLE >= low * least * scale and lowest <= high * scale


class Weights(NamedTuple):
    """FLOP per cycle of the tensor pipes, as far as one group tells them apart. `low` in thousandths."""

    hmma_full: int  # least W of any dtype that it may hold, at full rate
    hmma_low: int  # the same by mma.sync, in thousandths
    hmma_point: int
    hmma_high: int
    rest_full: int  # of the residual; where HMMA was not read, of all that the any-tensor counter saw
    rest_legacy: int  # in thousandths
    rest_low: int  # the same, if it may also hide integer or FP64 work, in thousandths
    rest_point: int
    rest_high: int
    fp64_tensor: int


def weights(arch: Arch, measured: Measured, dtype: str = "", *, trusted: bool = False) -> Weights:
    """`trusted`: as if the declared dtype were true of every float tensor cycle that HMMA, or an unsplit
    any-tensor counter, saw. What only the any-tensor counter saw keeps its span: it is not in a declaration.
    """
    return _weights(arch, measured.value & _TOLD_APART, DTYPE_RATE.get(dtype, ""), trusted)


@cache
def _weights(arch: Arch, told_apart: int, rate: str, trusted: bool) -> Weights:
    rates = arch.rates
    fp64_tensor = rates.get("fp64_tensor", 0)
    whole = not told_apart & _HMMA
    hmma = [rates[n] for n in arch.hmma_holds]
    rest = [rates[n] for n in ({*arch.hmma_holds, *arch.residual_holds} if whole else arch.residual_holds)]
    declared = point_rate(arch, rate)
    # The same dtype may accumulate in FP16, at a rate of its own (GeForce).
    as_said = [rates[n] for n in arch.hmma_holds if rate and (n == rate or n.startswith(rate + "_"))]
    believed = trusted and bool(as_said)
    if believed:
        hmma, rest = as_said, as_said if whole else rest
    # What HMMA did not see is FP8 or narrower (metering.md 4.2).
    likely = declared if whole else max(rates.get("fp8", 0), rates.get(rate, declared))
    share = arch.legacy_permille("residual")
    if whole:
        share = min(share, arch.legacy_permille("hmma"))
    legacy = low = min(rest) * share
    if not (believed and whole):
        if not told_apart & _IMMA and "int8" in rates:
            low = 0
        elif not told_apart & _DMMA and fp64_tensor:
            low = min(low, fp64_tensor * _PERMILLE)
    return Weights(
        hmma_full=min(hmma),
        hmma_low=min(hmma) * arch.legacy_permille("hmma"),
        hmma_point=declared,
        hmma_high=max(hmma),
        rest_full=min(rest),
        rest_legacy=legacy,
        rest_low=low,
        rest_point=min(max(likely, min(rest)), max(rest)),
        rest_high=max(*rest, fp64_tensor),
        fp64_tensor=fp64_tensor,
    )


def point_rate(arch: Arch, dtype: str) -> int:
    """FLOP per cycle of an HMMA cycle under the declared dtype; BF16 where none, or none that HMMA can do."""
    name = DTYPE_RATE.get(dtype, DEFAULT_RATE)
    return arch.rates[name if name in arch.hmma_holds else DEFAULT_RATE]


def flop(
    c: Cycles,
    arch: Arch,
    dtype: str = "",
    *,
    calibration: Calibration | None = None,
    trusted: bool = False,
) -> Figure:
    """Floating-point operations executed, from `c`, on `arch`, with the job's declared dtype."""
    error = c.error_ppm
    if c.evidence_class in UPPER_ONLY:
        everything = max(arch.tensor_span()[1], arch.rates.get("fp64_tensor", 0)) + vector_rate(arch)
        return Figure(0, 0, _up(c.most * everything, _MILLION + error, _MILLION))
    w = weights(arch, c.measured, dtype, trusted=trusted)
    lower = c.hmma * w.hmma_low + c.tensor_other * w.rest_low
    point = c.hmma * w.hmma_point + c.tensor_other * w.rest_point
    upper = c.hmma * w.hmma_high + c.tensor_other * w.rest_high
    if calibration is not None:
        lower, point, upper = _narrowed(c.hmma + c.tensor_other, calibration, lower, point, upper)
    fp64_tensor = c.dmma * w.fp64_tensor
    lower += fp64_tensor * _PERMILLE
    point += fp64_tensor
    upper += fp64_tensor + vector_flop(c, arch) + sum(unread_flop(c, arch, w.rest_high))
    upper_ppm = upper * _MILLION + noise_ppm(c) * w.rest_high
    return Figure(
        0 if c.measured.value & _MARKS else lower * max(0, _MILLION - error) // (_MILLION * _PERMILLE),
        0 if c.measured.value & _OTHERS else point,
        _up(upper_ppm, _MILLION + error, _MILLION * _MILLION),
    )


def integer_ops(c: Cycles, arch: Arch) -> Figure:
    """Integer tensor operations (imma), counted apart from FLOP; the INT pipe enters the upper bound.

    IMMA is taken for INT8, which it may be twice of (INT4, Turing to Ada): in the upper bound.
    """
    int8, int32 = arch.rates.get("int8", 0), arch.rates.get("int32", 0)
    most = max(int8, arch.rates.get("int4", 0))
    error, measured = c.error_ppm, c.measured.value
    if c.evidence_class in UPPER_ONLY:
        return Figure(0, 0, _up(c.most * (most + int32), _MILLION + error, _MILLION))
    point = c.imma * int8
    upper_ppm = c.imma * most * _MILLION
    if not measured & _IMMA:
        if measured & _ANY:
            upper_ppm = (c.tensor_other * _MILLION + noise_ppm(c)) * most
        else:
            upper_ppm = max(0, c.most - c.hmma - c.dmma) * most * _MILLION
    upper_ppm += (c.int if measured & _INT else c.most) * int32 * _MILLION
    lower = point * arch.legacy_permille("imma") * max(0, _MILLION - error) // (_MILLION * _PERMILLE)
    return Figure(
        0 if measured & _MARKS else lower,
        0 if measured & _OTHERS else point,
        _up(upper_ppm, _MILLION + error, _MILLION * _MILLION),
    )


def nominal_sparse(c: Cycles, arch: Arch) -> int:
    """The most that a datasheet's 2:4-sparse rates would call it: the upper bound, had all of it been sparse.

    Nominal only: the SMs execute the dense number of operations at the same rate (reference/metering.md 3.2).
    """
    return flop(c, _sparse(arch)).upper


@cache
def _sparse(arch: Arch) -> Arch:
    return replace(arch, rates={**arch.rates, **arch.sparse})


def total(figures: Iterable[Figure]) -> Figure:
    lower = point = upper = 0
    for figure in figures:
        lower += figure.lower
        point += figure.point
        upper += figure.upper
    return Figure(lower, point, upper)


# ---- parts of the upper bound, for width.py too ----------------------------------------------------------


def vector_rate(arch: Arch) -> int:
    return arch.rates["fp64"] + arch.rates["fp32"] + arch.rates["fp16_vector"]


def vector_flop(c: Cycles, arch: Arch) -> int:
    """What the vector pipes did at most: they also do integer and single-operation work (metering.md 4.2)."""
    rates = arch.rates
    return c.fp64 * rates["fp64"] + c.fp32 * rates["fp32"] + c.fp16 * rates["fp16_vector"]


def unread_flop(c: Cycles, arch: Arch, ceiling: int) -> tuple[int, int]:
    """(vector, tensor) FLOP at most of pipes nobody read: each may have been active whenever the SMs were."""
    measured = c.measured.value
    if measured & (_ALL_VECTOR | _ANY) == _ALL_VECTOR | _ANY:
        return 0, 0
    most = c.most
    vector = sum(most * arch.rates[rate] for bit, rate in _VECTOR if not measured & bit)
    return vector, 0 if measured & _ANY else max(0, most - c.hmma - c.imma - c.dmma) * ceiling


def noise_ppm(c: Cycles) -> int:
    """The most of the residual that sealing may have dropped (pipes.residual), in millionths of an SM-cycle.

    0.5 % of the elapsed cycles, where HMMA was read too, and what counters of the class may be off by in the integer
    and FP64 tensor cycles, where the SMs were active and no tensor pipe is known to have been: noise in all likelihood,
    and so in no lower or point; but what was dropped is not known to be nothing.
    """
    measured = c.measured.value
    if not measured & _ANY:
        return 0
    room = max(0, c.most - c.hmma - c.imma - c.dmma - c.tensor_other)
    noise = residual_noise(
        elapsed=c.elapsed,
        hmma_read=bool(measured & _HMMA),
        others=c.imma + c.dmma,
        mismatch_ppm=MISMATCH_PPM[c.evidence_class],
    )
    return min(noise, room * _MILLION)


def _narrowed(cycles: int, k: Calibration, lower: int, point: int, upper: int) -> tuple[int, int, int]:
    """(lower in thousandths, point, upper) of the float tensor cycles where the claim allows it."""
    work = cycles * k.flop
    low = work * (_MILLION - k.error_ppm) * _PERMILLE // (k.cycles * _MILLION)
    high = _up(work, _MILLION + k.error_ppm, k.cycles * _MILLION)
    if low > upper * _PERMILLE or high * _PERMILLE < lower:
        return lower, point, upper  # no hardware did that: the claim says nothing
    lower, upper = max(lower, low), min(upper, high)
    return lower, min(max(work // k.cycles, _up(lower, 1, _PERMILLE)), upper), upper


def _up(value: int, times: int, over: int) -> int:
    """Value x times / over, rounded up."""
    return -(-value * times // over)
