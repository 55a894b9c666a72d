"""From the books' sums to one run's FLOP with bounds (run_figures.py has what its report adds). Pure.

A `Tally` adds a run's groups into the few that share all that the derivation depends on (device model,
evidence class, what was measured, clock spread, dtype); the derivation is linear in each, so it costs the
same after a year as after a minute, and rounding happens once per merged group, not once per row.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import add
from typing import NamedTuple

from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import ZERO, Cycles, Figure, flop, integer_ops
from flopmeter.contract.usage import Measured
from flopmeter.contract.w_table import WTable

from .books import GroupKey, Sums


class Model(NamedTuple):
    """A device model as inventories name it: what the W table is asked for."""

    name: str
    compute_capability: str


def is_others(measured: int) -> bool:
    """Whether a group is what other holders of a shared entity did: in the upper bound, in nothing else."""
    return bool(measured & Measured.OTHERS)


class PriceKey(NamedTuple):
    """What a price depends on. Workloads, MIG cuts and gap reasons are merged under it."""

    model_no: int
    evidence_class: int
    measured: int
    spread_ppm: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Priced:
    """One merged group, priced."""

    key: PriceKey
    sums: tuple[int, ...]  # books.SUM_FIELDS order
    flop: Figure
    integer_ops: Figure
    has_table: bool  # False: no W table for the model; lower and point are 0


class Tally:
    """One run's sums, merged for pricing; add rows as they come, price when asked."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[PriceKey, Sums] = {}

    def add(self, key: GroupKey, dtype: str, numbers: Iterable[int]) -> None:
        """Add numbers (books.SUM_FIELDS order) of a group whose workload declared `dtype`."""
        price_key = PriceKey(key.model_no, key.evidence_class, key.measured, key.spread_ppm, dtype)
        sums = self._sums.get(price_key)
        if sums is None:
            self._sums[price_key] = list(numbers)
        else:
            for i, number in enumerate(numbers):
                sums[i] += number

    def include(self, other: "Tally") -> None:
        """Add all of another one."""
        for key, numbers in other._sums.items():  # noqa: SLF001
            sums = self._sums.get(key)
            self._sums[key] = list(numbers) if sums is None else list(map(add, sums, numbers))

    def priced(self, models: Mapping[int, Model], table: WTable) -> list[Priced]:
        return [price(key, sums, models[key.model_no], table) for key, sums in sorted(self._sums.items())]

    def figures(self, models: Mapping[int, Model], table: WTable) -> tuple[Figure, Figure]:
        """(FLOP executed, integer operations executed)."""
        flops, ops = ZERO, ZERO
        for group in self.priced(models, table):
            flops += group.flop
            ops += group.integer_ops
        return flops, ops


def tally(groups: Mapping[GroupKey, Iterable[int]], dtypes: Mapping[int, str]) -> Tally:
    """The tally of one run's groups; `dtypes` by workload number, absent = none declared."""
    result = Tally()
    for key, numbers in groups.items():
        result.add(key, dtypes.get(key.workload_no, ""), numbers)
    return result


def cycles(key: PriceKey, sums: Iterable[int]) -> Cycles:
    """The contract's Cycles of one merged group."""
    _, elapsed, active, hmma, imma, dmma, other, fp64, fp32, fp16, int_, _ = sums
    return Cycles(
        evidence_class=EvidenceClass(key.evidence_class),
        measured=Measured(key.measured),
        spread_ppm=key.spread_ppm,
        elapsed=elapsed,
        active=active,
        hmma=hmma,
        imma=imma,
        dmma=dmma,
        tensor_other=other,
        fp64=fp64,
        fp32=fp32,
        fp16=fp16,
        int=int_,
    )


def price(key: PriceKey, sums: Iterable[int], model: Model, table: WTable) -> Priced:
    """One merged group's FLOP and integer operations."""
    return pricer(key, model, table)(sums)


def pricer(key: PriceKey, model: Model, table: WTable) -> Callable[[Iterable[int]], Priced]:
    """The same, of sums upon sums of one key."""
    arch = table.arch(model.compute_capability, model.name)

    def priced(sums: Iterable[int]) -> Priced:
        numbers = tuple(sums)
        c = cycles(key, numbers)
        if arch is None:
            return Priced(key, numbers, *_without_table(c, table), has_table=False)
        return Priced(key, numbers, flop(c, arch, key.dtype), integer_ops(c, arch), has_table=True)

    return priced


def _without_table(c: Cycles, table: WTable) -> tuple[Figure, Figure]:
    """A model that the table lacks: nothing is claimed done, and nothing up to the table's best ruled out.

    Like a gap (DESIGN.md principle 2): from 0 to the highest rate of any listed architecture, so that an
    unknown device can make a threshold undetermined but can never make it look met, or safely below.
    """
    most = c.active if Measured.SM_ACTIVE in c.measured else c.elapsed
    bound = Cycles(EvidenceClass.GAP, Measured(0), 0, elapsed=most)
    archs = [arch for arch in table.archs if arch.rates]
    return (
        Figure(0, 0, max((flop(bound, arch).upper for arch in archs), default=0)),
        Figure(0, 0, max((integer_ops(bound, arch).upper for arch in archs), default=0)),
    )
