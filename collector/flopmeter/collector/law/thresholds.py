"""Events of thresholds: a run has met a regime's line, or it cannot be told whether it has. Pure."""

import json
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from flopmeter.collector.spelling import figure_json, threshold_text, time_text
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.w_table import current

from .accuracy import LIMIT_PERCENT, accuracy_json
from .countable import countable_json
from .deadline_rules import KNOWN
from .events import NOT_RISK, THRESHOLD_CROSSED, THRESHOLD_UNDETERMINED, NewEvent, counting_json, law_json
from .regimes import RUN, Regime, due_after_ns
from .rules import Verdict, counted, in_force, line_key, meets, verdict
from .standing import Standing

THRESHOLD_PREFIX = "threshold:"
_WITHOUT_LINE = (f":{Verdict.CROSSED}", f":{Verdict.BELOW}")


def threshold_events(
    stands: Standing,
    regimes: Iterable[Regime],
    raised: AbstractSet[str],
    *,
    at_unix_ns: int,
    since_position: int,
    position: int,
) -> list[NewEvent]:
    """What a run must raise where it stands now, less what `raised` (keys) has already.

    `at_unix_ns` dates the event and decides which regimes are in force; one that is not raises nothing.
    Idle and unattributed time (run "") is no training run and raises nothing.
    """
    found: list[NewEvent] = []
    run = stands.run
    if not run:
        return found
    for regime in regimes:
        if regime.scope != RUN:
            continue
        total = stands.of(regime)
        state = threshold_state(total.flop, regime, total.integer_ops)
        if state is None or not in_force(regime, at_unix_ns):
            continue
        answer, estimate = state
        key = threshold_key(regime, run, answer, estimate)
        if key not in raised:
            data = _threshold_data(stands, regime, state, at_unix_ns=at_unix_ns)
            kind = THRESHOLD_CROSSED if answer is Verdict.CROSSED else THRESHOLD_UNDETERMINED
            found.append(NewEvent(key, kind, run, at_unix_ns, since_position, position, data))
    return found


def threshold_state(
    figure: Figure, regime: Regime, integer_ops: Figure = ZERO
) -> tuple[Verdict, Verdict] | None:
    """(verdict, where the point lies), or None below: the condition that a threshold event states."""
    basis = counted(regime, figure, integer_ops)
    answer = verdict(basis, regime)
    if answer is Verdict.BELOW:
        return None
    return answer, Verdict.CROSSED if meets(basis.point, regime) else Verdict.BELOW


def threshold_key(regime: Regime, run: str, answer: Verdict, estimate: Verdict) -> str:
    """A crossing is one event, wherever the point lay; undetermined is one per side of the point. Of another line it is
    another event: a law whose number is raised can be met again.
    """
    if answer is Verdict.CROSSED:
        estimate = Verdict.CROSSED
    return f"{THRESHOLD_PREFIX}{regime.id}:{run}:{answer}:{estimate}:{line_key(regime)}"


def current_key(key: str, data: str | None) -> str:
    """An event's key as it would be made today: flopmeter 0.1.0 made those of thresholds without the line."""
    if not key.startswith(THRESHOLD_PREFIX) or not key.endswith(_WITHOUT_LINE) or data is None:
        return key
    said = json.loads(data)
    return f"{key}:{said['comparison']}{threshold_text(int(said['threshold_flop']))}"


def _threshold_data(
    stands: Standing, regime: Regime, state: tuple[Verdict, Verdict], *, at_unix_ns: int
) -> dict[str, Any]:
    answer, estimate = state
    run, total = stands.run, stands.of(regime)
    basis = counted(regime, total.flop, total.integer_ops)
    due, perhaps = due_texts(regime, answer, estimate, at_unix_ns)
    return {
        "message": _message(stands, regime, answer, estimate) + if_met(perhaps) + if_known(regime, due),
        "run": run,
        **law_json(regime),
        **counting_json(regime),
        "verdict": answer.value,
        "estimate": estimate.value,
        "threshold_flop": str(regime.threshold_flop),
        "counted": figure_json(basis),
        "accuracy": {"limit_percent": LIMIT_PERCENT, **accuracy_json(basis)},
        "flop": figure_json(stands.executed.flop),
        "integer_ops": figure_json(stands.executed.integer_ops),
        "countable": None if total.countable is None else countable_json(total.countable),
        "entries": str(stands.entries),
        "due": due,
        "due_if_met": perhaps,
        "met_since": None,
        **({"replaces": regime.replaces} if regime.replaces else {}),
        "w_table": current().id,
    }


def due_texts(
    regime: Regime, answer: Verdict, estimate: Verdict, at_unix_ns: int
) -> tuple[str | None, str | None]:
    """(when the first thing is due that meeting the line starts; when it were, if the estimate is right and is past it).

    The second starts no clock here: whether a best estimate is knowledge is for a person to say.
    """
    after_ns = due_after_ns(regime)
    if after_ns is None or estimate is not Verdict.CROSSED:
        return None, None
    text = time_text(at_unix_ns + after_ns)
    return (text, None) if answer is Verdict.CROSSED else (None, text)


def if_met(due: str | None) -> str:
    """What a message says of a clock that may be running."""
    return "" if due is None else f" If the estimate is right, what is due runs from now, to {due}."


def if_known(regime: Regime, due: str | None) -> str:
    """What the message of a crossing says of a clock that a plan or a forecast may have started: `due` is the latest."""
    if due is None or not any(rule.trigger == KNOWN for rule in regime.deadlines):
        return ""
    return " Where it was known before that it would be, what is due runs since then, and is due sooner than said here."


def _message(stands: Standing, regime: Regime, answer: Verdict, estimate: Verdict) -> str:
    line = threshold_text(regime.threshold_flop)
    past = f"at or above {line}" if regime.comparison == ">=" else f"above {line}"
    if answer is Verdict.CROSSED:
        said = f"executed {past} FLOP: even the lower bound is past the line of {regime.title}."
    elif estimate is Verdict.CROSSED:
        said = f"has probably executed {past} FLOP ({regime.title}): the estimate is past the line, the lower bound is not."
    else:
        said = f"may have executed {past} FLOP ({regime.title}): the upper bound is past the line, the estimate is not."
    found = stands.of(regime).countable
    names = [] if found is None else sorted({p.of for p in found.parts if p.of and p.counted})
    stood_on = f", with what it stands on ({_few(names)})," if names else ""
    left = " What that law leaves out is not in it." if found is not None and found.left_out else ""
    return f"Run {stands.run}{stood_on} {said}{left} {NOT_RISK}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
