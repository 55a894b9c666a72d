"""The one-third rule: a run that fine-tunes a model against a share of what the model took (regulations.md 4, 8). Pure.

The line is an exact fraction and, where the original's compute is known with bounds, has bounds itself: a
modification is past it for certain only where its lower bound is past the highest the line can be. Where the
original is not known the text's fallbacks hold, of which one is for models with systemic risk; whether the original is
one no counter can see, so that both are answered and each says of which original it speaks.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from fractions import Fraction
from typing import Any, NamedTuple

from flopmeter.collector.spelling import figure_json, threshold_text
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import current

from .accuracy import LIMIT_PERCENT, accuracy_json
from .countable import countable_json
from .events import NOT_RISK, THRESHOLD_CROSSED, THRESHOLD_UNDETERMINED, NewEvent, counting_json, law_json
from .regimes import ANY, KNOWN, MODIFICATION, Regime
from .rules import Verdict, counted, in_force, line_key
from .standing import Modification
from .thresholds import due_texts, if_known, if_met


class Line(NamedTuple):
    """Where the line of a modification lies."""

    lower: Fraction
    point: Fraction
    upper: Fraction


def known(original: Figure | None) -> bool:
    """Whether a figure can be taken a share of: a declared run that has not run yet, or is metered nowhere, has none."""
    return original is not None and original.point > 0


def line_of(regime: Regime, original: Figure | None) -> Line | None:
    """The line for a modification of `original` (None: unknown); None: the regime speaks of other originals."""
    if regime.scope != MODIFICATION:
        return None
    if regime.original != ANY and (regime.original == KNOWN) is not known(original):
        return None
    if original is None or regime.original != KNOWN:
        return Line(*(Fraction(regime.threshold_flop) * regime.share,) * 3)
    return Line(*(n * regime.share for n in (original.lower, original.point, original.upper)))


def past(flop: int, line: Fraction, regime: Regime) -> bool:
    """Whether one exact number meets the line, with the regime's own comparison."""
    return flop >= line if regime.comparison == ">=" else flop > line


def verdict(modification: Figure, line: Line, regime: Regime) -> Verdict:
    """The answer for what the modification took, as the regime counts it."""
    if past(modification.lower, line.upper, regime):
        return Verdict.CROSSED
    if past(modification.upper, line.lower, regime):
        return Verdict.UNDETERMINED
    return Verdict.BELOW


def modification_state(modification: Figure, line: Line, regime: Regime) -> tuple[Verdict, Verdict] | None:
    """(verdict, where the points lie), or None below: the condition that an event states."""
    answer = verdict(modification, line, regime)
    if answer is Verdict.BELOW:
        return None
    return answer, Verdict.CROSSED if past(modification.point, line.point, regime) else Verdict.BELOW


def modification_key(regime: Regime, run: str, original: str, answer: Verdict, estimate: Verdict) -> str:
    """As of a threshold: a crossing is one event, undetermined one per side of the point; per original, and per line."""
    if answer is Verdict.CROSSED:
        estimate = Verdict.CROSSED
    return f"modification:{regime.id}:{run}:{answer}:{estimate}:{line_key(regime)}:{original}"


def modification_events(
    made: Modification,
    regimes: Iterable[Regime],
    raised: AbstractSet[str],
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
) -> list[NewEvent]:
    """What the run must raise for having modified that model, less what `raised` (keys) has already."""
    found: list[NewEvent] = []
    for regime in regimes:
        line = line_of(regime, made.original_flop)
        if line is None or not in_force(regime, at_unix_ns):
            continue
        basis = counted(regime, made.flop, made.integer_ops)
        state = modification_state(basis, line, regime)
        if state is None:
            continue
        key = modification_key(regime, made.run, made.original, *state)
        if key not in raised:
            kind = THRESHOLD_CROSSED if state[0] is Verdict.CROSSED else THRESHOLD_UNDETERMINED
            data = _data(made, regime, state, line, at_unix_ns)
            found.append(NewEvent(key, kind, made.run, at_unix_ns, since_position, position, data))
    return found


def _data(
    made: Modification, regime: Regime, state: tuple[Verdict, Verdict], line: Line, at_unix_ns: int
) -> dict[str, Any]:
    answer, estimate = state
    basis, original = counted(regime, made.flop, made.integer_ops), made.original_flop
    due, perhaps = due_texts(regime, answer, estimate, at_unix_ns)
    return {
        "message": _message(made, regime, answer, estimate) + if_met(perhaps) + if_known(regime, due),
        "run": made.run,
        "original": made.original,
        "original_flop": figure_json(original) if original is not None and known(original) else None,
        **law_json(regime),
        **counting_json(regime),
        "verdict": answer.value,
        "estimate": estimate.value,
        "share": str(regime.share),
        "line": {"lower": str(line.lower), "point": str(line.point), "upper": str(line.upper)},
        "counted": figure_json(basis),
        "countable": None if made.countable is None else countable_json(made.countable),
        "entries": str(made.entries),
        "accuracy": {"limit_percent": LIMIT_PERCENT, **accuracy_json(basis)},
        "due": due,
        "due_if_met": perhaps,
        "met_since": None,
        **({"replaces": regime.replaces} if regime.replaces else {}),
        "w_table": current().id,
    }


def _message(made: Modification, regime: Regime, answer: Verdict, estimate: Verdict) -> str:
    of = made.original if regime.original == KNOWN else f"{threshold_text(regime.threshold_flop)} FLOP"
    line = f"{'at least' if regime.comparison == '>=' else 'more than'} {regime.share} of {of}"
    if answer is Verdict.CROSSED:
        said = f"took {line}: its lower bound is past the highest that the line can be ({regime.title})."
    elif estimate is Verdict.CROSSED:
        said = (
            f"has probably taken {line} ({regime.title}): the estimate is past the line, the bounds are not."
        )
    else:
        said = (
            f"may have taken {line} ({regime.title}): the bounds allow it, the estimate is not past the line."
        )
    return f"Run {made.run}, which modifies {made.original}, {said} {NOT_RISK}"
