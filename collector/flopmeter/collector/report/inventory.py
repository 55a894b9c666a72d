"""`flopmeter fleet inventory`: per cluster which GPUs there are, and their dense peak by precision. Pure.

Peaks are SMs x rate x official tensor clock, dense, never sparse (reference/regulations.md section 13 item 23); the
operations of different bit widths are listed apart and not weighted (item 15). Network speed and site are in no
inventory that an agent can read: they are null, and said to be.
"""

from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from flopmeter.collector.errors import EstimateError
from flopmeter.collector.estimate.peaks import dense, find
from flopmeter.contract.usage import Device, Inventory
from flopmeter.contract.w_table import Sku, WTable

from .coverage import NotReporting
from .fleet import AgentState

PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp8", "fp4")
#: EU reporting of computing clusters and the US rule that was rescinded both name 10^20 op/s (regulations.md 13.23).
LINE_OP_PER_S = 10**20


def inventory_document(
    agents: Iterable[AgentState], missing: Iterable[NotReporting], table: WTable
) -> dict[str, Any]:
    """`fleet inventory --json`; every node that ever told of its GPUs stands in it, silent ones too."""
    clusters: dict[str, list[tuple[AgentState, Inventory]]] = {}
    for agent in agents:
        if agent.inventory is not None:
            clusters.setdefault(agent.inventory.cluster, []).append((agent, agent.inventory))
    return {
        "clusters": [_cluster(name, told, table) for name, told in sorted(clusters.items())],
        "not_reporting": [m.document() for m in missing],
        "w_table": table.id,
    }


def _cluster(name: str, told: list[tuple[AgentState, Inventory]], table: WTable) -> dict[str, Any]:
    # A node that was set up anew has two agents: its GPUs are one, by UUID.
    gpus: dict[str, str] = {}
    for _, inventory in told:
        by_uuid = {d.entity: d for d in inventory.devices}
        for device in inventory.devices:
            whole = by_uuid.get(device.parent, device) if device.parent else device
            gpus[device.parent or device.entity] = _model(whole)
    counts: dict[str, int] = {}
    for model in gpus.values():
        counts[model] = counts.get(model, 0) + 1
    models = [_of_model(model, count, table) for model, count in sorted(counts.items())]
    peaks = {
        p: sum(int(m["peak_op_per_s"][p]) for m in models if p in m["peak_op_per_s"]) for p in PRECISIONS
    }
    return {
        "cluster": name,
        "nodes": len({inventory.node for _, inventory in told}),
        "gpus": sum(counts.values()),
        "models": models,
        "peak_op_per_s": {p: str(total) for p, total in peaks.items() if total},
        "share_of_1e20_op_per_s": max(peaks.values(), default=0) / LINE_OP_PER_S,
        "models_without_a_peak": [m["model"] for m in models if not m["peak_op_per_s"]],
        "uncovered": sum(len(inventory.uncovered) for _, inventory in told),
        "network_gbit_per_s": None,
        "site": None,
    }


def _model(device: Device) -> str:
    """A MIG instance stands for the GPU that it is cut from, where that is not listed itself."""
    return device.name.partition(" MIG ")[0] if device.mig else device.name


def _of_model(model: str, count: int, table: WTable) -> dict[str, Any]:
    sku = _sku(model, table)
    peaks: dict[str, Fraction] = {}
    for precision in PRECISIONS if sku is not None else ():
        assert sku is not None
        peak = dense(sku, precision, table)
        if peak is not None:
            peaks[precision] = peak
    return {
        "model": model,
        "gpus": count,
        "peak_op_per_s": {p: str(int(peak * count)) for p, peak in peaks.items()},
        "confirmed": sku is not None and sku.confirmed,
    }


def _sku(model: str, table: WTable) -> Sku | None:
    try:
        return find(model, table)
    except EstimateError:  # the name fits several: none is guessed
        return None
