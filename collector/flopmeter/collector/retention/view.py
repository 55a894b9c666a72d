"""What must be kept, as a document and as a page. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from flopmeter.cli.layout import Paint
from flopmeter.collector.registry.words import paragraph
from flopmeter.collector.spelling import time_text

from .until import STORE, Reason, first_day, kept_for
from .words import SaidRow

NOT_KNOWN = "not known"


def retention_document(kept: Any, today: date) -> dict[str, Any]:
    """`collector retention --json`: the store, then every run by name."""
    facts, said, regimes = kept
    subjects = (STORE, *sorted(facts.runs))
    found = {s: kept_for(s, facts, said, regimes) for s in subjects}
    return {
        "years": said.years,
        "store": _subject(found[STORE], today),
        "runs": [{"run": run} | _subject(found[run], today) for run in subjects[1:]],
        "holds": [said_document(row) for row in said.holds.values()],
    }


def said_document(row: SaidRow) -> dict[str, Any]:
    """One word on keeping."""
    return {
        "number": row.said_no,
        "time": time_text(row.unix_ns),
        "unix_ns": str(row.unix_ns),
        "position": str(row.position),
        "kind": row.kind,
        "run": row.run,
        "value": row.value,
        "who": row.who,
        "why": row.why,
    }


def _subject(reasons: Sequence[Reason], today: date) -> dict[str, Any]:
    day = first_day(reasons)
    return {
        "deletable_from": None if day is None else day.isoformat(),
        "must_be_kept": any(r.order > today for r in reasons),
        "reasons": [
            {
                "name": r.name,
                "what": r.what,
                "source": r.source,
                "run": r.run,
                "first_day": None if r.first_day is None else r.first_day.isoformat(),
                "so_far": r.so_far,
                "stands": r.order > today,
            }
            for r in reasons
        ],
    }


def retention_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`collector retention`: per run what binds longest, and what it takes to know where that is not known."""
    lines = [paint(_headline(document["store"]), bold=True)]
    lines += _reasons(document["store"]["reasons"][:1], paint, STORE)
    for run in document["runs"]:
        lines += ["", *paragraph(f"run {run['run']}: {_until(run)}", paint.width, 0, 2)]
        lines += _reasons(_shown(run["reasons"]), paint, run["run"])
    if not document["runs"]:
        lines += ["", "No runs are in this store."]
    lines += ["", *paragraph("Only a whole store can be deleted (docs/retention.md).", paint.width, 0)]
    return "\n".join(lines)


def holds_view(holds: Iterable[Mapping[str, Any]], paint: Paint) -> str:
    """`collector hold list`."""
    lines: list[str] = []
    for h in holds:
        over = f"run {h['run']}" if h["run"] else "everything"
        lines += [
            paint(line, bold=True) for line in paragraph(f"hold {h['number']} over {over}", paint.width, 0, 2)
        ]
        lines += paragraph(f"{h['time']}, {h['who']}: {h['why']}", paint.width, 2)
    return "\n".join(lines) if lines else "no hold stands"


def _headline(store: Mapping[str, Any]) -> str:
    if not store["reasons"]:
        return "Store: nothing says that it must be kept."
    return f"Store: {_until(store)}"


def _until(subject: Mapping[str, Any]) -> str:
    if not subject["must_be_kept"]:
        return "nothing stands for which it must be kept"
    if subject["deletable_from"] is None:
        return "must be kept; until when is not known"
    return f"must be kept; may be deleted from {subject['deletable_from']}"


def _shown(reasons: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Everything without a day, each said once; else what binds longest."""
    open_ended = [r for r in reasons if r["first_day"] is None]
    said = {(r["so_far"], r["run"]): r for r in reversed(open_ended)}
    return list(said.values()) or list(reasons[:1])


def _reasons(reasons: Iterable[Mapping[str, Any]], paint: Paint, run: str) -> list[str]:
    lines: list[str] = []
    for r in reasons:
        whose = f"run {r['run']}, " if r["run"] not in ("", run) else ""
        more = f": {r['so_far']}" if r["so_far"] else ""
        lines += paragraph(f"{whose}{r['name']}: {r['what']}{more}", paint.width, 2, 4)
        lines += [paint(line, dim=True) for line in paragraph(r["source"], paint.width, 4)]
    return lines
