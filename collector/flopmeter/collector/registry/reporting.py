"""A run's report from a store: reads what report.py is made of."""

import difflib
from typing import Any

from flopmeter.collector.errors import StoreError
from flopmeter.collector.report.queries import Asked as Question
from flopmeter.collector.report.queries import Reader

from .counting import Counting
from .report import Asked, known_run, report_document
from .run_books import RunBooks
from .say import read_registry


def run_report(reader: Reader, run: str, question: Question) -> dict[str, Any]:
    """The report on `run`. Raises StoreError if neither the books nor anybody's word know it."""
    registry = read_registry(reader)
    books = RunBooks(reader, registry)
    found = reader.runs(question, run) if run else []
    document = found[0] if found else None
    if not known_run(run, registry, document):
        near = difflib.get_close_matches(run, {*reader.run_names(), *registry.declared_runs}, n=3, cutoff=0.4)
        raise StoreError(
            f"run {run!r}: expected a run of the books or a declared one, found neither",
            f"did you mean {', '.join(near)}?" if near else "`flopmeter runs list` shows them all",
        )
    models = reader.models()
    return report_document(
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
