"""Why upper - lower is as wide as it is: each cause's part of the width, in exact integers that add up to it."""

from enum import StrEnum

from .evidence_class import CYCLE_ERROR_PPM, UPPER_ONLY, EvidenceClass
from .flop import MARKS, Cycles, flop, noise_ppm, unread_flop, vector_flop, weights
from .usage import Measured
from .w_table import Arch

_MILLION = 1_000_000
_UNIT = _MILLION * 1_000  # permille of W x ppm of cycles


class Cause(StrEnum):
    """What a bound is wide for. reference/metering.md section in each line."""

    DTYPE = "dtype"  # 4.2: the precision of a tensor cycle is not told
    LEGACY_MMA = "legacy-mma"  # 4.3: mma.sync keeps the pipe active at a lower rate
    HIDDEN = "hidden"  # 4.2: a pipe that was not read hides in the any-tensor counter
    NOISE = "noise"  # 4.2: a residual within the counters' noise was dropped
    VECTOR = "vector"  # 4.2: vector pipes also do other work
    UNREAD = "unread"  # 4.2: pipes that were not read at all
    CLASS = "class"  # 7.1: counter to cycles
    CLOCK = "clock"  # 3.1: the clock was sampled
    APPORTIONED = "apportioned"  # 5.2: a shared entity, split by busy time
    UPPER_ONLY = "upper-only"  # 7.1: class C and D bound from above only
    GAP = "gap"  # 6.1: nothing usable


def widths(c: Cycles, arch: Arch) -> dict[Cause, int]:
    """Each cause's part of flop(c, arch).upper - .lower; their sum is that width exactly."""
    figure = flop(c, arch)
    width = figure.upper - figure.lower
    if Measured.OTHERS in c.measured:
        return {Cause.APPORTIONED: width}
    if c.evidence_class in UPPER_ONLY:
        return {Cause.GAP if c.evidence_class is EvidenceClass.GAP else Cause.UPPER_ONLY: width}
    w = weights(arch, c.measured)
    vector, tensor = unread_flop(c, arch, w.rest_high)
    parts = {  # in 10^-9 FLOP
        Cause.DTYPE: _UNIT
        * (c.hmma * (w.hmma_high - w.hmma_full) + c.tensor_other * (w.rest_high - w.rest_full)),
        Cause.LEGACY_MMA: _MILLION
        * (
            c.hmma * (1_000 * w.hmma_full - w.hmma_low)
            + c.tensor_other * (1_000 * w.rest_full - w.rest_legacy)
        ),
        Cause.HIDDEN: _MILLION * c.tensor_other * (w.rest_legacy - w.rest_low),
        Cause.NOISE: 1_000 * noise_ppm(c) * w.rest_high,
        Cause.VECTOR: _UNIT * vector_flop(c, arch),
        Cause.UNREAD: _UNIT * (vector + tensor),
    }
    low = _MILLION * (c.hmma * w.hmma_low + c.tensor_other * w.rest_low) + _UNIT * c.dmma * w.fp64_tensor
    high = low + sum(parts.values())
    error = c.error_ppm
    widened = (high * error + low * min(error, _MILLION)) // _MILLION
    parts[Cause.CLASS] = widened * CYCLE_ERROR_PPM[c.evidence_class] // error if error else 0
    parts[Cause.CLOCK] = widened - parts[Cause.CLASS]
    if c.measured & MARKS:
        parts[Cause.APPORTIONED] = low * max(0, _MILLION - error) // _MILLION
    found = {cause: part // _UNIT for cause, part in parts.items()}
    # What rounding leaves, less than one FLOP for each part and bound, goes to the widest.
    found[max(found, key=lambda cause: found[cause])] += width - sum(found.values())
    return {cause: part for cause, part in found.items() if part}
