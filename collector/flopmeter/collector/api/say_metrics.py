"""`metrics-of-runs`: what `/metrics` shows of the books. Asked by the HTTP port for itself, never by somebody outside."""

from typing import Any

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.duty.answers import State
from flopmeter.collector.duty.reading import duties
from flopmeter.collector.report.documents import RunRows
from flopmeter.collector.spelling import time_text
from flopmeter.contract.usage import Measured

from .books import Books
from .routes import STATUSES
from .run_metrics import run_metrics
from .told import body_of

_ENERGY, _MEASURED = SUM_FIELDS.index("energy_mj"), int(Measured.ENERGY)
_SECOND_NS = 1_000_000_000


def metrics_of_runs(books: Books) -> bytes:
    """Series as run_metrics.py chooses them, from the view that pages are answered from."""
    view = books.view()
    with books.reading() as reader:
        books.events.update(reader)
        by_severity = dict(books.events.unresolved_of(None))
        crossed = dict(books.events.crossed)
        waiting = [d.deadline for d in duties(reader) if d.state is not State.RESOLVED]
    now = books.clock()
    by_status = dict.fromkeys(STATUSES, 0)
    for line in view.lines.values():
        if line["status"] is not None:
            by_status[line["status"]] += 1
    overview: dict[str, Any] = {
        "runs": {"total": len(view.lines), "by_status": by_status},
        "events": {"by_severity": by_severity},
        "deadlines": {"open": len(waiting), "overdue": sum(now >= d.due_unix_ns for d in waiting)},
        "next_deadline": {"due": time_text(waiting[0].due_unix_ns)} if waiting else None,
    }
    return body_of(
        run_metrics(
            view.binding,
            view.lines.values(),
            overview,
            None if view.fleet is None else view.fleet.summary,
            energy_joules=lambda run: energy_joules(view.rows[run]),
            crossed=crossed,
            now_unix_s=view.as_of_unix_ns / _SECOND_NS,
        )
    )


def energy_joules(rows: RunRows) -> float | None:
    """As far as it was measured; None: nowhere."""
    measured = [sums[_ENERGY] for key, sums in rows.groups.items() if key.measured & _MEASURED]
    return sum(measured) / 1_000 if measured else None
