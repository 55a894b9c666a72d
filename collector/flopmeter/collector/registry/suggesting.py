"""Suggestions of a store: the facts behind them, read; each with what a person answered."""

from datetime import datetime
from typing import Any

from flopmeter.collector.report.queries import Asked, Reader

from .lineage import Lineage
from .run_books import RunBooks
from .state import Registry
from .suggestions import RunFacts, Suggestion, suggestions

#: Where a job says from which path it goes on, hashed by its agent (agent/workloads/environ.py).
CHECKPOINT = "env:FLOPMETER_CHECKPOINT"


def current_suggestions(reader: Reader, registry: Registry, question: Asked) -> tuple[Suggestion, ...]:
    """What there is to ask about the runs in the store. Raises StoreError."""
    books = RunBooks(reader, registry)
    facts = [_facts(d, books, registry) for d in reader.runs(question)]
    return suggestions(facts, question.regimes, Lineage.of(registry))


def _facts(document: dict[str, Any], books: RunBooks, registry: Registry) -> RunFacts:
    run = document["run"]
    members = books.members(run)
    declared = registry.declared(run)
    owner = declared.owner if declared is not None and declared.owner is not None else None
    users = sorted({m.user for m in members if m.user})
    return RunFacts(
        run=run,
        owner=owner if owner is not None else users[0] if len(users) == 1 else "",
        first_unix_ns=_unix_ns(document["first_seen"]),
        last_unix_ns=_unix_ns(document["last_seen"]),
        running=document["status"] == "running",
        models=frozenset(document["by_model"]),
        sites=frozenset(m.job.scope for m in members),
        checkpoints=frozenset(document["identities"].get(CHECKPOINT, ())),
        counted={name: int(c["flop"]["point"]) for name, c in document["countable"].items()},
    )


def _unix_ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 1_000_000


def suggestion_document(suggestion: Suggestion, registry: Registry) -> dict[str, Any]:
    """`runs suggestions --json`, one of them."""
    answer = registry.decisions.get(suggestion.id)
    return {
        "id": suggestion.id,
        "kind": suggestion.kind,
        "runs": list(suggestion.runs),
        "confidence": suggestion.confidence.value,
        "reasons": [
            {"signal": r.signal, "seen": r.seen, "not_proof": r.not_proof, "weight": r.weight}
            for r in suggestion.reasons
        ],
        "command": suggestion.command,
        "not_proof": suggestion.not_proof,
        "answer": None if answer is None else "accepted" if answer.accepted else "rejected",
    }
