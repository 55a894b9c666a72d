"""Which GPU or MIG instance a device id of the kubelet's list means. Pure.

An id is whatever the device plugin calls the device (reference/deploy.md 1.3):

    GPU-…, MIG-…              NVIDIA's plugin, by UUID; MIG-GPU-…/1/0 with drivers before R470
    GPU-…::3, MIG-…::0        a replica: time-slicing or MPS, several pods on one device
    0, 0::3                   NVIDIA's plugin with --device-id-strategy=index: NVML's numbering
    nvidia0                   GKE: the device node, that is the minor number, which is not NVML's index
    nvidia0/gi1               GKE: a MIG GPU instance of it
    nvidia0/vgpu0, nvidia0/gi1/vgpu0   GKE: a time-shared part of either

An index or a minor number is resolved by facts of this node and never guessed: charged to the wrong GPU, a job's
work would be booked for another's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.sources.pci import normal_address

#: Resources whose ids may be numbers of GPUs. Others of the vendor are none: nvidia.com/hostdev, the models of KubeVirt.
_GPU_RESOURCE = re.compile(r"nvidia\.com/(?:gpu|mig-)[A-Za-z0-9._-]*")
_UUID = re.compile(r"(?P<uuid>(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]{0,127})(?P<replica>::\d{1,6})?")
_NODE = re.compile(r"nvidia(?P<minor>\d{1,4})(?:/gi(?P<gi>\d{1,3}))?(?P<share>/vgpu\d{1,4})?", re.ASCII)
_INDEX = re.compile(r"(?P<index>\d{1,4})(?P<replica>::\d{1,6})?", re.ASCII)
#: A UUID in a CDI device's name: nvidia.com/gpu=GPU-…. The UID of a claim there is no GPU's.
_CDI = re.compile(
    r"[^=]*=(?:.*?[^0-9A-Za-z])??((?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![0-9A-Za-z])"
)


@dataclass(frozen=True, slots=True)
class Gpus:
    """The node's GPUs by every name that a device id may use."""

    entities: frozenset[str] = frozenset()
    by_index: Mapping[int, str] = field(default_factory=dict)  # NVML's numbering; empty = cannot be told
    by_minor: Mapping[int, str] = field(default_factory=dict)  # of /dev/nvidiaN
    instances: Mapping[tuple[str, int], str] = field(default_factory=dict)  # (GPU, GPU instance) -> MIG UUID


class Meant(NamedTuple):
    """What an id means."""

    entity: str  # UUID; "" = cannot be told
    shared: bool = False  # a replica or a part: others may hold others
    why: str = ""  # why it cannot be told


def gpus_of(facts: NodeFacts, minors: Mapping[str, int]) -> Gpus:
    """`minors`: minor number by PCI address (node_gpus.minor_numbers)."""
    whole = [d for d in facts.devices if not d.mig]
    # NVML numbers what it lists. Where it lists a GPU that is not metered, those behind it would be off by one.
    missing = any(u.vendor == "NVIDIA" for u in facts.uncovered)
    counted = facts.source == "nvml" and not missing
    by_address = {normal_address(d.pci_address): d.entity for d in whole if d.pci_address}
    return Gpus(
        frozenset(d.entity for d in facts.devices),
        {i: d.entity for i, d in enumerate(whole)} if counted else {},
        {minor: by_address[address] for address, minor in minors.items() if address in by_address},
        {(d.parent, d.gpu_instance): d.entity for d in facts.devices if d.mig and d.parent},
    )


def meant(resource: str, device_id: str, gpus: Gpus) -> Meant | None:
    """None: no GPU's id, but another device's."""
    if match := _UUID.fullmatch(device_id):
        uuid = match["uuid"].replace("/", "-")
        known = uuid in gpus.entities
        shared = match["replica"] is not None
        return Meant(uuid, shared) if known else Meant("", shared, "no GPU of that UUID is metered here")
    if not _GPU_RESOURCE.fullmatch(resource):
        return None
    if match := _NODE.fullmatch(device_id):
        return _by_minor(match, gpus)
    if match := _INDEX.fullmatch(device_id):
        shared = match["replica"] is not None
        if not gpus.by_index:
            return Meant("", shared, "an index, and NVML's numbering of this node's GPUs is not known whole")
        entity = gpus.by_index.get(int(match["index"]), "")
        return Meant(entity, shared, "" if entity else "an index that NVML does not have")
    return Meant("", why="a form of id that is not known")


def unknown_uuids(device_ids: Iterable[str], gpus: Gpus) -> set[str]:
    """UUIDs of GPUs and MIG instances among them, replicas or not, that nothing here meters."""
    found = (match["uuid"].replace("/", "-") for i in device_ids if (match := _UUID.fullmatch(i)))
    return {uuid for uuid in found if uuid not in gpus.entities}


def _by_minor(match: re.Match[str], gpus: Gpus) -> Meant:
    shared = match["share"] is not None
    gpu = gpus.by_minor.get(int(match["minor"]), "")
    if not gpu:
        return Meant("", shared, "which GPU has that device node is not known (/proc/driver/nvidia/gpus)")
    if match["gi"] is None:
        return Meant(gpu, shared)
    instance = gpus.instances.get((gpu, int(match["gi"])), "")
    return Meant(instance, shared, "" if instance else "no such MIG instance is metered here")


def uuid_of_cdi(names: Sequence[str]) -> str:
    """The UUID that a CDI device's name carries; "" if none does, or they differ."""
    found = {match[1] for name in names if (match := _CDI.match(name))}
    return found.pop() if len(found) == 1 else ""
