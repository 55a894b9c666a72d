"""The lines that a run may come to, and what of it each counts: now, and by its plan. Pure."""

from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from flopmeter.collector.registry.entries import Declare
from flopmeter.contract.flop import ZERO, Figure, total

from .countable import Countable
from .modification import Line, line_of
from .profiles import EXECUTED
from .regimes import FLOAT_ONLY, MODIFICATION, RUN, Regime
from .rules import in_force
from .standing import Standing


class Target(NamedTuple):
    """The least whole number of FLOP that meets a line; three where the line itself has bounds."""

    lower: int
    point: int
    upper: int


class Basis(NamedTuple):
    """One way of counting a run: what of it grows towards a line."""

    counting: str  # a counting profile, or "executed"
    unit: str
    modification: bool  # without what the run modifies (law.modification)


#: What a declared budget is compared with: all that the run itself executes.
OF_BUDGET = Basis(EXECUTED, FLOAT_ONLY, modification=False)


class Met(NamedTuple):
    """A line of one regime for one run."""

    regime: Regime
    original: str  # that the run modifies; "" for a line of the run itself
    line: Line
    target: Target
    basis: Basis

    @property
    def name(self) -> str:
        return self.regime.id + (f" ({self.original})" if self.original else "")


def target(line: Fraction | int, comparison: str) -> int:
    """The least whole number that meets `line` under `>` or `>=`."""
    return ceil(line) if comparison == ">=" else floor(line) + 1


def lines_of(stands: Standing, regimes: Iterable[Regime]) -> list[Met]:
    """Every line that a regime draws for the run. Whether it is in force is another question."""
    found = []
    for r in regimes:
        if r.scope == RUN and r.has_line:
            line = Line(*(Fraction(r.threshold_flop),) * 3)
            found.append(_met(r, "", line))
        elif r.scope == MODIFICATION:
            for made in stands.modifications[r.counting]:
                at = line_of(r, made.original_flop)
                if at is not None:
                    found.append(_met(r, made.original, at))
    return found


def _met(regime: Regime, original: str, line: Line) -> Met:
    goal = Target(*(target(n, regime.comparison) for n in line))
    return Met(regime, original, line, goal, Basis(regime.counting, regime.unit, bool(original)))


def binds(regime: Regime, now_unix_ns: int, met_unix_ns: int) -> bool:
    """Whether it is in force now, and still when the line is met. One that comes into force later is asked then."""
    return in_force(regime, now_unix_ns) and in_force(regime, max(now_unix_ns, met_unix_ns))


def total_of(stands: Standing, basis: Basis) -> Figure:
    """What is counted, with what the run stands on."""
    return _counted(stands, basis)[0]


def countable_of(stands: Standing, basis: Basis) -> Countable | None:
    """What that is made of; None: all that was executed."""
    return _counted(stands, basis)[1]


def own_of(stands: Standing, basis: Basis) -> Figure:
    """Of that, what the run did itself."""
    whole, found, integers = _counted(stands, basis)
    if found is None:
        return whole
    return total(
        p.flop + p.integer_ops if integers else p.flop for p in found.parts if p.counted and not p.of
    )


def _counted(stands: Standing, basis: Basis) -> tuple[Figure, Countable | None, bool]:
    integers = basis.unit != FLOAT_ONLY
    if basis == OF_BUDGET:
        return stands.executed.flop, None, False
    if basis.modification:
        made = stands.modifications[basis.counting]
        flop, ops, found = (*made[0][2:4], made[0].countable) if made else (ZERO, ZERO, None)
    else:
        flop, ops, found = stands.by_counting[basis.counting]
    return (flop + ops if integers else flop), found, integers


class Planned(NamedTuple):
    """What a run will have come to if it does all that its plan says."""

    total: Figure
    budget: int  # what of the declared budget this way of counting counts
    stands_on: Figure  # what is counted of other runs and models


def planned(stands: Standing, declared: Declare | None, basis: Basis) -> Planned | None:
    """The plan's total; None: no budget is declared. Work done already stays done, whatever the plan says."""
    if declared is None or declared.budget_flop is None:
        return None
    total = stands.by_counting.get(basis.counting)
    profile = total.countable.profile if total is not None and total.countable is not None else None
    counts = profile is None or profile.of(declared.purpose).counted
    budget = declared.budget_flop if counts else 0
    whole, own = total_of(stands, basis), own_of(stands, basis)
    others = Figure(whole.lower - own.lower, whole.point - own.point, whole.upper - own.upper)
    mine = Figure(max(own.lower, budget), max(own.point, budget), max(own.upper, budget))
    return Planned(others + mine, budget, others)
