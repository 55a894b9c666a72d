"""The hardware execution pipes whose active SM-cycles are the books' unit (DESIGN.md section 3)."""

from enum import StrEnum


class Pipe(StrEnum):
    """One execution pipe of an SM.

    `dmma` is the FP64 tensor pipe: max(GPM DFMA, DMMA), which count the same pipe under two names
    (reference/metering.md section 4.2). `tensor_other` is what the any-tensor counter saw beyond
    hmma, imma and dmma; see `residual`.
    """

    HMMA = "hmma"
    IMMA = "imma"
    DMMA = "dmma"
    TENSOR_OTHER = "tensor_other"
    FP64 = "fp64"
    FP32 = "fp32"
    FP16 = "fp16"
    INT = "int"


PIPES: tuple[Pipe, ...] = tuple(Pipe)

#: A residual below this share of the elapsed cycles is noise, not work: 0.5 % (reference/metering.md 4.2).
RESIDUAL_NOISE_PPM = 5_000
#: The residual is a difference of counters, each known to 1 % against its percentage (metering.md 7.2, item 2): so
#: much of the integer and FP64 tensor cycles may be left over and mean nothing. Of HMMA's it does not matter: what is
#: left over of it is float tensor work too, and the class's half-width holds it.
RESIDUAL_MISMATCH_PPM = 20_000


def residual(*, tensor_any: int, hmma: int, imma: int, dmma: int, elapsed: int) -> int:
    """SM-cycles that only the any-tensor counter saw; 0 where that is within `residual_noise`.

    Applied once per usage row when a window is sealed, so that the books are sums of the result.
    """
    rest = tensor_any - hmma - imma - dmma
    noise = residual_noise(elapsed=elapsed, imma=imma, dmma=dmma)
    return rest if rest * 1_000_000 >= noise and rest > 0 else 0


def residual_noise(*, elapsed: int, imma: int, dmma: int) -> int:
    """A residual below this is noise, not work, in millionths of an SM-cycle. Linear, so that rows add up."""
    return elapsed * RESIDUAL_NOISE_PPM + (imma + dmma) * RESIDUAL_MISMATCH_PPM
