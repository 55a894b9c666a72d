"""What an entry would change, without making it: the same reports, read with one more entry before their eyes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.report.queries import Asked, reading
from flopmeter.collector.store.entries import INSERT

from .codec import to_row
from .entries import Entry

Documents = Mapping[str, Mapping[str, Any]]


def effect(path: Path, entry: Entry, question: Asked) -> list[dict[str, Any]]:
    """Totals that `entry` would change: run, what ("executed", or a regime), FLOP before and after (None: no run).

    The entry is laid over the store's in a temporary table of this reader alone; nothing is written, and a collector
    that runs is not held up.
    """
    with reading(path) as reader:
        before = {d["run"]: d for d in reader.runs(question)}
        reader.rows("CREATE TEMP TABLE entries AS SELECT * FROM main.entries")
        reader.rows(INSERT, to_row(entry, NO_HASH))
        after = {d["run"]: d for d in reader.runs(question)}
    return [change for run in sorted(before.keys() | after.keys()) for change in _changes(run, before, after)]


def _changes(run: str, before: Documents, after: Documents) -> list[dict[str, Any]]:
    was, now = _totals(before.get(run)), _totals(after.get(run))
    return [
        {"run": run, "total": name, "before": was.get(name), "after": now.get(name)}
        for name in dict.fromkeys((*was, *now))
        if was.get(name) != now.get(name)
    ]


def _totals(document: Mapping[str, Any] | None) -> dict[str, Any]:
    if document is None:
        return {}
    return {
        "executed": document["executed"]["flop"],
        **{name: c["flop"] for name, c in document["countable"].items()},
        **{f"{m['regime']} (of {m['original']})": m["counted"] for m in document["modifications"]},
    }
