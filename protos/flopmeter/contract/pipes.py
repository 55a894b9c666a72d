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
TENSOR_PIPES = (Pipe.HMMA, Pipe.IMMA, Pipe.DMMA, Pipe.TENSOR_OTHER)
VECTOR_PIPES = (Pipe.FP64, Pipe.FP32, Pipe.FP16)

#: A residual below this share of the elapsed cycles is noise, not work: 0.5 % (reference/metering.md 4.2).
RESIDUAL_NOISE_PPM = 5_000


def residual(*, tensor_any: int, hmma: int, imma: int, dmma: int, elapsed: int) -> int:
    """SM-cycles that only the any-tensor counter saw; 0 where that is within the noise.

    Applied once per usage row when a window is sealed, so that the books are sums of the result.
    """
    rest = tensor_any - hmma - imma - dmma
    return rest if rest * 1_000_000 >= elapsed * RESIDUAL_NOISE_PPM and rest > 0 else 0
