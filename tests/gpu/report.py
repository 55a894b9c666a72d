"""Results for people: a table on the terminal, Markdown for docs/validation.md, a summary as JSON."""

import datetime as dt
import math
from typing import Any

from .experiment import ERROR, FAIL, NOT_RUN
from .state import State
from .worker import EXPERIMENTS, ORDER

SIMULATED = "SIMULATED GPU: this tests the program. It says nothing about any hardware."


def verdict(state: State) -> int:
    """0 nothing failed, 1 something did or ended in an error."""
    return int(any(r["status"] in (FAIL, ERROR) for r in state.results.values()))


def summary(state: State) -> dict[str, Any]:
    """Without the raw numbers, which stay in state.json."""
    kept = ("status", "why", "checks", "lines", "seconds")
    results = {
        key: {k: result.get(k) for k in kept}
        for key in ORDER
        if (result := state.results.get(key)) is not None
    }
    return {
        "machine": state.machine,
        "results": results,
        "left": [k for k in ORDER if k not in state.results],
    }


def table(state: State) -> str:
    """Measured against true, then every check."""
    machine = state.machine
    lines = [f"{machine.get('gpu', '?')}, driver {machine.get('driver', '?')}"]
    if machine.get("simulated"):
        lines.append(SIMULATED)
    lines.append(f"{'':4} {'what':<52} {'by':<11} {'class':<6} {'measured':>10} {'true':>10} {'ratio':>8}")
    for key in ORDER:
        result = state.results.get(key)
        if result is None:
            lines.append(f"{key:<4} not run yet")
            continue
        why = f" ({result['why']})" if result["why"] else ""
        lines.append(f"{key:<4} {result['status'].upper()}: {EXPERIMENTS[key].title}{why}")
        lines += [
            f"{'':4} {row['what'][:52]:<52} {row['by']:<11} {row['classes']:<6} "
            f"{_number(row['measured']):>10} {_number(row['true']):>10} {_number(row['ratio']):>8}"
            for row in result["lines"]
        ]
        for check in result["checks"]:
            mark = {True: "ok  ", False: "FAIL", None: "    "}[check["ok"]]
            lines.append(
                f"{'':4} {mark} {check['name']}: {_number(check['measured'])}  [{check['expected']}]"
            )
    return "\n".join(lines)


def markdown(state: State, answers: dict[str, str]) -> str:
    """The section "Results" of docs/validation.md."""
    machine = state.machine
    when = min((r["unix"] for r in state.results.values() if "unix" in r), default=0)
    day = dt.datetime.fromtimestamp(when, dt.UTC).date().isoformat()
    lines = [f"## Results: {machine.get('gpu', '?')}, driver {machine.get('driver', '?')}, {day}", ""]
    if machine.get("simulated"):
        lines += [f"**{SIMULATED}**", ""]
    lines.append(
        "Machine: " + ", ".join(f"{k} {v}" for k, v in machine.items() if v != "" and v is not False) + "."
    )
    lines += ["", "| id | what ran | by | class | measured | true | measured / true | verdict |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for key in ORDER:
        result = state.results.get(key)
        if result is None:
            lines.append(f"| {key} | {EXPERIMENTS[key].title} | | | | | | not run yet |")
            continue
        status = result["status"] + (f": {result['why']}" if result["why"] else "")
        for i, row in enumerate(result["lines"] or [None]):
            told = status if i == 0 else ""
            if row is None:
                lines.append(f"| {key} | {EXPERIMENTS[key].title} | | | | | | {_cell(told)} |")
            else:
                cells = [row["what"], row["by"], row["classes"]]
                cells += [_number(row[k]) for k in ("measured", "true", "ratio")]
                lines.append(f"| {key} | " + " | ".join(map(_cell, cells)) + f" | {_cell(told)} |")
    lines += ["", "| id | check | measured | expected | |", "| --- | --- | --- | --- | --- |"]
    for key in ORDER:
        for check in state.results.get(key, {}).get("checks", []):
            mark = {True: "pass", False: "**fail**", None: "noted"}[check["ok"]]
            cells = [key, check["name"], _number(check["measured"]), check["expected"], mark]
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    lines += ["", "| id | part | kernels |", "| --- | --- | --- |"]
    for key in ORDER:
        for part, found in state.results.get(key, {}).get("raw", {}).items():
            if isinstance(found, dict) and (names := found.get("kernels")):
                told = ", ".join(f"`{name[:100]}`" for name in names)
                lines.append(f"| {key} | {_cell(part)} | {_cell(told)} |")
    lines += ["", "| open question (reference/metering.md 9) | answer |", "| --- | --- |"]
    lines += [f"| {_cell(question)} | {_cell(answer)} |" for question, answer in answers.items()]
    if state.superseded:
        told = ", ".join(f"{old['key']} ({old['status']})" for old in state.superseded)
        lines += ["", f"Run again, and what the run before said: {told}."]
    if len(drivers := sorted({str(r["driver"]) for r in state.results.values() if r.get("driver")})) > 1:
        lines += ["", f"Drivers, in several calls: {', '.join(drivers)}."]
    not_run = [k for k in ORDER if state.results.get(k, {}).get("status") == NOT_RUN]
    lines += ["", f"Not run: {', '.join(not_run) or 'none'}. All raw numbers are in `state.json` of the run."]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _number(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and not math.isfinite(value):
        return "not a number"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.5g}"
    return str(value)
