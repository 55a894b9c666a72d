"""Which containers hold which GPUs, by the kubelet's list. Pure.

A device that stands under several pods at once is one of three things:

- shared: its id is a replica or a part, its claim is one claim of several pods, or two claims hold it by shares. All
  of them are named; nothing is split here.
- handed over: a device plugin's whole device. The kubelet gives it out again only once its pod has ended, and an ended
  pod that nobody deleted may linger in the list (kubelets before 1.34, for as long as it is there). So the one that
  came last holds it, from the list in which it stood first; until then, its predecessor (reference/deploy.md 1.3:
  attribute by the earlier sample's interval end).
- not to be told: all of them stood in the first list that was seen, or two DRA claims hold it whole (one of them may
  have admin access and only watch). Then all are named, as if it were shared, and processes have to tell them apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .device_ids import Gpus, meant, uuid_of_cdi
from .listing import Claimed, Container, Listing

#: The driver whose devices are GPUs (reference/deploy.md 1.3).
DRA_DRIVER = "gpu.nvidia.com"

PodName = tuple[str, str]  # (namespace, name): a name alone means one pod per namespace
SliceDevice = tuple[str, str, str]  # (driver, pool, device) of a ResourceSlice


class Hold(NamedTuple):
    """One container holds an entity."""

    pod: PodName
    container: str
    shared: bool = False  # by a replica or a share
    claim: str = ""  # of DRA; "" = by a device plugin


@dataclass(slots=True)
class Held:
    """Who holds what by one list, and which of its GPUs could not be found here."""

    by_entity: dict[str, list[Hold]] = field(default_factory=dict)
    unresolved: dict[str, str] = field(default_factory=dict)  # device, in words -> why
    unresolved_claims: bool = False  # among these are DRA devices that a ResourceSlice would tell

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and (self.by_entity, self.unresolved) == (
            other.by_entity,
            other.unresolved,
        )

    __hash__ = None  # type: ignore[assignment]


def held(listing: Listing, gpus: Gpus, slices: Mapping[SliceDevice, str]) -> Held:
    """`slices`: UUIDs by what the driver says of its devices (api.resource_slices); empty where nobody may ask."""
    found = Held()
    for container in listing:
        pod = (container.namespace, container.pod)
        for resource, device_id in container.devices:
            device = meant(resource, device_id, gpus)
            if device is None:
                continue
            if device.entity:
                hold = Hold(pod, container.name, device.shared)
                _add(found.by_entity.setdefault(device.entity, []), hold)
            else:
                found.unresolved[f"{resource} {device_id}"] = device.why
        for claimed in container.claimed:
            if claimed.driver == DRA_DRIVER:
                _claimed(found, container, claimed, gpus, slices)
    return found


def _claimed(
    found: Held, container: Container, claimed: Claimed, gpus: Gpus, slices: Mapping[SliceDevice, str]
) -> None:
    uuid = uuid_of_cdi(claimed.cdi) or slices.get((claimed.driver, claimed.pool, claimed.device), "")
    if not uuid:
        found.unresolved[claimed.name] = (
            "neither its CDI name nor a ResourceSlice that may be read has a UUID"
        )
        found.unresolved_claims = True
    elif uuid not in gpus.entities:
        found.unresolved[claimed.name] = "no GPU of that UUID is metered here"
    else:
        hold = Hold(
            (container.namespace, container.pod), container.name, bool(claimed.share), claimed.claim or "?"
        )
        _add(found.by_entity.setdefault(uuid, []), hold)


def _add(holds: list[Hold], hold: Hold) -> None:
    """A container with several replicas of one device holds it once."""
    if hold not in holds:
        holds.append(hold)


class HandOver:
    """Remembers which list each pod first held a device in."""

    def __init__(self) -> None:
        self._since: dict[str, dict[PodName, int]] = {}
        self._lists = 0

    def settle(self, found: Mapping[str, list[Hold]]) -> dict[str, tuple[Hold, ...]]:
        """The holders of each entity by the newest list, without those that have handed it over."""
        self._lists += 1
        since: dict[str, dict[PodName, int]] = {}
        settled: dict[str, tuple[Hold, ...]] = {}
        for entity, holds in found.items():
            before = self._since.get(entity, {})
            since[entity] = {h.pod: before.get(h.pod, self._lists) for h in holds}
            settled[entity] = tuple(_last(holds, since[entity]))
        self._since = since
        return settled


def _last(holds: list[Hold], since: Mapping[PodName, int]) -> list[Hold]:
    if len(since) < 2 or any(h.shared or h.claim for h in holds):
        return holds
    newest = max(since.values())
    return [h for h in holds if since[h.pod] == newest]
