"""From SM-cycles to FLOP: lower <= point <= upper, in exact integers (reference/metering.md 4.2).

    lower = cycles x (1 - e) x W_lo        tensor pipes only
    point = cycles x W(declared dtype)     tensor pipes only; nothing from gaps and class C
    upper = cycles x (1 + e) x W_hi        tensor and vector pipes, plus what was not measured

e is the evidence class's half-width plus the row's clock spread. lower is rounded down, upper up.
A residual that may hide integer work (IMMA not read, on a device that has it) has no lower bound but 0.
Integer operations (imma) are kept apart, so that either reading of a law can be computed.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .evidence_class import CYCLE_ERROR_PPM, UPPER_ONLY, EvidenceClass
from .usage import Measured
from .w_table import DTYPE_RATE, Arch

_MILLION = 1_000_000
DEFAULT_RATE = "bf16"  # the point's dtype where none is declared (reference/metering.md 4.2)


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


def point_rate(arch: Arch, dtype: str) -> int:
    """FLOP per cycle of a tensor cycle under the declared dtype; BF16 where none, or none that fits."""
    name = DTYPE_RATE.get(dtype, DEFAULT_RATE)
    return arch.rates.get(name) or arch.rates[DEFAULT_RATE]


def flop(c: Cycles, arch: Arch, dtype: str = "") -> Figure:
    """Floating-point operations executed, from `c`, on `arch`, with the job's declared dtype."""
    rates = arch.rates
    low, high = arch.tensor_span()
    fp64_tensor = rates.get("fp64_tensor", 0)
    ceiling = max(high, fp64_tensor)
    error = CYCLE_ERROR_PPM[c.evidence_class] + c.spread_ppm
    if c.evidence_class in UPPER_ONLY:
        return Figure(0, 0, _scaled(_most(c) * (ceiling + _vector_rate(arch)), _MILLION + error, up=True))

    declared = point_rate(arch, dtype)
    # Where HMMA is measured, the residual is what HMMA did not see: FP8 and narrower (metering.md 4.2).
    rest = rates.get("fp8", declared) if Measured.HMMA in c.measured else declared
    lower = c.hmma * low + c.tensor_other * _residual_low(c, arch, low) + c.dmma * fp64_tensor
    point = c.hmma * declared + c.tensor_other * rest + c.dmma * fp64_tensor
    upper = c.hmma * high + c.tensor_other * ceiling + c.dmma * fp64_tensor
    upper += c.fp64 * rates["fp64"] + c.fp32 * rates["fp32"] + c.fp16 * rates["fp16_vector"]
    upper = _scaled(upper + _unmeasured(c, arch, ceiling), _MILLION + error, up=True)
    lower = _scaled(lower, max(0, _MILLION - error), up=False)
    return Figure(min(lower, point), point, max(upper, point))


def integer_ops(c: Cycles, arch: Arch) -> Figure:
    """Integer tensor operations (imma), counted apart from FLOP; the INT pipe enters the upper bound."""
    int8, int32 = arch.rates.get("int8", 0), arch.rates.get("int32", 0)
    error = CYCLE_ERROR_PPM[c.evidence_class] + c.spread_ppm
    if c.evidence_class in UPPER_ONLY:
        return Figure(0, 0, _scaled(_most(c) * (int8 + int32), _MILLION + error, up=True))
    point = upper = c.imma * int8
    if Measured.IMMA not in c.measured:
        other = Measured.TENSOR_OTHER in c.measured
        upper = (c.tensor_other if other else max(0, _most(c) - c.hmma - c.dmma)) * int8
    upper += (c.int if Measured.INT in c.measured else _most(c)) * int32
    return Figure(
        _scaled(point, max(0, _MILLION - error), up=False), point, _scaled(upper, _MILLION + error, up=True)
    )


def total(figures: Iterable[Figure]) -> Figure:
    result = ZERO
    for figure in figures:
        result += figure
    return result


def _vector_rate(arch: Arch) -> int:
    return arch.rates["fp64"] + arch.rates["fp32"] + arch.rates["fp16_vector"]


def _most(c: Cycles) -> int:
    """The most cycles that any one pipe can have been active."""
    return c.active if Measured.SM_ACTIVE in c.measured else c.elapsed


def _residual_low(c: Cycles, arch: Arch, low: int) -> int:
    """Least FLOP per residual cycle: it may hide integer or FP64 work of a pipe that nobody read."""
    if Measured.IMMA not in c.measured and "int8" in arch.rates:
        return 0
    if Measured.DMMA not in c.measured and "fp64_tensor" in arch.rates:
        return min(low, arch.rates["fp64_tensor"])
    return low


def _unmeasured(c: Cycles, arch: Arch, ceiling: int) -> int:
    """Upper bound of pipes nobody read: each may have been active whenever the SMs were."""
    most = _most(c)
    vector = ((Measured.FP64, "fp64"), (Measured.FP32, "fp32"), (Measured.FP16, "fp16_vector"))
    result = sum(most * arch.rates[rate] for bit, rate in vector if bit not in c.measured)
    if Measured.TENSOR_OTHER not in c.measured:
        result += max(0, most - c.hmma - c.imma - c.dmma) * ceiling
    return result


def _scaled(value: int, ppm: int, *, up: bool) -> int:
    return -(-value * ppm // _MILLION) if up else value * ppm // _MILLION
