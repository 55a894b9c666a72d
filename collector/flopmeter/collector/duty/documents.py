"""Events, answers and deadlines as JSON objects with stable keys. Pure."""

from typing import Any

from flopmeter.collector.spelling import time_text

from .answers import AnswerRow, State, outcome_of
from .deadlines import Deadline
from .notices import due_text


def answer_document(answer: AnswerRow) -> dict[str, Any]:
    return {
        "number": answer.answer_no,
        "time": time_text(answer.unix_ns),
        "unix_ns": str(answer.unix_ns),
        "state": answer.state,
        "outcome": outcome_of(answer.detail) or None,
        "who": answer.who,
        "why": answer.why,
    }


def deadline_document(d: Deadline, state: State, outcome: str, now_unix_ns: int) -> dict[str, Any]:
    """`deadlines list --json`, one of them. `overdue` and `seconds_left` are by the clock of whoever asks."""
    return {
        "id": d.id,
        "state": state.value,
        "outcome": outcome or None,
        "regime": d.regime,
        "rule": d.rule,
        "rule_digest": d.rule_digest,
        "regime_digest": d.text_digest,
        "run": d.subject or None,
        "act": d.act,
        "what": d.what,
        "recipient": d.recipient,
        "trigger": time_text(d.trigger_unix_ns),
        "due": time_text(d.due_unix_ns),
        "due_unix_ns": str(d.due_unix_ns),
        "timezone": d.timezone,
        "due_local": due_text(d),
        "opened": time_text(d.opened_unix_ns),
        "overdue": state is not State.RESOLVED and now_unix_ns >= d.due_unix_ns,
        "seconds_left": str((d.due_unix_ns - now_unix_ns) // 1_000_000_000),
    }
