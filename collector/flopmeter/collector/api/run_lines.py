"""A run's line of the API: what `runs list` says, and what a page shows beside it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

from flopmeter.collector.figures import is_others
from flopmeter.collector.forecast.history import span_of
from flopmeter.collector.forecast.project import MIN_BLOCKS
from flopmeter.collector.forecast.watch import FLOOR
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import counted, in_force
from flopmeter.collector.report.documents import RunRows
from flopmeter.collector.report.queries import Asked, RunSide
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.evidence_class import EvidenceClass

_DIGITS = 10**6


def binding_lines(regimes: Sequence[Regime], now_unix_ns: int) -> list[dict[str, Any]]:
    """`lines` of GET /runs: what is in force and draws a line for runs."""
    return [
        {
            "regime": r.id,
            "title": r.title,
            "threshold_flop": str(r.threshold_flop),
            "comparison": r.comparison,
            "unit": r.unit,
            "counting": r.counting,
            "act": r.act,
        }
        for r in regimes
        if r.has_line and in_force(r, now_unix_ns)
    ]


def run_line(side: RunSide, question: Asked, rows: RunRows) -> dict[str, Any]:
    """Without what comes from elsewhere: events, forecast, rate, spark (`finished`)."""
    brief, stands = side.lines(question).found(rows)
    nearest = brief["thresholds"][0] if brief["thresholds"] else None
    countable = {}
    for r in question.regimes:
        if r.has_line and in_force(r, question.now_unix_ns):
            total, behind = stands.of(r), side.silence.behind(side.counting, rows.run, r.counting)
            whole = counted(r, total.flop + behind.flop, total.integer_ops + behind.integer_ops)
            countable[r.id] = figure_json(whole)
    return {
        "run": rows.run,
        "status": brief["status"],
        "first_seen": time_text(rows.first_unix_ns),
        "last_seen": brief["last_seen"],
        "executed": brief["executed"]["flop"],
        "countable": countable,
        "nearest": None
        if nearest is None
        else {name: nearest[name] for name in ("regime", "verdict", "fraction", "fraction_bounds")},
        "classes": _classes(rows, side.silence.of(rows.run).duration_ns),
        "coverage": brief["coverage"],
        "fault": None,
    }


def _classes(rows: RunRows, silent_ns: int) -> dict[str, float]:
    """Shares of the device time; what silent agents owe is a gap."""
    times: dict[int, int] = {}
    for key, sums in rows.groups.items():
        if not is_others(key.measured):
            times[key.evidence_class] = times.get(key.evidence_class, 0) + sums[0]
    if silent_ns:
        times[int(EvidenceClass.GAP)] = times.get(int(EvidenceClass.GAP), 0) + silent_ns
    whole = sum(times.values())
    if not whole:
        return {}
    return {
        EvidenceClass(number).label: time_ns * _DIGITS // whole / _DIGITS
        for number, time_ns in sorted(times.items())
    }


def faulty(run: str, said: str) -> dict[str, Any]:
    """The line of a run whose own could not be made."""
    names = (
        "status",
        "first_seen",
        "last_seen",
        "executed",
        "countable",
        "nearest",
        "rate",
        "forecast",
        "no_forecast",
        "classes",
        "coverage",
        "open_events",
        "spark",
    )
    return {"run": run, **dict.fromkeys(names), "fault": said}


def nearest_forecast(kept: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Of the last forecast kept (forecast.live.kept_document), the nearest line of a law that is not crossed.

    A forecast with no such line in sight is said as well: it is something else than none.
    """
    if kept is None:
        return None
    ahead = (x for x in kept["lines"] if x["regime"] is not None and x["answer"] != "crossed")
    line = next(ahead, {"regime": None, "answer": "not-in-sight", "crosses": None})
    return {
        **{name: kept[name] for name in ("time", "until", "confidence_percent")},
        **{name: line[name] for name in ("regime", "answer", "crosses")},
    }


def no_forecast(line: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], now_unix_ns: int) -> str:
    """Why none was kept of a run (forecast.watch says of which it keeps one)."""
    if not lines:
        return "no-line"
    if line["status"] != "running":
        return "not-running"
    far = (
        Fraction(int(line["countable"][r["regime"]]["upper"]), int(r["threshold_flop"])) < FLOOR
        for r in lines
        if r["regime"] in line["countable"]
    )
    if all(far):
        return "far"
    since = int(datetime.fromisoformat(line["first_seen"]).timestamp() * 1_000) * 1_000_000
    return "too-young" if span_of(now_unix_ns, since).blocks < MIN_BLOCKS else "not-yet"
