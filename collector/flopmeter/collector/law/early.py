"""The early line: a run that comes near a threshold (reference/regulations.md section 13, item 10). Pure.

By default at limit/1.3: where a method that reads 30 % too low would already be past the limit. Told by the point, and
before that by the upper bound: a run of which little is known may be nearer than it looks. Of several parts of the
limit only the greatest that is met is told: it implies the others.
"""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from fractions import Fraction
from typing import Any

from flopmeter.collector.spelling import figure_json
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import current

from .accuracy import LIMIT_PERCENT, accuracy_json
from .countable import countable_json
from .events import NOT_RISK, THRESHOLD_APPROACHING, NewEvent
from .lines import Met, countable_of, lines_of, target, total_of
from .regimes import Regime
from .rules import in_force, line_key
from .standing import Standing

APPROACHING_PREFIX = "approaching:"
POINT = "point"
UPPER = "upper"


def early_events(
    stands: Standing,
    regimes: Iterable[Regime],
    raised: AbstractSet[str],
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
) -> list[NewEvent]:
    """What the run must be warned of where it stands, less what `raised` (keys) has already."""
    found = []
    for met in lines_of(stands, [r for r in regimes if in_force(r, at_unix_ns)]):
        basis = total_of(stands, met.basis)
        for part, by in early_state(basis, met):
            key = early_key(met.regime, stands.run, part, by, met.original)
            if key not in raised:
                data = _data(stands, met, basis, part, by)
                found.append(
                    NewEvent(
                        key, THRESHOLD_APPROACHING, stands.run, at_unix_ns, since_position, position, data
                    )
                )
    return found


def early_state(basis: Figure, met: Met) -> Iterator[tuple[Fraction, str]]:
    """(part of the line, by which figure) that holds: nothing of a line that is met for certain; by the upper bound
    nothing where that is past the line itself, which is said as threshold.undetermined.
    """
    if basis.lower >= met.target.upper:
        return
    by_point = _greatest(basis.point, met, met.line.point) if basis.point < met.target.point else None
    if by_point is not None:
        yield by_point, POINT
    if basis.upper < met.target.lower:
        by_upper = _greatest(basis.upper, met, met.line.lower)
        if by_upper is not None and (by_point is None or by_upper > by_point):
            yield by_upper, UPPER


def _greatest(flop: int, met: Met, line: Fraction) -> Fraction | None:
    parts = [p for p in met.regime.early if flop >= target(p * line, met.regime.comparison)]
    return max(parts, default=None)


def early_key(regime: Regime, run: str, part: Fraction, by: str, original: str = "") -> str:
    """One per run, regime, line, part of it and figure (and original, of a modification)."""
    key = f"{APPROACHING_PREFIX}{regime.id}:{run}:{part}:{by}:{line_key(regime)}"
    return key + (f":{original}" if original else "")


def _data(stands: Standing, met: Met, basis: Figure, part: Fraction, by: str) -> dict[str, Any]:
    regime, found = met.regime, countable_of(stands, met.basis)
    may = "has" if by == POINT else "may have"
    said = f"{may} come to {part} of the line of {regime.title}"
    if part == Fraction(100, 100 + LIMIT_PERCENT):
        said += f", where an error of {LIMIT_PERCENT} % could hide that it is met"
    return {
        "message": f"Run {stands.run} {said}. {NOT_RISK}",
        "run": stands.run,
        "regime": regime.id,
        "citation": regime.citation,
        "original": met.original or None,
        "part": str(part),
        "by": by,
        "threshold_flop": str(regime.threshold_flop),
        "line": {"lower": str(met.line.lower), "point": str(met.line.point), "upper": str(met.line.upper)},
        "comparison": regime.comparison,
        "unit": regime.unit,
        "counting": regime.counting,
        "counted": figure_json(basis),
        "accuracy": {"limit_percent": LIMIT_PERCENT, **accuracy_json(basis)},
        "flop": figure_json(stands.executed.flop),
        "integer_ops": figure_json(stands.executed.integer_ops),
        "countable": None if found is None else countable_json(found),
        "entries": str(stands.entries),
        "act": regime.act,
        "when_met": regime.when_met,
        "note": NOT_RISK,
        "regime_version": regime.version,
        "regime_digest": regime.digest,
        "w_table": current().id,
    }
