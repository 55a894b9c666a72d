"""GET /overview, /state, /regimes."""

import hashlib
from typing import Any

from flopmeter.collector.duty.answers import State
from flopmeter.collector.duty.reading import duties
from flopmeter.collector.ingest.listening import collector_version
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.spelling import time_text

from .asking import Wish
from .books import Books
from .fleet_cells import codes_of
from .numbers import numbers_of
from .routes import STATUSES
from .say_runs import shared_with
from .tenancy import Sight
from .told import body_of, page
from .view import View, node_rows

_NODES = ("live", "silent", "stopped", "never")


def overview(books: Books, wish: Wish) -> bytes:
    view = books.view()
    sight = view.sight(wish.tenant)
    lines = [view.lines[name] for name in view.lines if sight.whole or sight.run(name)]
    by_status = dict.fromkeys(STATUSES, 0)
    for line in lines:
        if line["status"] is not None:
            by_status[line["status"]] += 1
    with books.reading() as reader:
        books.events.update(reader)
        open_events = books.events.unresolved_of(None if sight.whole else iter(sight.runs()))
        found = [
            d for d in duties(reader) if sight.whole or (d.deadline.subject and sight.run(d.deadline.subject))
        ]
        log = _log(reader) if sight.whole else None
    now = books.clock()
    waiting = [d for d in found if d.state is not State.RESOLVED]
    document = {
        "as_of": time_text(view.as_of_unix_ns),
        "version": collector_version(),
        "runs": {"total": len(lines), "by_status": by_status},
        **(_fleet(view) if sight.whole else dict.fromkeys(("nodes", "gpus", "coverage", "unattributed"))),
        "events": {"open": sum(open_events.values()), "by_severity": dict(open_events)},
        "deadlines": {
            "open": len(waiting),
            "overdue": sum(now >= d.deadline.due_unix_ns for d in waiting),
        },
        "next_deadline": None,
        "log": log,
    }
    if waiting:
        d = waiting[0].deadline
        document["next_deadline"] = {
            "id": d.id,
            "regime": d.regime,
            "run": d.subject or None,
            "act": d.act,
            "recipient": d.recipient,
            "due": time_text(d.due_unix_ns),
            "overdue": now >= d.due_unix_ns,
        }
    return body_of(document)


def state(books: Books, wish: Wish) -> bytes:
    """Numbers of lines are those of the view, so that who asks for lines when they move gets others."""
    view = books.view()
    with books.reading() as reader:
        now = numbers_of(reader)
        if wish.tenant:
            books.events.update(reader)
    as_of = time_text(view.as_of_unix_ns)
    if not wish.tenant:
        told: dict[str, Any] = {
            "position": str(view.numbers.position),
            "event": now.event,
            "answer": now.answer,
            "entry": view.numbers.entry,
        }
        return body_of({"as_of": as_of, **told, "mark": _mark([as_of, told])})
    return body_of(
        {
            "as_of": as_of,
            **dict.fromkeys(("position", "event", "answer", "entry")),
            "mark": _mark(_seen(books, view, view.sight(wish.tenant))),
        }
    )


def regimes(books: Books, wish: Wish) -> bytes:
    from flopmeter.collector.law.cli import documents_of

    view = books.view()
    return page(wish, documents_of(books.laws(view.numbers.law)), view.as_of_unix_ns)


def _fleet(view: View) -> dict[str, Any]:
    if view.fleet is None:
        return dict.fromkeys(("nodes", "gpus", "coverage", "unattributed"))
    summary = view.fleet.summary

    coverage = summary["coverage"]
    unattributed = summary["unattributed"]
    return {
        "nodes": {
            "total": summary["nodes_total"],
            "by_status": {name: summary["nodes_by_status"].get(name, 0) for name in _NODES},
        },
        "gpus": {"total": summary["gpus"], "by_code": codes_of(node_rows(view, view.fleet))},
        "coverage": {n: coverage[n] for n in ("expected_device_seconds", "observed_device_seconds")},
        "unattributed": {n: unattributed[n] for n in ("device_seconds", "flop")},
    }


def _log(reader: Reader) -> dict[str, Any]:
    (size,) = reader.rows("SELECT coalesce(max(first_index + count), 0) FROM log").fetchone()
    head = reader.rows("SELECT size, unix_ns FROM checkpoints ORDER BY checkpoint_no DESC LIMIT 1").fetchone()
    covered, signed = (0, None) if head is None else head
    return {
        "size": size,
        "covered": covered,
        "checkpoint": None if signed is None else time_text(signed),
    }


def _seen(books: Books, view: View, sight: Sight) -> list[Any]:
    """All that may change of what a tenant sees."""
    runs = sorted(sight.runs())
    mine = set(runs)
    events = [(e.id, books.events.state(e.event_no)) for e in books.events.events if e.subject in mine]
    lines = [_without_times(view.lines[r]) for r in runs if r in view.lines]
    return [time_text(view.as_of_unix_ns), lines, events, shared_with(view, sight.tenant)]


def _without_times(line: dict[str, Any]) -> dict[str, Any]:
    """A forecast that comes to the same as the one before is no news."""
    forecast = line["forecast"]
    if forecast is None:
        return line
    return line | {"forecast": {k: v for k, v in forecast.items() if k not in {"time", "until"}}}


def _mark(value: Any) -> str:
    return hashlib.sha256(body_of(value)).hexdigest()[:16]
