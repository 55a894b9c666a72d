"""Rows of events and deadlines, each with the last answer of a person."""

import json
from typing import TYPE_CHECKING, Any

from flopmeter.collector.duty.answers import (
    DEADLINE,
    EVENT,
    AnswerRow,
    State,
    canonical,
    outcome_of,
    state_of,
)
from flopmeter.collector.duty.deadlines import Deadline
from flopmeter.collector.duty.reading import answers_about
from flopmeter.collector.law.severity import severity_of
from flopmeter.collector.store.answers import SELECT_DEADLINES

from .columns import Row, Rows
from .wanted import Wanted, damaged, runs_wanted
from .whose import Workloads

if TYPE_CHECKING:
    from flopmeter.collector.report.queries import Asked, Reader

_EVENTS = "SELECT event_no, id, type, subject, time_unix_ns, position, data FROM events ORDER BY event_no"


def event_rows(reader: "Reader", wanted: Wanted) -> Rows:
    """Every event in the order in which it was raised. Raises StoreError.

    Of a tenant: without the names and figures of other tenants' runs, and without numbers that count everybody's records.
    """
    workloads = Workloads(reader)
    runs = runs_wanted(reader, workloads, wanted)
    sight, named = workloads.sight(wanted.tenant) if wanted.tenant else (None, frozenset[str]())
    for number, event_id, kind, subject, unix_ns, position, text in reader.rows(_EVENTS):
        if (runs is not None and subject not in runs) or not wanted.holds(unix_ns):
            continue
        try:
            data: dict[str, Any] = json.loads(text)
        except (ValueError, TypeError, RecursionError) as e:
            raise damaged(f"event {event_id}", e) from e
        severity = severity_of(kind, data).value
        if sight is not None:
            data = sight.cleaned(data, named)
            number_shown, position_shown, text_shown = None, None, canonical(data)
        else:
            number_shown, position_shown, text_shown = number, position, text
        last = _last(reader, EVENT, number)
        yield (
            number_shown,
            event_id,
            unix_ns,
            kind,
            severity,
            subject or None,
            data.get("regime"),
            data.get("message"),
            state_of(last).value,
            *_answer(last),
            position_shown,
            text_shown,
        )


def deadline_rows(reader: "Reader", question: "Asked", wanted: Wanted) -> Rows:
    """Every deadline in the order in which it was opened; what is asked for by time is when it is due."""
    runs = runs_wanted(reader, Workloads(reader), wanted)
    for number, *values in reader.rows(SELECT_DEADLINES):
        d = Deadline._make(values)
        if (runs is not None and d.subject not in runs) or not wanted.holds(d.due_unix_ns):
            continue
        last = _last(reader, DEADLINE, number)
        state = state_of(last)
        started = reader.rows("SELECT id FROM events WHERE event_no = ?", (d.event_no,)).fetchone()
        yield (
            d.id,
            d.due_unix_ns,
            d.timezone,
            state.value,
            (outcome_of(last.detail) or None) if last is not None else None,
            state is not State.RESOLVED and question.now_unix_ns >= d.due_unix_ns,
            d.regime,
            d.rule,
            d.subject or None,
            d.act or None,
            d.what or None,
            d.recipient or None,
            d.trigger_unix_ns,
            d.opened_unix_ns,
            started[0] if started is not None else None,
            *_answer(last),
            d.rule_digest,
            d.text_digest,
        )


def _last(reader: "Reader", about: str, number: int) -> AnswerRow | None:
    history = answers_about(reader, about, number)
    return history[-1] if history else None


def _answer(last: AnswerRow | None) -> Row:
    return (None, None, None) if last is None else (last.unix_ns, last.who, last.why)
