"""One forecast as it is kept: its inputs, what follows from them, and under which settings. Pure.

Everything behind `"series"`' inputs and each line's target follows from them by the method alone: `again` derives it
anew from a kept document, so that an old forecast can be checked when regimes and W tables have long changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flopmeter.collector.law.lines import OF_BUDGET, Basis, Met, Target, lines_of, planned
from flopmeter.collector.law.standing import Standing, text_of
from flopmeter.collector.registry.entries import Declare, Entry
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.flop import Figure

from .history import Past
from .project import HOUR_NS, METHOD, Crossing, History, Rates, at_rest, crossing, projected, rates, windows
from .settings import Outlook

CROSSED = "crossed"  # even what is counted for certain meets the line
WILL = "will-be-met"  # known: the lower edge meets it by `until`
MAY = "may-be-met"  # the upper edge does
NOT = "not-in-sight"
TOO_YOUNG = "too-young"

Document = dict[str, Any]


def plan_entries(registry: Registry, run: str) -> tuple[Entry, ...]:
    """The entries in force that give the run its budget or its end."""
    return tuple(
        e
        for e in registry.in_force
        if isinstance(e.statement, Declare)
        and e.statement.run == run
        and (e.statement.budget_flop is not None or e.statement.expected_end_unix_ns is not None)
    )


def plan_json(registry: Registry, run: str) -> Document | None:
    """The plan as it stands; None: there is none."""
    d, entries = registry.declared(run), plan_entries(registry, run)
    if d is None or not entries:
        return None
    end = d.expected_end_unix_ns
    return {
        "budget_flop": None if d.budget_flop is None else str(d.budget_flop),
        "expected_end": None if end is None else time_text(end),
        "expected_end_unix_ns": None if end is None else str(end),
        "purpose": None if d.purpose is None else d.purpose.value,
        "entries": [e.number for e in entries],
    }


def until_of(plan: Mapping[str, Any] | None, now_unix_ns: int, outlook: Outlook) -> int:
    """Up to when it is projected: the declared end, if it is still to come; else as far as the horizon."""
    end = None if plan is None or plan["expected_end_unix_ns"] is None else int(plan["expected_end_unix_ns"])
    return end if end is not None and end > now_unix_ns else now_unix_ns + outlook.horizon_ns


def forecast_document(
    past: Past,
    registry: Registry,
    regimes: Iterable[Any],
    outlook: Outlook,
    table: str,
    *,
    every_line: bool = False,
) -> Document:
    """The forecast made of `past`. Kept are the lines in sight and what leads to them; `every_line`: all of them."""
    declared, plan = registry.declared(past.run), plan_json(registry, past.run)
    document: Document = {
        "run": past.run,
        "method": METHOD,
        "confidence_percent": outlook.confidence_percent,
        "horizon_days": outlook.horizon_days,
        "unix_ns": str(past.now_unix_ns),
        "until": str(until_of(plan, past.now_unix_ns, outlook)),
        "since": str(past.since_unix_ns),
        "blocks_end_hour": past.span.end_hour,
        "block_hours": past.span.hours,
        "plan": plan,
        "entries": len(registry.entries),
        "w_table": table,
    }
    budget = None if declared is None or not declared.budget_flop else declared.budget_flop
    lines = [_line(met, past.stands, declared) for met in lines_of(past.stands, regimes)]
    if budget is not None:
        lines.append(_budget(budget))
    series: dict[Basis, Document] = {}
    for line in lines:
        basis = _basis(line)
        if basis not in series:
            series[basis] = _series(past.history(basis))
    document["series"] = _merged(series)
    document["lines"] = lines
    document = again(document)
    if not every_line:
        document["lines"] = [line for line in document["lines"] if in_sight(line)]
        wanted = {_basis(line) for line in document["lines"]}
        document["series"] = _merged({b: s for b, s in series.items() if b in wanted})
        document = again(document)
    return document


def in_sight(line: Mapping[str, Any]) -> bool:
    """Whether the line can be met by what was seen, or by the plan."""
    return line["answer"] in (CROSSED, WILL, MAY) or bool(line["by_plan"])


def _line(met: Met, stands: Standing, declared: Declare | None) -> Document:
    regime, plan = met.regime, planned(stands, declared, met.basis)
    return {
        "regime": regime.id,
        "original": met.original or None,
        "counting": list(met.basis),
        "comparison": regime.comparison,
        "line": {"lower": str(met.line.lower), "point": str(met.line.point), "upper": str(met.line.upper)},
        "target": {
            "lower": str(met.target.lower),
            "point": str(met.target.point),
            "upper": str(met.target.upper),
        },
        "effective": None if regime.effective is None else regime.effective.isoformat(),
        "ends": None if regime.ends is None else regime.ends.isoformat(),
        "planned": None if plan is None else figure_json(plan.total),
        "digest": text_of(regime),
    }


def _budget(budget: int) -> Document:
    """A plan is exceeded by more than it names."""
    texts = dict.fromkeys(("lower", "point", "upper"), str(budget))
    goals = dict.fromkeys(("lower", "point", "upper"), str(budget + 1))
    return {
        "regime": None,
        "original": None,
        "counting": list(OF_BUDGET),
        "comparison": ">",
        "line": texts,
        "target": goals,
        "effective": None,
        "ends": None,
        "planned": None,
        "digest": None,
    }


def _basis(line: Mapping[str, Any]) -> Basis:
    return Basis(*line["counting"])


def _series(history: History) -> Document:
    return {
        "total": figure_json(history.total),
        "own": figure_json(history.own),
        "blocks": [figure_json(b) for b in history.blocks],
    }


def _merged(series: Mapping[Basis, Document]) -> list[Document]:
    """Ways of counting that come to the same, as one: of most runs nothing is left out by anybody."""
    found: list[Document] = []
    for basis in sorted(series):
        same = next((s for s in found if all(s[k] == v for k, v in series[basis].items())), None)
        if same is None:
            found.append({"of": [list(basis)], **series[basis]})
        else:
            same["of"].append(list(basis))
    return found


# ---- what follows --------------------------------------------------------------------------------


def again(document: Document) -> Document:
    """The document with all that follows from its inputs derived anew."""
    now, until = int(document["unix_ns"]), int(document["until"])
    made: dict[Basis, tuple[Figure, Rates | None, bool]] = {}
    series = []
    for s in document["series"]:
        history = history_of(document, s)
        rate = rates(history, document["confidence_percent"])
        series.append(s | _of_series(history, rate, until - now))
        for basis in s["of"]:
            made[Basis(*basis)] = history.total, rate, at_rest(history)
    lines = [
        line | _of_line(line, *made[_basis(line)][:2], now, until) if _basis(line) in made else line
        for line in document["lines"]
    ]
    return document | {"series": series, "lines": lines}


def history_of(document: Mapping[str, Any], series: Mapping[str, Any]) -> History:
    """The inputs of one series, as they were kept."""
    return History(
        figure_of(series["total"]),
        figure_of(series["own"]),
        int(document["unix_ns"]) - int(document["since"]),
        document["block_hours"] * HOUR_NS,
        tuple(figure_of(b) for b in series["blocks"]),
    )


def figure_of(texts: Mapping[str, str]) -> Figure:
    """Back from JSON."""
    return Figure(int(texts["lower"]), int(texts["point"]), int(texts["upper"]))


def _of_series(history: History, rate: Rates | None, ahead_ns: int) -> Document:
    if rate is None:
        return {"state": TOO_YOUNG, "flop_per_hour": None, "windows": {}, "projected": None}
    hours = history.block_ns // HOUR_NS
    points: Sequence[int] = [b.point for b in history.blocks]
    return {
        "state": "at-rest" if at_rest(history) else "going",
        "flop_per_hour": {name: str(int(getattr(rate, name) * HOUR_NS)) for name in Rates._fields[:3]},
        "windows": {
            str(k * hours): str(int(r * HOUR_NS)) for k, r in windows(points, history.block_ns).items()
        },
        "projected": figure_json(projected(history.total, rate, ahead_ns)),
    }


def _of_line(line: Mapping[str, Any], total: Figure, rate: Rates | None, now: int, until: int) -> Document:
    goal = Target(*(int(line["target"][name]) for name in Target._fields))
    plan = line["planned"]
    by_plan = None if plan is None else int(plan["lower"]) >= goal.upper
    if total.lower >= goal.upper:
        return {"answer": CROSSED, "crosses": None, "by_plan": by_plan}
    if rate is None:
        return {"answer": TOO_YOUNG, "crosses": None, "by_plan": by_plan}
    then = projected(total, rate, until - now)
    answer = WILL if then.lower >= goal.upper else MAY if then.upper >= goal.lower else NOT
    return {"answer": answer, "crosses": _crossing(crossing(total, rate, goal, now)), "by_plan": by_plan}


def _crossing(found: Crossing) -> dict[str, str | None]:
    return {name: None if at is None else str(at) for name, at in zip(found._fields, found, strict=True)}
