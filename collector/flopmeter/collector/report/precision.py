"""A run's FLOP by pipe and number format. Points add up to the total, bounds to at least as wide a range. Pure."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flopmeter.collector.figures import Model, Priced
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import ZERO, Cycles, Figure, flop
from flopmeter.contract.usage import Measured
from flopmeter.contract.w_table import DTYPE_RATE, Arch, WTable

#: Of books.SUM_FIELDS: where each pipe that does floating-point work stands.
_PIPES = (("hmma", 3), ("dmma", 5), ("tensor_other", 6), ("fp64", 7), ("fp32", 8), ("fp16", 9))
_VECTOR = ("fp64", "fp32", "fp16")
#: Declared dtype -> format of the statement; what none is declared of is not known.
_FORMAT = {
    "tf32": "tf32",
    "bf16": "bf16",
    "fp16": "fp16",
    "fp8": "fp8",
    "mxfp8": "fp8",
    "fp6": "fp6",
} | dict.fromkeys(("fp4", "nvfp4", "mxfp4"), "fp4")
UNKNOWN = "unknown"
#: Time without a reading, and what pipes that nobody read may have done.
GAP, UNREAD = "gap", "unread"


class Kind(NamedTuple):
    """What one line is of."""

    pipe: str
    format: str


def by_precision(priced: Iterable[Priced], models: Mapping[int, Model], table: WTable) -> dict[Kind, Figure]:
    """Every group's figure cut into what its pipes did, sorted."""
    found: dict[Kind, Figure] = {}
    for group in priced:
        model = models[group.key.model_no]
        for kind, part in _parts(group, table.arch(model.compute_capability, model.name)):
            found[kind] = found.get(kind, ZERO) + part
    return {kind: found[kind] for kind in sorted(found) if found[kind] != ZERO}


def _parts(group: Priced, arch: Arch | None) -> Iterable[tuple[Kind, Figure]]:
    evidence_class = EvidenceClass(group.key.evidence_class)
    if evidence_class is EvidenceClass.GAP:
        yield Kind(GAP, UNKNOWN), group.flop
        return
    if arch is None or evidence_class in UPPER_ONLY:
        yield Kind(UNREAD, UNKNOWN), group.flop
        return
    measured = Measured(group.key.measured)
    point = upper = 0
    for pipe, column in _PIPES:
        number = group.sums[column]
        if not number:
            continue
        # Without elapsed cycles nothing is added for what was not read, or was dropped as noise.
        only = Cycles(evidence_class, measured, group.key.spread_ppm, elapsed=0, **{pipe: number})
        part = flop(only, arch, group.key.dtype)
        point, upper = point + part.point, upper + part.upper
        yield Kind(pipe, _format(pipe, group.key.dtype, measured, arch)), part
    yield Kind(UNREAD, UNKNOWN), Figure(0, group.flop.point - point, max(0, group.flop.upper - upper))


def _format(pipe: str, dtype: str, measured: Measured, arch: Arch) -> str:
    if pipe in _VECTOR:
        return "vector"
    if pipe == "dmma":
        return "fp64"
    whole = pipe == "hmma" or Measured.HMMA not in measured  # else it is what only the any-tensor counter saw
    if not whole or DTYPE_RATE.get(dtype, "") not in arch.hmma_holds:
        return UNKNOWN
    return _FORMAT[dtype]
