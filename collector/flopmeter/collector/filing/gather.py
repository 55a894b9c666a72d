"""Reads what a draft is made of from a store: thin over the run's report and the tables beside it."""

import importlib.metadata
import json
from typing import Any

from flopmeter.collector.duty.documents import deadline_document
from flopmeter.collector.duty.reading import duties
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.registry.entries import Tag
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.registry.say import read_registry
from flopmeter.collector.report.queries import Asked, Reader
from flopmeter.collector.store.forecasts import LAST, forecast_rows
from flopmeter.contract.w_table import WTable

from .material import BooksState, Material


def material(reader: Reader, run: str, question: Asked, regimes: tuple[Regime, ...]) -> Material:
    """All that the books and the registry hold of `run`. Raises StoreError where neither knows it."""
    report = run_report(reader, run, question)
    found = reader.runs(question, run)
    registry = read_registry(reader)
    return Material(
        run=run,
        report=report,
        metered=found[0] if found else None,
        events=tuple(e for e in reader.events() if _about(e, run)),
        deadlines=tuple(
            deadline_document(d.deadline, d.state, d.outcome, question.now_unix_ns)
            for d in duties(reader)
            if d.deadline.subject == run
        ),
        forecast=_forecast(reader, run),
        evidence={e.number: e.statement.evidence for e in registry.entries if isinstance(e.statement, Tag)},
        regimes=regimes,
        books=books_state(reader, question.table),
        now_unix_ns=question.now_unix_ns,
    )


def books_state(reader: Reader, table: WTable) -> BooksState:
    """Where the books stand."""
    position, record_hash = _last(reader, "SELECT position, hash FROM records ORDER BY position DESC LIMIT 1")
    entries, entries_hash = _last(reader, "SELECT entry_no, hash FROM entries ORDER BY entry_no DESC LIMIT 1")
    versions = dict(reader.rows("SELECT version, count(*) FROM agents GROUP BY version ORDER BY version"))
    return BooksState(
        position=position,
        record_hash=record_hash,
        entries=entries,
        entries_hash=entries_hash,
        agent_versions=versions,
        collector_version=importlib.metadata.version("flopmeter"),
        w_table=table.id,
        w_table_digest=table.digest,
    )


def _forecast(reader: Reader, run: str) -> dict[str, Any] | None:
    row = next(iter(forecast_rows(reader.rows(LAST, (run,)))), None)
    return None if row is None else dict(json.loads(row.data))


def _last(reader: Reader, sql: str) -> tuple[int, str]:
    row = reader.rows(sql).fetchone()
    return (0, "") if row is None else (row[0], bytes(row[1]).hex())


def _about(event: dict[str, Any], run: str) -> bool:
    return bool(event["subject"] == run or event["data"].get("run") == run)
