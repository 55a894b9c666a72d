"""A forecast of now, and what was kept and raised before, for people: from a reader of the store."""

import json
from collections.abc import Sequence
from typing import Any

from flopmeter.collector.figures import Tally
from flopmeter.collector.law.events import PLAN_EXCEEDS, THRESHOLD_FORECAST
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.law.standing import standing
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.run_books import RunBooks
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.spelling import time_text
from flopmeter.collector.store.forecasts import LAST, OF_RUN, forecast_rows
from flopmeter.contract.w_table import current

from .document import Document, forecast_document
from .history import Past, Work, grown, span_of
from .settings import DEFAULT, Outlook
from .watch import CONFIDENCE, HORIZON


def outlook_of(reader: Reader) -> Outlook:
    """The settings of the collector that wrote the store last."""
    found = dict(
        reader.rows(
            "SELECT name, value FROM noted WHERE name IN (?, ?) ORDER BY from_position", (CONFIDENCE, HORIZON)
        )
    )
    return Outlook(
        found.get(CONFIDENCE, DEFAULT.confidence_percent), found.get(HORIZON, DEFAULT.horizon_days)
    )


def forecast_now(
    reader: Reader, run: str, regimes: Sequence[Regime], outlook: Outlook, now_unix_ns: int
) -> Document | None:
    """Every line of the run; None: neither the books nor anybody know it."""
    registry, table = reader.registry(), current()
    books, models = RunBooks(reader, registry), reader.models()
    members = books.members(run)
    if not members and registry.declared(run) is None:
        return None
    executed = Tally()
    for row in books.rows(run):
        executed.add(row.key, row.dtype, row.sums)
    counting = Counting(registry, books.rows, models, table)
    stands = standing(counting, run, executed.figures(models, table), regimes)
    since = min((m.first_unix_ns for m in members), default=now_unix_ns)
    span = span_of(now_unix_ns, since)
    blocks = grown(Work(registry, models, table), run, books.hours, regimes, span)
    past = Past(run, now_unix_ns, since, span, stands, blocks)
    return forecast_document(past, registry, regimes, outlook, table.id, every_line=True)


def shown(reader: Reader, document: Document, regimes: Sequence[Regime]) -> Document:
    """As `forecast show --json` prints it: with times in words, what was kept before, and what was raised."""
    run, now = document["run"], int(document["unix_ns"])
    by_id = {r.id: r for r in regimes}
    raised = _raised(reader, run)
    lines = [
        line
        | {
            "in_force": None if line["regime"] is None else in_force(by_id[line["regime"]], now),
            "crosses": None
            if line["crosses"] is None
            else {name: None if at is None else time_text(int(at)) for name, at in line["crosses"].items()},
            "raised": [
                e for e in raised if (e["regime"], e["original"]) == (line["regime"], line["original"])
            ],
        }
        for line in document["lines"]
    ]
    return document | {
        "time": time_text(now),
        "until": time_text(int(document["until"])),
        "since": time_text(int(document["since"])),
        "lines": lines,
        "kept": [
            _kept(r.forecast_no, json.loads(r.data)) for r in forecast_rows(reader.rows(OF_RUN, (run,)))
        ],
    }


def _raised(reader: Reader, run: str) -> list[dict[str, Any]]:
    sql = "SELECT event_no, type, time_unix_ns, data FROM events WHERE subject = ? AND type IN (?, ?) ORDER BY event_no"
    found = []
    for number, kind, unix_ns, text in reader.rows(sql, (run, THRESHOLD_FORECAST, PLAN_EXCEEDS)):
        data = json.loads(text)
        found.append(
            {
                "event": number,
                "type": kind,
                "time": time_text(unix_ns),
                "basis": data["basis"],
                "regime": data.get("regime"),
                "original": data.get("original"),
            }
        )
    return found


def _kept(number: int, document: Document) -> dict[str, Any]:
    """One line of the history: the largest total, and what was said of each line."""
    totals = [s["total"] for s in document["series"]]
    return {
        "forecast": str(number),
        "time": time_text(int(document["unix_ns"])),
        "state": document["series"][0]["state"] if document["series"] else None,
        "total": max(totals, key=lambda t: int(t["point"]), default=None),
        "answers": {
            (x["regime"] or "plan") + (f":{x['original']}" if x["original"] else ""): x["answer"]
            for x in document["lines"]
        },
    }


def last_kept(reader: Reader, run: str) -> dict[str, Any] | None:
    """What `runs show` says of a run's future: of the last forecast kept, the lines in sight, the nearest first."""
    row = next(iter(forecast_rows(reader.rows(LAST, (run,)))), None)
    return None if row is None else kept_document(row.unix_ns, row.method, json.loads(row.data))


def kept_document(unix_ns: int, method: str, document: Document) -> dict[str, Any]:
    """One that was kept, as `runs show` has it."""
    lines = [
        {
            "regime": x["regime"],
            "original": x["original"],
            "answer": x["answer"],
            "by_plan": x["by_plan"],
            "comparison": x["comparison"],
            "line": x["line"]["point"],
            "crosses": None
            if x["crosses"] is None
            else {name: None if at is None else time_text(int(at)) for name, at in x["crosses"].items()},
        }
        for x in document["lines"]
    ]
    lines.sort(key=lambda x: ((x["crosses"] or {}).get("point") or "9", x["regime"] or ""))
    return {
        "time": time_text(unix_ns),
        "method": method,
        "confidence_percent": document["confidence_percent"],
        "until": time_text(int(document["until"])),
        "state": document["series"][0]["state"] if document["series"] else None,
        "hours": document["block_hours"]
        * (len(document["series"][0]["blocks"]) if document["series"] else 0),
        "lines": lines,
    }
