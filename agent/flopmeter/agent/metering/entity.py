"""A device as the arithmetic of intervals needs it: its SMs, its highest clock, how good its figures can be. Pure."""

from dataclasses import dataclass, replace

from flopmeter.agent.workloads.labels import tidy_label
from flopmeter.contract.errors import ContractError
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.ids import check_entity
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import Device
from flopmeter.contract.w_table import WTable

from .crosscheck import board_watts

#: More SMs than this no GPU has (the largest listed has 188, reference/metering.md 3.3): not believed, "not
#: known". Without an SM count no cycle is metered and no gap priced (contract.usage.Device.sm_count).
MOST_SMS = 1_024


@dataclass(frozen=True, slots=True)
class Entity:
    """A device with what the arithmetic needs of it, worked out once."""

    device: Device
    sm_count: int
    ceiling_khz: int  # no SM of it runs faster
    cycles_class: EvidenceClass
    percent_class: EvidenceClass
    from_dcgm: bool
    energy_only: bool  # a GPU cut into MIG instances: its SMs are metered there
    board_watts: int = 0  # the board's power limit; 0 = not known


def counts_on(before: Entity, now: Entity) -> bool:
    """Whether `now` counts on what `before` did: at most facts differ that no figure depends on."""
    told = now.device
    same = replace(
        before.device,
        serial=told.serial,
        pci_address=told.pci_address,
        persistence=told.persistence,
        confidential=told.confidential,
    )
    return replace(before, device=same) == now


def fit(device: Device) -> Device | None:
    """The device as the contract allows it, or None where its UUID is not one. Odd values become "not known"."""
    try:
        check_entity(device.entity)
        parent = check_entity(device.parent) if device.parent else ""
    except ContractError:
        return None
    return replace(
        device,
        name=tidy_label(device.name),
        compute_capability=tidy_label(device.compute_capability),
        serial=tidy_label(device.serial),
        pci_address=tidy_label(device.pci_address),
        parent=parent,
        sm_count=device.sm_count if 0 < device.sm_count <= MOST_SMS else 0,
        max_sm_clock_mhz=min(max(device.max_sm_clock_mhz, 0), MAX_SM_CLOCK_MHZ),
        gpu_instance=device.gpu_instance if 0 <= device.gpu_instance < MOST_SMS else -1,
    )


def describe(device: Device, table: WTable, *, source: str, parents: frozenset[str] = frozenset()) -> Entity:
    """Prepare `device`, read by `source`; `parents` are the UUIDs of GPUs that are cut into instances.

    On compute capability 10 and later the driver's maximum clock is not believed where it is below
    MAX_SM_CLOCK_MHZ: it can lie below the real boost (reference/metering.md 1.5). An exporter's cycle totals are
    A3: without percentages of the same time nothing can show that k is not 1 (7.2 item 2).
    """
    major = device.compute_capability.partition(".")[0]
    believed = major.isascii() and major.isdigit() and int(major) < 10 and device.max_sm_clock_mhz > 0
    mhz = min(device.max_sm_clock_mhz, MAX_SM_CLOCK_MHZ) if believed else MAX_SM_CLOCK_MHZ
    confirmed = table.confirmed(device.compute_capability, device.name)
    cycles_confirmed = confirmed and source != "dcgm"
    return Entity(
        device=device,
        sm_count=device.sm_count if 0 < device.sm_count <= MOST_SMS else 0,
        ceiling_khz=mhz * 1_000,
        cycles_class=EvidenceClass.A1 if cycles_confirmed else EvidenceClass.A3,
        percent_class=EvidenceClass.A2 if confirmed else EvidenceClass.A3,
        from_dcgm=source == "dcgm",
        energy_only=device.entity in parents,
        board_watts=board_watts(device),
    )
