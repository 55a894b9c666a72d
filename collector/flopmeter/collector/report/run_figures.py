"""What a report says of one run: figures by pipe, class and model, coverage, energy, and why so wide. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flopmeter.collector.books import NO_SUMS, GroupKey
from flopmeter.collector.figures import Model, Priced, cycles, is_others, tally
from flopmeter.collector.registry.entries import Calibrated
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import ZERO, Cycles, Figure, flop, integer_ops, nominal_sparse, total
from flopmeter.contract.pipes import PIPES, Pipe
from flopmeter.contract.usage import GapReason, Measured
from flopmeter.contract.w_table import WTable

from .precision import Kind, by_precision
from .reasons import Reason, reasons
from .unreported import NOTHING, Unreported

_INTEGER_PIPES = frozenset({Pipe.IMMA, Pipe.INT})


@dataclass(frozen=True, slots=True)
class PipeFigure:
    """One pipe's active SM-cycles and what they stand for: FLOP, or integer operations (imma, int).

    The cycles are the run's own; the operations' upper bound has in it what other holders of a shared GPU did.
    """

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

    flop: Figure  # with what silent agents may have done unreported, in its upper bound
    #: Bounds as if each declared dtype were true of its job's tensor work; None where none is declared.
    flop_if_declared: Figure | None
    #: Bounds and point as if the run's calibration were true; None where none is claimed, or no GPU of it can have done that.
    flop_if_calibrated: Figure | None
    integer_ops: Figure
    nominal_sparse_flop: int  # the upper bound, had all tensor work been 2:4 sparse; in no figure
    by_pipe: Mapping[str, PipeFigure]
    by_precision: Mapping[Kind, Figure]  # by pipe and number format, with gaps and what nobody read
    by_evidence_class: Mapping[str, Part]
    by_model: Mapping[str, Part]
    gaps_ns: Mapping[GapReason, int]
    observed_ns: int
    gap_ns: int
    energy_mj: int
    energy_unmeasured_ns: int  # observed time whose energy nobody read
    sm_elapsed_cycles: int
    no_w_table: tuple[str, ...]  # device models without rates: metered in cycles
    apportioned_ns: int  # of a shared entity: this run's share of its time
    booked_flop: Figure  # `flop` and `integer_ops` of the records alone, which is what events are raised by
    booked_integer_ops: Figure
    unreported_ns: int  # device time of silent agents that the run held when they were last heard
    unreported_flop: Figure
    reasons: tuple[Reason, ...]  # why the bounds are as wide as they are, widest first; they add up to it
    w_table: str

    @property
    def expected_ns(self) -> int:
        """Device time of the run: observed, a gap in the records, or not reported by an agent that fell silent."""
        return self.observed_ns + self.gap_ns + self.unreported_ns


def run_figures(
    groups: Mapping[GroupKey, Sequence[int]],
    models: Mapping[int, Model],
    dtypes: Mapping[int, str],
    table: WTable,
    unreported: Unreported = NOTHING,
    *,
    calibration: Calibrated | None = None,
) -> RunFigures:
    """Price one run's groups, and what silent agents owe of it; say where the figures and their width come from."""
    booked = tally(groups, dtypes).priced(models, table)
    owed = unreported.tally.priced(models, table)
    priced = booked + owed
    sums = [0] * len(NO_SUMS)
    for group in priced:
        for i, number in enumerate(
            group.sums
        ):  # what others did has no time, no elapsed cycles and no energy
            sums[i] += number
    gaps_ns: dict[GapReason, int] = {}
    for key, numbers in groups.items():
        if key.evidence_class == EvidenceClass.GAP and not is_others(key.measured):
            reason = GapReason(key.gap_reason)
            gaps_ns[reason] = gaps_ns.get(reason, 0) + numbers[0]
    gap_ns = sum(gaps_ns.values())
    return RunFigures(
        flop=total(g.flop for g in priced),
        flop_if_declared=_if_declared(priced, models, table),
        flop_if_calibrated=_if_calibrated(priced, models, table, calibration),
        integer_ops=total(g.integer_ops for g in priced),
        nominal_sparse_flop=_nominal_sparse(priced, models, table),
        by_pipe=_by_pipe(booked, models, table),
        by_precision=by_precision(priced, models, table),
        by_evidence_class=_parts(
            sorted(priced, key=lambda g: g.key.evidence_class),
            lambda g: EvidenceClass(g.key.evidence_class).label,
        ),
        by_model=_parts(priced, lambda g: models[g.key.model_no].name),
        gaps_ns=dict(sorted(gaps_ns.items(), key=lambda item: -item[1])),
        observed_ns=sums[0] - gap_ns - unreported.duration_ns,
        gap_ns=gap_ns,
        energy_mj=sums[-1],
        energy_unmeasured_ns=sum(
            g.sums[0]
            for g in priced
            if g.key.evidence_class != EvidenceClass.GAP and not g.key.measured & Measured.ENERGY
        ),
        sm_elapsed_cycles=sums[1],
        no_w_table=tuple(sorted({models[g.key.model_no].name for g in priced if not g.has_table})),
        apportioned_ns=sum(g.sums[0] for g in priced if g.key.measured & Measured.APPORTIONED),
        booked_flop=total(g.flop for g in booked),
        booked_integer_ops=total(g.integer_ops for g in booked),
        unreported_ns=unreported.duration_ns,
        unreported_flop=total(g.flop for g in owed),
        reasons=reasons(booked, models, table, (unreported.said, owed)),
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
            if not is_others(g.key.measured):
                counted[pipe] += number
            if arch is None or not number or g.key.evidence_class in UPPER_ONLY:
                continue
            # Without elapsed cycles nothing is added for what was not read, or was dropped as noise.
            only = Cycles(
                EvidenceClass(g.key.evidence_class),
                Measured(g.key.measured),
                g.key.spread_ppm,
                elapsed=0,
                **{pipe.value: number},
            )
            price = integer_ops(only, arch) if pipe in _INTEGER_PIPES else flop(only, arch, g.key.dtype)
            worth[pipe] += price
    return {p.value: PipeFigure(counted[p], worth[p], p in _INTEGER_PIPES) for p in PIPES}


def _if_declared(priced: Sequence[Priced], models: Mapping[int, Model], table: WTable) -> Figure | None:
    if not any(g.key.dtype for g in priced):
        return None
    result = ZERO
    for g in priced:
        model = models[g.key.model_no]
        arch = table.arch(model.compute_capability, model.name)
        if arch is None or not g.key.dtype:
            result += g.flop
        else:
            result += flop(cycles(g.key, g.sums), arch, g.key.dtype, trusted=True)
    return result


def _if_calibrated(
    priced: Sequence[Priced], models: Mapping[int, Model], table: WTable, claim: Calibrated | None
) -> Figure | None:
    """As `flop` narrows them on the claim's model; what lies elsewhere, and what has no point, keeps its bounds."""
    result, used = ZERO, False
    for g in priced:
        model = models[g.key.model_no]
        arch = table.arch(model.compute_capability, model.name)
        if claim is None or arch is None or model.name != claim.model or not claim.counts.fits(arch):
            result += g.flop
        else:
            used = used or g.key.evidence_class not in UPPER_ONLY
            result += flop(cycles(g.key, g.sums), arch, g.key.dtype, calibration=claim.counts)
    return result if used else None


def _nominal_sparse(priced: Iterable[Priced], models: Mapping[int, Model], table: WTable) -> int:
    result = 0
    for g in priced:
        model = models[g.key.model_no]
        arch = table.arch(model.compute_capability, model.name)
        result += g.flop.upper if arch is None else nominal_sparse(cycles(g.key, g.sums), arch)
    return result
