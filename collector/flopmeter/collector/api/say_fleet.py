"""GET /fleet, /fleet/nodes/{node}, /fleet/inventory, /fleet/tenants."""

from typing import Any

from flopmeter.collector.law.regimes import FLEET_CAPACITY
from flopmeter.collector.report.agent_queries import agents_numbered
from flopmeter.collector.report.fleet import AgentState, node_document
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.spelling import time_text
from flopmeter.contract.evidence_class import EvidenceClass

from .asking import Wish
from .books import Books
from .fleet_cells import entity_codes, packed
from .problems import Problem, missing, quoted
from .told import body_of, once, paged
from .view import FleetView, View, node_rows

MOST_MISSING = 200
_SECOND_NS = 1_000_000_000


def fleet(books: Books, _: Wish) -> bytes:
    view = books.view()
    return once(view, ("fleet",), lambda: _fleet(view, _whole(view)))


def _fleet(view: View, found: FleetView) -> dict[str, Any]:
    now = view.as_of_unix_ns
    rows = packed(node_rows(view, found))
    newest = rows["newest"]
    rows["newest"] = None if newest is None else time_text(newest * _SECOND_NS)
    missing_now = found.summary["not_reporting"]
    return {
        "as_of": time_text(now),
        **found.summary,
        "not_reporting": missing_now[:MOST_MISSING],
        "not_reporting_total": len(missing_now),
        "rows": rows,
    }


def node(books: Books, wish: Wish) -> bytes:
    view, name = books.view(), wish.names["node"]
    found = _whole(view)
    with books.reading() as reader:
        numbers = [
            no for (no,) in reader.rows("SELECT agent_no FROM agents WHERE node = ? ORDER BY 1", (name,))
        ]
        states = agents_numbered(reader, numbers)
        now = view.as_of_unix_ns  # as the map's: what moves with the clock moves by the view's minutes
        items = [
            node_document(s, now)
            | {"library_differs": s.node in found.odd, "devices": _devices(reader, view, s)}
            for s in states.values()
        ]
    if not items:
        raise missing(
            f"node {quoted(name)}: expected one of the fleet, found none", "GET /api/v1/fleet lists them"
        )
    return body_of(paged(now, items, more=None, total=len(items)))


def inventory(books: Books, _: Wish) -> bytes:
    view = books.view()

    def make() -> dict[str, Any]:
        lines = [r for r in books.laws(view.numbers.law).regimes if r.scope == FLEET_CAPACITY]
        with books.reading() as reader:
            found = reader.inventory(view.question, books.sites, lines)
        return {"as_of": time_text(view.as_of_unix_ns), **found}

    return once(view, ("inventory",), make)


def tenants(books: Books, _: Wish) -> bytes:
    """All hours of all runs are read for it, which takes long on a large store: a command of its own makes it."""
    as_of, document = books.apart.tenants()
    return body_of({"as_of": time_text(as_of), **document})


def _whole(view: View) -> FleetView:
    if view.fleet is None:
        raise Problem(500, f"the fleet's totals cannot be made: {view.fleet_fault}")
    return view.fleet


def _devices(reader: Reader, view: View, state: AgentState) -> list[dict[str, Any]]:
    """Each entity of the inventory, and who held it in the last window."""
    inventory, batch = state.inventory, state.batch
    if inventory is None or batch is None:
        return []
    held: dict[int, dict[int, int]] = {}
    classes: dict[int, dict[EvidenceClass, int]] = {}
    for u in batch.usage:
        by = held.setdefault(u.entity_index, {})
        by[u.workload_index] = by.get(u.workload_index, 0) + u.duration_ns
        of = classes.setdefault(u.entity_index, {})
        of[u.evidence_class] = of.get(u.evidence_class, 0) + u.duration_ns
    registry = view.registry
    found = []
    for i, (device, code) in enumerate(zip(inventory.devices, entity_codes(inventory, batch), strict=True)):
        by_class = classes.get(i, {})
        holders = []
        for index, time_ns in sorted(held.get(i, {}).items(), key=lambda item: (-item[1], item[0])):
            w = batch.workloads[index]
            run = reader.run_of(w, inventory, registry) if w.job else ""
            holders.append(
                {
                    "kind": w.kind.label,
                    "job": w.job,
                    "run": run or None,
                    "device_seconds": time_ns / _SECOND_NS,
                }
            )
        longest = max(by_class, key=lambda c: (by_class[c], -c), default=None)
        found.append(
            {
                "entity": device.entity,
                "name": device.name,
                "parent": device.parent,
                "mig": bool(device.mig),
                "code": code,
                "class": None if longest is None else longest.label,
                "device_seconds": sum(by_class.values()) / _SECOND_NS,
                "holders": holders,
            }
        )
    return found
