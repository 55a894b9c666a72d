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
#: Counters that disagree by no more: those of one GPM sample, each known to 1 % (metering.md 7.2, item 2).
CLOSE_PPM = 20_000


def residual(
    *, tensor_any: int, hmma: int | None, imma: int, dmma: int, elapsed: int, mismatch_ppm: int = CLOSE_PPM
) -> int:
    """SM-cycles that only the any-tensor counter saw, as far as they are more than noise.

    `mismatch_ppm`: by how much two counters may disagree (evidence_class.MISMATCH_PPM). So much of the integer and
    FP64 tensor cycles may be left over and mean nothing. Of HMMA's it does not matter: what is left over of it is float
    tensor work too, and the class's half-width holds it. Where counters of one sample agree closely, a residual below
    the noise is dropped and one above it is exact; elsewhere the noise is taken off it.

    `hmma` None: it was not read, and nothing else saw the float tensor cycles. The counter then stands whole but for that.
    Applied once per usage row when a window is sealed, so that the books are sums of the result.
    """
    rest = tensor_any - (hmma or 0) - imma - dmma
    off = (imma + dmma) * mismatch_ppm
    least = 0 if hmma is None else elapsed * RESIDUAL_NOISE_PPM
    if taken_off(hmma_read=hmma is not None, mismatch_ppm=mismatch_ppm):
        rest -= -(-off // 1_000_000)
    else:
        least += off
    return rest if rest * 1_000_000 >= least and rest > 0 else 0


def residual_noise(*, elapsed: int, hmma_read: bool, others: int, mismatch_ppm: int) -> int:
    """The most by which the residual may be more than `residual` says, in millionths of an SM-cycle.

    `others`: integer and FP64 tensor cycles. What they are off by may be missing, and where it was taken off, twice that.
    """
    dropped = elapsed * RESIDUAL_NOISE_PPM if hmma_read else 0
    times = 2 if taken_off(hmma_read=hmma_read, mismatch_ppm=mismatch_ppm) else 1
    return dropped + others * mismatch_ppm * times


def taken_off(*, hmma_read: bool, mismatch_ppm: int) -> bool:
    """Whether the noise is taken off a residual, or is what one is compared with."""
    return not hmma_read or mismatch_ppm > CLOSE_PPM
