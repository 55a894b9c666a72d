"""A tenant's own part of runs that others work in too. Pure.

Such a run is nobody's alone: its totals, verdicts, events and deadlines are of all who work in it, and a total less
one's own part would be the others'. What a tenant did itself is its own, and is the same as `fleet tenants` adds up.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.collector.figures import Model, Tally, is_others
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.report.documents import RunRows, WorkloadRow
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.w_table import WTable

from .tenancy import tenant_of_work

_SECOND_NS = 1_000_000_000


def shared_runs(
    rows: Iterable[RunRows],
    owners: Mapping[str, str],
    registry: Registry,
    models: Mapping[int, Model],
    table: WTable,
) -> dict[str, list[dict[str, Any]]]:
    """Tenant.id -> its parts of runs that are no one tenant's, the largest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for r in rows:
        if owners.get(r.run) != "":
            continue
        mine: dict[str, list[WorkloadRow]] = {}
        try:
            for w in r.workloads:
                mine.setdefault(tenant_of_work(r.run, w, registry).id, []).append(w)
        except Exception:  # noqa: BLE001, S112 - whose it is cannot be read: it is nobody's, as `owners` has said
            continue
        for tenant, workloads in mine.items():
            found.setdefault(tenant, []).append(_part(r, workloads, models, table))
    for parts in found.values():
        parts.sort(key=lambda p: (-int(p["flop"]["point"]), p["run"] or ""))
    return found


def _part(
    r: RunRows, workloads: list[WorkloadRow], models: Mapping[int, Model], table: WTable
) -> dict[str, Any]:
    dtypes = {w.workload_no: w.dtype for w in workloads}
    tally, time_ns = Tally(), 0
    for key, sums in r.groups.items():
        if key.workload_no in dtypes:
            tally.add(key, dtypes[key.workload_no], sums)
            time_ns += 0 if is_others(key.measured) else sums[0]
    flop, ops = tally.figures(models, table)
    # Where people alone put the work there, the run's name is somebody's who need not be this tenant.
    told = any(not w.assigned_by for w in workloads)
    return {
        "run": r.run if told else None,
        "jobs": len({(w.scope, w.kind, w.job) for w in workloads}),
        "flop": figure_json(flop),
        "integer_ops": figure_json(ops),
        "device_seconds": time_ns / _SECOND_NS,
        "first_seen": time_text(min(w.first_unix_ns for w in workloads)),
        "last_seen": time_text(max(w.last_unix_ns for w in workloads)),
    }
