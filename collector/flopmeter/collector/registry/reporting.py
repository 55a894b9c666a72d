"""A run's report from a store: reads what report.py is made of."""

import difflib
from typing import Any

from flopmeter.collector.errors import StoreError
from flopmeter.collector.report.course import course_of
from flopmeter.collector.report.queries import Asked as Question
from flopmeter.collector.report.queries import Reader

from .counting import Counting
from .report import Asked, known_run, report_document
from .report_blocks import Whole
from .run_books import RunBooks
from .say import read_registry

MAX_EVENTS = 20  # the newest, of a run's page


def run_report(reader: Reader, run: str, question: Question) -> dict[str, Any]:
    """The report on `run`. Raises StoreError if neither the books nor anybody's word know it."""
    return _report(reader, run, question, series=False)[0]


def whole_report(reader: Reader, run: str, question: Question) -> tuple[Whole, list[dict[str, Any]]]:
    """The same with its course, forecast, events and deadlines; and its hours as `runs show --json` has them."""
    from flopmeter.collector.duty.documents import deadline_document
    from flopmeter.collector.duty.reading import Wanted, duties, events_page
    from flopmeter.collector.forecast.live import forecast_now, outlook_of, shown

    report, metered = _report(reader, run, question, series=True)
    made = forecast_now(reader, run, question.regimes, outlook_of(reader), question.now_unix_ns)
    forecast = None if made is None else shown(reader, made, question.regimes)
    course = None if metered is None else course_of(metered, reader.hourly(run), report["purposes"], forecast)
    events = [
        {**found.cloud, "state": found.state.value}
        for found in events_page(reader, Wanted(subject=run), MAX_EVENTS).events
    ]
    deadlines = [
        deadline_document(d.deadline, d.state, d.outcome, question.now_unix_ns)
        for d in duties(reader)
        if d.deadline.subject == run
    ]
    whole = Whole(report, course, forecast, events, deadlines)
    return whole, [] if metered is None else metered["hourly"]


def _report(
    reader: Reader, run: str, question: Question, *, series: bool
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    registry = read_registry(reader)
    books = RunBooks(reader, registry)
    found = reader.runs(question, run, series=series) if run else []
    document = found[0] if found else None
    if not known_run(run, registry, document):
        near = difflib.get_close_matches(run, {*reader.run_names(), *registry.declared_runs}, n=3, cutoff=0.4)
        raise StoreError(
            f"run {run!r}: expected a run of the books or a declared one, found neither",
            f"did you mean {', '.join(near)}?" if near else "`flopmeter runs list` shows them all",
        )
    models = reader.models()
    report = report_document(
        Asked(
            run=run,
            document=document,
            counting=Counting(registry, books.rows, models, question.table),
            books=books,
            regimes=question.regimes,
            models=models,
            table=question.table,
            now_unix_ns=question.now_unix_ns,
        )
    )
    return report, document
