"""Rows of runs: what `flopmeter runs list` shows of each, with the figures of `flopmeter runs show`."""

from typing import TYPE_CHECKING, Any

from flopmeter.collector.report.run_figures import RunFigures, run_figures
from flopmeter.contract.evidence_class import EvidenceClass

from .columns import Row, Rows
from .usage import six
from .wanted import Wanted, runs_wanted
from .whose import Workloads

if TYPE_CHECKING:
    from flopmeter.collector.report.queries import Asked, Reader

_CLASSES = tuple(c for c in EvidenceClass if c is not EvidenceClass.GAP)


def run_rows(reader: "Reader", question: "Asked", wanted: Wanted) -> Rows:
    """Every run by its name; what is asked for by time are runs that were seen within it. Raises StoreError."""
    names = runs_wanted(reader, Workloads(reader), wanted)
    side = reader.run_side(question)
    registry, lines = reader.registry(), side.lines(question)
    for rows in sorted(side.rows, key=lambda r: r.run):
        since, until = wanted.since_unix_ns, wanted.until_unix_ns
        if names is not None and rows.run not in names:
            continue
        if (since is not None and rows.last_unix_ns < since) or (
            until is not None and rows.first_unix_ns > until
        ):
            continue
        dtypes = {w.workload_no: w.dtype for w in rows.workloads}
        missing = side.silence.of(rows.run)
        figures = run_figures(rows.groups, side.models, dtypes, question.table, missing)
        brief = lines.of(rows)
        declared = registry.declared(rows.run)
        budget = None if declared is None else declared.budget_flop
        yield (
            rows.run,
            brief["status"],
            None if declared is None else declared.owner,
            None if declared is None or declared.purpose is None else declared.purpose.value,
            " ".join(sorted(set(dtypes.values()) - {""})) or None,
            None if budget is None else str(budget),
            rows.first_unix_ns,
            rows.last_unix_ns,
            len({(w.scope, w.kind, w.job) for w in rows.workloads}),
            *six(figures.flop, figures.integer_ops),
            *_times(figures),
            *_nearest(brief["thresholds"]),
            figures.w_table,
        )


def _times(figures: RunFigures) -> Row:
    parts = figures.by_evidence_class
    return (
        figures.sm_elapsed_cycles,
        figures.observed_ns,
        figures.gap_ns,
        figures.unreported_ns,
        *(parts[c.label].duration_ns if c.label in parts else 0 for c in _CLASSES),
        figures.apportioned_ns,
        figures.energy_mj,
        figures.energy_unmeasured_ns,
    )


def _nearest(thresholds: list[dict[str, Any]]) -> Row:
    if not thresholds:
        return (None, None, None, None)
    near = thresholds[0]
    return near["regime"], int(near["threshold_flop"]), near["comparison"], near["verdict"]
