"""`flopmeter fleet inventory`: which GPUs there are, where, their dense peak by precision, and what that makes a site. Pure.

Peaks are dense, never sparse (reference/regulations.md section 13 item 23); the operations of different bit widths are
listed apart and not weighted, and export control's TPP stands in a field of its own (item 15). Network speed and site
are in no inventory that an agent can read: the operator's file says them (sites.py), and without it they are not known.
"""

from collections.abc import Iterable
from typing import Any

from flopmeter.collector.estimate.peaks import dense
from flopmeter.collector.law.regimes import Regime
from flopmeter.contract.usage import Inventory
from flopmeter.contract.w_table import WTable

from .capacity import SITE_UNKNOWN, Unseen, capacities, capacity_document
from .coverage import Missing, NotReporting
from .export_control import card_json, rules_json
from .fleet import AgentState
from .machines import Machine, Told, counted, machines
from .peak import INTEGER, PRECISIONS, best_op_s, peaks_op_s, sku_of
from .sites import NO_SITES, Sites

#: EU reporting of computing clusters and the US rule that was rescinded both name 10^20 op/s (regulations.md 13.23).
LINE_OP_PER_S = 10**20
#: GPUs that exist and are in no inventory; those of silent and stopped agents are in their last one.
_UNSEEN = frozenset({Missing.NEVER, Missing.UNCOVERED, Missing.EXPECTED, Missing.FEWER})


def inventory_document(
    agents: Iterable[AgentState],
    missing: Iterable[NotReporting],
    table: WTable,
    *,
    sites: Sites = NO_SITES,
    regimes: Iterable[Regime] = (),
    now_unix_ns: int = 0,
) -> dict[str, Any]:
    """`fleet inventory --json`; every node that ever told of its GPUs stands in it, silent ones too.

    `regimes`: those with a capacity.
    """
    told = [Told(a.inventory, a.window_end_unix_ns) for a in agents if a.inventory is not None]
    missing = list(missing)
    found = machines(told, sites)
    clusters = sorted({t.inventory.cluster for t in told})
    unseen = unseen_of(missing, [t.inventory for t in told], sites)
    return {
        "clusters": [_cluster(name, found, told, table) for name in clusters],
        "sites": [_site(name, found, unseen, table) for name in sorted({m.place.site for m in found})],
        "capacity": [
            capacity_document(r, capacities(r, counted(found), unseen, table), now_unix_ns) for r in regimes
        ],
        "export_control_rules": rules_json(),
        "sites_file": sites.digest or None,
        "not_reporting": [m.document() for m in missing],
        "w_table": table.id,
    }


def unseen_of(missing: Iterable[NotReporting], told: Iterable[Inventory], sites: Sites) -> list[Unseen]:
    """GPUs that are known to exist and in no inventory, by the site of their node."""
    clusters = {i.node: i.cluster for i in told}
    return [
        Unseen(sites.place(clusters.get(m.node), m.node).site, m.gpus) for m in missing if m.cause in _UNSEEN
    ]


def _cluster(name: str, found: list[Machine], told: list[Told], table: WTable) -> dict[str, Any]:
    mine = [m for m in found if m.cluster == name]
    inventories = [t.inventory for t in told if t.inventory.cluster == name]
    models = _models(mine, table)
    places = {m.place for m in mine}
    (place,) = places if len(places) == 1 else (None,)
    peaks = _sums(models)
    return {
        "cluster": name,
        "nodes": len({i.node for i in inventories}),
        "gpus": len(mine),
        "models": models,
        "peak_op_per_s": {p: str(total) for p, total in peaks.items() if total},
        "share_of_1e20_op_per_s": max(peaks.values(), default=0) / LINE_OP_PER_S,
        "models_without_a_peak": [m["model"] for m in models if not m["peak_op_per_s"]],
        "uncovered": sum(len(i.uncovered) for i in inventories),
        # null also where its nodes stand at several sites, or behind several networks: "sites" has them apart.
        "network_gbit_per_s": None if place is None else place.network_gbit_per_s,
        "site": None if place is None or not place.site else place.site,
    }


def _site(name: str, found: list[Machine], unseen: list[Unseen], table: WTable) -> dict[str, Any]:
    mine = [m for m in found if m.place.site == name]
    models = _models(mine, table)
    absent = [u.gpus for u in unseen if u.site == name]
    networks = {m.place.network_gbit_per_s for m in mine}
    return {
        "site": None if name == SITE_UNKNOWN else name,
        "clusters": sorted({m.cluster for m in mine}),
        "nodes": len({m.node for m in mine}),
        "gpus": len(mine),
        "models": [{"model": m["model"], "gpus": m["gpus"]} for m in models],
        "peak_op_per_s": {p: str(total) for p, total in _sums(models).items() if total},
        # each GPU at the precision in which it does most, integers included
        "best_op_per_s": str(sum(int(m["best_op_per_s"]) for m in models)),
        "network_gbit_per_s": sorted(n for n in networks if n is not None),
        "network_unknown_gpus": sum(m.place.network_gbit_per_s is None for m in mine),
        "in_no_inventory": {"gpus": sum(n or 0 for n in absent), "and_more": None in absent},
    }


def _sums(models: Iterable[dict[str, Any]]) -> dict[str, int]:
    models = list(models)
    return {p: sum(int(m["peak_op_per_s"].get(p, 0)) for m in models) for p in PRECISIONS}


def _models(found: Iterable[Machine], table: WTable) -> list[dict[str, Any]]:
    counts: dict[str, int] = {}
    for m in found:
        counts[m.model] = counts.get(m.model, 0) + 1
    return [_of_model(model, count, table) for model, count in sorted(counts.items())]


def _of_model(model: str, count: int, table: WTable) -> dict[str, Any]:
    sku, peaks = sku_of(model, table), peaks_op_s(model, table)
    return {
        "model": model,
        "gpus": count,
        "peak_op_per_s": {p: str(peaks[p] * count) for p in PRECISIONS if p in peaks},
        "peak_integer_op_per_s": {INTEGER: str(peaks[INTEGER] * count)} if INTEGER in peaks else {},
        "best_op_per_s": str(best_op_s(peaks) * count),
        # whether the rates behind it are the W table's own, or a datasheet's figure that nothing reconciles
        "peak_computed": sku is not None and dense(sku, "bf16", table) is not None,
        "confirmed": sku is not None and sku.confirmed,
        "export_control": card_json(model, table),  # per card, and no operations: never added to any
    }
