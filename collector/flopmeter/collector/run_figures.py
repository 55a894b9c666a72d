"""What a report says of one run: figures by pipe, class and model, coverage, energy, and why so wide. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flopmeter.contract.evidence_class import CYCLE_ERROR_PPM, UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import ZERO, Cycles, Figure, flop, integer_ops, point_rate, total
from flopmeter.contract.pipes import PIPES, Pipe
from flopmeter.contract.usage import ALL_MEASURED, GapReason, Measured
from flopmeter.contract.w_table import Arch, WTable

from .books import NO_SUMS, GroupKey
from .figures import Model, Priced, cycles, tally

_INTEGER_PIPES = frozenset({Pipe.IMMA, Pipe.INT})


@dataclass(frozen=True, slots=True)
class PipeFigure:
    """One pipe's active SM-cycles and what they stand for: FLOP, or integer operations (imma, int)."""

    cycles: int
    operations: Figure
    integer: bool


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of a run: one evidence class, or one device model. Times are device time."""

    flop: Figure
    integer_ops: Figure
    duration_ns: int
    sm_elapsed_cycles: int


@dataclass(frozen=True, slots=True)
class RunFigures:
    """All that is derived from one run's groups. Times are device time: two GPUs for a second are two."""

    flop: Figure
    integer_ops: Figure
    by_pipe: Mapping[str, PipeFigure]
    by_evidence_class: Mapping[str, Part]
    by_model: Mapping[str, Part]
    gaps_ns: Mapping[GapReason, int]
    observed_ns: int
    gap_ns: int
    energy_mj: int
    energy_unmeasured_ns: int  # observed time whose energy nobody read
    sm_elapsed_cycles: int
    no_w_table: tuple[str, ...]  # device models without rates: metered in cycles
    reasons: tuple[str, ...]  # why the bounds are as wide as they are, widest first
    w_table: str

    @property
    def expected_ns(self) -> int:
        """Device time that the records give the run: all of it is either observed or a gap."""
        return self.observed_ns + self.gap_ns


def run_figures(
    groups: Mapping[GroupKey, Sequence[int]],
    models: Mapping[int, Model],
    dtypes: Mapping[int, str],
    table: WTable,
) -> RunFigures:
    """Price one run's groups and say where the figures and their width come from."""
    priced = tally(groups, dtypes).priced(models, table)
    sums = [0] * len(NO_SUMS)
    for group in priced:
        for i, number in enumerate(group.sums):
            sums[i] += number
    gaps_ns: dict[GapReason, int] = {}
    for key, numbers in groups.items():
        if key.evidence_class == EvidenceClass.GAP:
            reason = GapReason(key.gap_reason)
            gaps_ns[reason] = gaps_ns.get(reason, 0) + numbers[0]
    gap_ns = sum(gaps_ns.values())
    return RunFigures(
        flop=total(g.flop for g in priced),
        integer_ops=total(g.integer_ops for g in priced),
        by_pipe=_by_pipe(priced, models, table),
        by_evidence_class=_parts(priced, lambda g: EvidenceClass(g.key.evidence_class).label),
        by_model=_parts(priced, lambda g: models[g.key.model_no].name),
        gaps_ns=dict(sorted(gaps_ns.items(), key=lambda item: -item[1])),
        observed_ns=sums[0] - gap_ns,
        gap_ns=gap_ns,
        energy_mj=sums[-1],
        energy_unmeasured_ns=sum(
            g.sums[0]
            for g in priced
            if g.key.evidence_class != EvidenceClass.GAP and not g.key.measured & Measured.ENERGY
        ),
        sm_elapsed_cycles=sums[1],
        no_w_table=tuple(sorted({models[g.key.model_no].name for g in priced if not g.has_table})),
        reasons=width_reasons(priced, models, table),
        w_table=table.id,
    )


def _parts(priced: Iterable[Priced], name: Callable[[Priced], str]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for g in priced:
        old = parts.get(name(g), Part(ZERO, ZERO, 0, 0))
        parts[name(g)] = Part(
            old.flop + g.flop,
            old.integer_ops + g.integer_ops,
            old.duration_ns + g.sums[0],
            old.sm_elapsed_cycles + g.sums[1],
        )
    return parts


def _by_pipe(priced: Iterable[Priced], models: Mapping[int, Model], table: WTable) -> dict[str, PipeFigure]:
    """Each pipe alone, from what was measured of it; what nobody measured is in the total's upper only."""
    counted = dict.fromkeys(PIPES, 0)
    worth = dict.fromkeys(PIPES, ZERO)
    for g in priced:
        model = models[g.key.model_no]
        arch = table.arch(model.compute_capability, model.name)
        for pipe, number in zip(PIPES, g.sums[3:11], strict=True):
            counted[pipe] += number
            if arch is None or not number or g.key.evidence_class in UPPER_ONLY:
                continue
            measured = Measured(g.key.measured)
            # The residual's price depends on whether HMMA was told apart, so that bit stays as it was.
            only = Cycles(
                EvidenceClass(g.key.evidence_class),
                measured | (ALL_MEASURED & ~Measured.HMMA),
                g.key.spread_ppm,
                g.sums[1],
                **{pipe.value: number},
            )
            price = integer_ops(only, arch) if pipe in _INTEGER_PIPES else flop(only, arch, g.key.dtype)
            worth[pipe] += price
    return {p.value: PipeFigure(counted[p], worth[p], p in _INTEGER_PIPES) for p in PIPES}


def width_reasons(priced: Iterable[Priced], models: Mapping[int, Model], table: WTable) -> tuple[str, ...]:
    """Why upper - lower is as wide as it is: each cause with its share of the width, widest first."""
    widths: dict[str, int] = {}
    for g in priced:
        model = models[g.key.model_no]
        arch = table.arch(model.compute_capability, model.name)
        for cause, width in _causes(g, model, arch):
            if width > 0:
                widths[cause] = widths.get(cause, 0) + width
    whole = sum(widths.values())
    ranked = sorted(widths.items(), key=lambda item: (-item[1], item[0]))
    return tuple(f"{_share(width, whole)} of the width: {cause}" for cause, width in ranked)


def _share(width: int, whole: int) -> str:
    percent = width * 100 // whole
    return f"{percent} %" if percent else "under 1 %"


def _causes(g: Priced, model: Model, arch: Arch | None) -> Iterable[tuple[str, int]]:
    kind = EvidenceClass(g.key.evidence_class)
    if arch is None:
        yield (
            f"no W table for {model.name} ({model.compute_capability}): its cycles are priced from 0 to the best of any",
            g.flop.upper,
        )
        return
    if kind is EvidenceClass.GAP:
        yield (
            "gaps: time without a usable reading is priced from 0 to the most the device can do",
            g.flop.upper,
        )
        return
    if kind in UPPER_ONLY:
        yield (
            f"class {kind.label}: only utilisation was readable, which bounds the work from above and no more",
            g.flop.upper,
        )
        return
    c = cycles(g.key, g.sums)
    low, high = arch.tensor_span()
    tensor = c.hmma + c.tensor_other
    exact = c.dmma * arch.rates.get("fp64_tensor", 0)
    vector = c.fp64 * arch.rates["fp64"] + c.fp32 * arch.rates["fp32"] + c.fp16 * arch.rates["fp16_vector"]
    class_ppm = CYCLE_ERROR_PPM[kind]
    span = (
        f"a tensor cycle does {low} to {high} FLOP on {model.name}, depending on a precision that the counter "
        f"does not tell (declared dtype: {g.key.dtype or 'none, so bf16'}; the point takes {point_rate(arch, g.key.dtype)})"
    )
    yield span, tensor * (high - low)
    yield (
        "vector pipes (FP64, FP32, FP16) also do integer and single-operation work: in the upper bound only",
        vector,
    )
    both_ends = tensor * (high + low) + 2 * exact + vector
    for_class = both_ends * class_ppm // 1_000_000
    for_clock = both_ends * g.key.spread_ppm // 1_000_000
    yield f"class {kind.label}: counter to cycles is good to {_percent(class_ppm)}", for_class
    yield "the clock was sampled, not counted, and moved between samples", for_clock
    yield (
        f"pipes that class {kind.label} did not tell apart here may have been active whenever the SMs were",
        g.flop.upper - g.flop.lower - tensor * (high - low) - vector - for_class - for_clock,
    )


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:g} %"
