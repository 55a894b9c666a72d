"""Events of plans and forecasts: known that it will be met, and a plan that is exceeded. Pure.

Each is raised once for a run, a regime and a basis; a later forecast that says otherwise takes none back. It rests on
one kept forecast, or on the plan as declared, and carries the figures that it was raised by.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from fractions import Fraction
from typing import Any, NamedTuple

from flopmeter.cli.output import lower_text
from flopmeter.collector.law.events import (
    NOT_RISK,
    PLAN_EXCEEDS,
    THRESHOLD_FORECAST,
    NewEvent,
    counting_json,
    law_json,
)
from flopmeter.collector.law.lines import Met, binds, lines_of, planned, total_of
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import line_key
from flopmeter.collector.law.standing import Standing
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.spelling import figure_json, threshold_text, time_text

from .document import CROSSED, WILL, Document, plan_entries

FORECAST_PREFIX = "forecast:"
PLAN_PREFIX = "plan:"
#: What it became known by.
BY_PLAN = "plan"
BY_FORECAST = "forecast"
MEASURED = "measured"

#: How sentences say figures; the exact ones stand beside them. Budgets too are rounded down, as the lower bounds that they
#: are held against: of two that are said alike neither looks like the greater one.
Say = Callable[[int], str]
SAY: Say = lower_text


class When(NamedTuple):
    """The commit that raises: its clock, and the position that the books stand at with it."""

    unix_ns: int
    position: int


def known_key(basis: str, regime: Regime, run: str, original: str) -> str:
    """One per run, regime, line and basis (and original, of a modification)."""
    key = f"{FORECAST_PREFIX}{regime.id}:{run}:{basis}:{line_key(regime)}"
    return key + (f":{original}" if original else "")


def plan_key(run: str, budget_flop: str, basis: str) -> str:
    """One per plan: a budget that is raised, and exceeded again, is another."""
    return f"{PLAN_PREFIX}{budget_flop}:{run}:{basis}"


# ---- by plan -------------------------------------------------------------------------------------


def known_by_plan(
    stands: Standing,
    registry: Registry,
    regimes: Iterable[Regime],
    raised: AbstractSet[str],
    *,
    when: When,
    table: str,
    say: Say = SAY,
) -> list[NewEvent]:
    """What a declared budget makes known, before the run has begun or while it runs; less what is `raised`.

    What the lower bound has met already is no longer to be foreseen: that is a crossing.
    """
    declared = registry.declared(stands.run)
    found: list[NewEvent] = []
    for met in lines_of(stands, regimes):
        plan = planned(stands, declared, met.basis)
        key = known_key(BY_PLAN, met.regime, stands.run, met.original)
        if plan is None or declared is None or key in raised or plan.total.lower < met.target.upper:
            continue
        end = declared.expected_end_unix_ns or when.unix_ns
        if not binds(met.regime, when.unix_ns, end) or _crossed(stands, met):
            continue
        data = {
            "message": f"Run {stands.run} will meet {_line(met.regime, met.original)} by its plan: "
            f"{say(plan.budget)} FLOP are declared{_with(plan.stands_on.lower, say)}, which come to "
            f"{say(plan.total.lower)} at least. {NOT_RISK}",
            "basis": BY_PLAN,
            **_law(met.regime, met.original, met.line),
            "run": stands.run,
            "planned": figure_json(plan.total),
            "plan": _plan(declared, registry, stands.run),
            "counted_of_budget": str(plan.budget),
            "stands_on": figure_json(plan.stands_on),
            "entries": str(len(registry.entries)),
            "w_table": table,
        }
        found.append(
            NewEvent(key, THRESHOLD_FORECAST, stands.run, when.unix_ns, when.position, when.position, data)
        )
    return found


def _with(others: int, say: Say) -> str:
    return f", with {say(others)} of what it stands on" if others > 0 else ""


def _crossed(stands: Standing, met: Met) -> bool:
    return total_of(stands, met.basis).lower >= met.target.upper


def _plan(declared: Declare, registry: Registry, run: str) -> dict[str, Any]:
    end = declared.expected_end_unix_ns
    return {
        "budget_flop": None if declared.budget_flop is None else str(declared.budget_flop),
        "expected_end": None if end is None else time_text(end),
        "entries": [e.number for e in plan_entries(registry, run)],
    }


# ---- by forecast ---------------------------------------------------------------------------------


def forecast_events(
    forecast_no: int,
    document: Document,
    regimes: Mapping[str, Regime],
    raised: AbstractSet[str],
    when: When,
    *,
    say: Say = SAY,
) -> list[NewEvent]:
    """What a forecast makes known, less what is `raised`. `regimes` by id: those that the run is judged by."""
    found: list[NewEvent] = []
    for line in document["lines"]:
        if line["regime"] is None:
            found += _exceeds(forecast_no, document, line, raised, when, say=say)
        elif line["answer"] == WILL and line["regime"] in regimes:
            regime = regimes[line["regime"]]
            key = known_key(BY_FORECAST, regime, document["run"], line["original"] or "")
            latest = int(line["crosses"]["latest"])
            if key not in raised and binds(regime, when.unix_ns, latest):
                data = _known(forecast_no, document, line, regime)
                found.append(
                    NewEvent(
                        key,
                        THRESHOLD_FORECAST,
                        document["run"],
                        when.unix_ns,
                        when.position,
                        when.position,
                        data,
                    )
                )
    return found


def _known(forecast_no: int, document: Document, line: Mapping[str, Any], regime: Regime) -> dict[str, Any]:
    run, crosses = document["run"], _times(line["crosses"])
    fractions = {name: Fraction(text) for name, text in line["line"].items()}
    series = _series_of(document, line)
    return {
        "message": f"Run {run} will meet {_line(regime, line['original'] or '')} if it goes on like this: about "
        f"{_day(crosses['point'])}, between {_day(crosses['earliest'])} and {_day(crosses['latest'])} "
        f"({document['confidence_percent']} % interval, of which even the lower edge meets it by "
        f"{_day(time_text(int(document['until'])))}). {NOT_RISK}",
        "basis": BY_FORECAST,
        **_law(regime, line["original"] or "", fractions.values()),
        "run": run,
        "forecast": str(forecast_no),
        "method": document["method"],
        "confidence_percent": document["confidence_percent"],
        "until": time_text(int(document["until"])),
        "crosses": crosses,
        "counted": series["total"],
        "projected": series["projected"],
        "flop_per_hour": series["flop_per_hour"],
        "plan": _kept_plan(document),
        "entries": str(document["entries"]),
        "w_table": document["w_table"],
    }


def _exceeds(
    forecast_no: int,
    document: Document,
    line: Mapping[str, Any],
    raised: AbstractSet[str],
    when: When,
    *,
    say: Say,
) -> Iterator[NewEvent]:
    """The run has done more than its plan, or will have: each once per plan."""
    if line["answer"] not in (CROSSED, WILL):
        return
    run, budget = document["run"], line["line"]["point"]
    basis = MEASURED if line["answer"] == CROSSED else BY_FORECAST
    key = plan_key(run, budget, basis)
    if key in raised:
        return
    series = _series_of(document, line)
    if basis == MEASURED:
        said = f"has executed more than its declared {say(int(budget))} FLOP: {say(int(series['total']['lower']))} at least."
    else:
        said = (
            f"will have executed more than its declared {say(int(budget))} FLOP by {_day(time_text(int(document['until'])))}, "
            f"if it goes on like this: {say(int(series['projected']['lower']))} at least "
            f"({document['confidence_percent']} % interval)."
        )
    data = {
        "message": f"Run {run} {said} Declare what is planned now, or look for work that is not this run's.",
        "basis": basis,
        "run": run,
        "budget_flop": budget,
        "forecast": str(forecast_no),
        "method": document["method"],
        "confidence_percent": document["confidence_percent"],
        "until": time_text(int(document["until"])),
        "crosses": None if line["crosses"] is None else _times(line["crosses"]),
        "executed": series["total"],
        "projected": series["projected"],
        "plan": _kept_plan(document),
        "entries": str(document["entries"]),
        "w_table": document["w_table"],
    }
    yield NewEvent(key, PLAN_EXCEEDS, run, when.unix_ns, when.position, when.position, data)


def _series_of(document: Document, line: Mapping[str, Any]) -> Mapping[str, Any]:
    return next(s for s in document["series"] if line["counting"] in s["of"])


def _kept_plan(document: Document) -> dict[str, Any] | None:
    plan = document["plan"]
    return None if plan is None else {name: plan[name] for name in ("budget_flop", "expected_end", "entries")}


def _times(crosses: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: None if at is None else time_text(int(at)) for name, at in crosses.items()}


def _day(text: str | None) -> str:
    return "never" if text is None else text[:10]


# ---- either --------------------------------------------------------------------------------------


def _line(regime: Regime, original: str) -> str:
    past = "at least" if regime.comparison == ">=" else "more than"
    if original:
        return f"{past} {regime.share} of what it modifies, {original} ({regime.title})"
    return f"{past} {threshold_text(regime.threshold_flop)} FLOP ({regime.title})"


def _law(regime: Regime, original: str, line: Iterable[Fraction]) -> dict[str, Any]:
    return {
        **law_json(regime),
        **counting_json(regime),
        "original": original or None,
        "threshold_flop": str(regime.threshold_flop),
        "line": dict(zip(("lower", "point", "upper"), map(str, line), strict=True)),
        "profile_digest": None if regime.counted_by is None else regime.counted_by.digest,
    }
