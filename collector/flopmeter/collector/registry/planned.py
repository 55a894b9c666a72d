"""What is declared of runs, and the runs of which no more than that is known: planned, and not begun. Pure."""

from collections.abc import Container
from typing import Any

from flopmeter.collector.spelling import time_text

from .codec import calibration_json
from .entries import Declare
from .state import Registry

#: What a run is of which nothing is metered yet.
NOT_BEGUN = "not begun"


def declared_document(registry: Registry, run: str) -> dict[str, Any] | None:
    """All that is declared of the run, and by which entries; None: nothing is."""
    d = registry.declared(run)
    if d is None:
        return None
    names = {run, *(name for name in registry.names(run) if registry.now(name) == run)}
    said = [e for e in registry.in_force if isinstance(e.statement, Declare) and e.statement.run in names]
    return {
        "owner": d.owner,
        "budget_flop": None if d.budget_flop is None else str(d.budget_flop),
        "hardware": d.hardware,
        "expected_end": None if d.expected_end_unix_ns is None else time_text(d.expected_end_unix_ns),
        "dtype": d.dtype,
        "purpose": None if d.purpose is None else d.purpose.value,
        "base_models": list(d.base_models),
        "calibration": None if d.calibration is None else calibration_json(d.calibration),
        "entries": [e.number for e in said],
        "by": list(dict.fromkeys(e.who for e in said)),
    }


def planned_runs(registry: Registry, begun: Container[str]) -> list[dict[str, Any]]:
    """Runs that were declared and of which nothing is metered: the largest budget first. They are in no total.

    `begun`: the runs that have work. A name that all of a run's work has lost plans nothing any more.
    """
    found: list[dict[str, Any]] = []
    for run in registry.declared_runs:
        if run in begun or registry.went(run) is not None:
            continue
        found.append({"run": run, "status": NOT_BEGUN, "declared": declared_document(registry, run)})
    found.sort(key=lambda d: (-int(d["declared"]["budget_flop"] or 0), d["run"]))
    return found
