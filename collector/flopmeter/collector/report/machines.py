"""Every GPU that inventories tell of, once, and where it stands. Pure.

A GPU is one by its UUID: a node that was set up anew has two agents, and a card that was moved two nodes. It is then
where it was seen last. MIG instances are the GPU that they are cut from.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flopmeter.contract.usage import Device, Inventory

from .sites import Place, Sites


@dataclass(frozen=True, slots=True)
class Told:
    """An agent's inventory as its last record names it, and when that record's window ended."""

    inventory: Inventory
    window_end_unix_ns: int


@dataclass(frozen=True, slots=True)
class Machine:
    """One GPU."""

    entity: str
    model: str
    node: str
    cluster: str
    place: Place


def machines(told: Iterable[Told], sites: Sites) -> list[Machine]:
    """By UUID. Of two agents that tell of one, the later counts; of two as late, the later by node's name."""
    found: dict[str, Machine] = {}
    for t in sorted(told, key=lambda t: (t.window_end_unix_ns, t.inventory.node)):
        inventory = t.inventory
        place = sites.place(inventory.cluster, inventory.node)
        for entity, model in gpus_of(inventory).items():
            found[entity] = Machine(entity, model, inventory.node, inventory.cluster, place)
    return [found[entity] for entity in sorted(found)]


def gpus_of(inventory: Inventory) -> dict[str, str]:
    """UUID -> model of each whole GPU."""
    by_uuid = {d.entity: d for d in inventory.devices}
    found = {}
    for device in inventory.devices:
        whole = by_uuid.get(device.parent, device) if device.parent else device
        found[device.parent or device.entity] = model_of(whole)
    return found


def counted(found: Iterable[Machine]) -> dict[tuple[Place, str], int]:
    """How many GPUs stand where, by model."""
    counts: dict[tuple[Place, str], int] = {}
    for m in found:
        counts[m.place, m.model] = counts.get((m.place, m.model), 0) + 1
    return counts


def model_of(device: Device) -> str:
    """A MIG instance stands for the GPU that it is cut from, where that is not listed itself."""
    return device.name.partition(" MIG ")[0] if device.mig else device.name
