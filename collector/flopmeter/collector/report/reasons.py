"""Why a run's bounds are as wide as they are, in words, each cause with its share of the width. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flopmeter.collector.figures import Model, Priced, cycles
from flopmeter.contract.evidence_class import CYCLE_ERROR_PPM, EvidenceClass
from flopmeter.contract.flop import point_rate
from flopmeter.contract.usage import Measured
from flopmeter.contract.w_table import Arch, WTable
from flopmeter.contract.width import Cause, widths

NO_TABLE = "no-w-table"
UNREPORTED = "unreported"


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause of the width, and how much of it, in FLOP. `cause` is stable; `text` is for people."""

    cause: str
    text: str
    flop: int
    width: int  # of the whole run

    @property
    def share(self) -> str:
        percent = self.flop * 100 // self.width
        return f"{percent} %" if percent else "under 1 %"

    def __str__(self) -> str:
        return f"{self.share} of the width: {self.text}"


def reasons(
    priced: Iterable[Priced],
    models: Mapping[int, Model],
    table: WTable,
    unreported: tuple[str, Iterable[Priced]] = ("", ()),
) -> tuple[Reason, ...]:
    """Widest first. Their FLOP add up to upper - lower of all of `priced` and `unreported`, to the last one.

    `unreported`: what is said of the time that silent agents have not reported, and that time, priced.
    """
    found: dict[tuple[str, str], int] = {}
    said, owed = unreported
    for g in owed:
        found[UNREPORTED, said] = found.get((UNREPORTED, said), 0) + g.flop.upper - g.flop.lower
    for g in priced:
        model = models[g.key.model_no]
        arch = table.arch(model.compute_capability, model.name)
        if arch is None:
            text = f"no W table for {model.name} ({model.compute_capability}): its cycles are priced from 0 to the best of any"
            parts = {(NO_TABLE, text): g.flop.upper - g.flop.lower}
        else:
            by_cause = widths(cycles(g.key, g.sums), arch)
            parts = {(cause.value, _text(cause, g, model, arch)): flop for cause, flop in by_cause.items()}
        for key, flop in parts.items():
            found[key] = found.get(key, 0) + flop
    whole = sum(found.values())
    ranked = sorted(((flop, *key) for key, flop in found.items() if flop), key=lambda r: (-r[0], *r[1:]))
    return tuple(Reason(cause, text, flop, whole) for flop, cause, text in ranked)


def _text(cause: Cause, g: Priced, model: Model, arch: Arch) -> str:
    kind = EvidenceClass(g.key.evidence_class)
    if cause is Cause.DTYPE:
        low, high = arch.tensor_span()
        said = g.key.dtype or "none, so bf16"
        return (
            f"a tensor cycle does {low} to {high} FLOP on {model.name}, depending on a precision that the counter "
            f"does not tell (declared dtype: {said}; the point takes {point_rate(arch, g.key.dtype)})"
        )
    if cause is Cause.LEGACY_MMA:
        return (
            f"legacy mma.sync keeps a tensor pipe of {model.name} active at {arch.legacy_mma_permille / 10:g} % of its "
            f"rate or more ({arch.known['legacy_mma_permille']}), and the counter does not tell it from wgmma"
        )
    if cause is Cause.HIDDEN:
        unread = [
            n for b, n in ((Measured.IMMA, "integer"), (Measured.DMMA, "FP64")) if not g.key.measured & b
        ]
        return (
            f"class {kind.label}: {' and '.join(unread)} tensor work was not read apart and may be all that the "
            "any-tensor counter saw"
        )
    if cause is Cause.CLASS:
        return f"class {kind.label}: counter to cycles is good to {CYCLE_ERROR_PPM[kind] / 10_000:g} %"
    if cause is Cause.UNREAD:
        return f"pipes that class {kind.label} did not read here may have been active whenever the SMs were"
    if cause is Cause.UPPER_ONLY:
        return (
            f"class {kind.label}: only utilisation was readable, which bounds the work from above and no more"
        )
    return _TEXT[cause]


_TEXT = {
    Cause.NOISE: "what only the any-tensor counter saw is dropped as noise below 0.5 % of the cycles (more beside "
    "integer and FP64 tensor work): in the upper bound only",
    Cause.VECTOR: "vector pipes (FP64, FP32, FP16) also do integer and single-operation work: in the upper bound only",
    Cause.CLOCK: "the clock was sampled, not counted, and moved between samples",
    Cause.APPORTIONED: "shared GPUs: counters are per device; what several workloads held in one interval is apportioned "
    "among them, and this run may have done from none to all of it",
    Cause.GAP: "gaps: time without a usable reading is priced from 0 to the most the device can do",
}
