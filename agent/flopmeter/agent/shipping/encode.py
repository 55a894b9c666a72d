"""Batches and inventories as wire bytes: the agent's only meeting with protobuf.

What is encoded here is signed and never encoded again; the same batch gives the same bytes.
"""

import hashlib
from dataclasses import dataclass

from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import NO_LIBRARY, Batch, Device, GapReason, Inventory, NoticeKind
from flopmeter.wire.v1 import batch_pb2 as pb

_SWITCH = {None: pb.SWITCH_UNSPECIFIED, False: pb.SWITCH_OFF, True: pb.SWITCH_ON}
_SWITCHED = {value: key for key, value in _SWITCH.items()}


def encode_batch(batch: Batch) -> bytes:
    """The payload of a record."""
    message = pb.Batch(
        agent_version=batch.agent_version,
        inventory_digest=batch.inventory_digest,
        window_start_boot_ns=batch.window_start_boot_ns,
        window_end_boot_ns=batch.window_end_boot_ns,
        window_start_unix_ns=batch.window_start_unix_ns,
        window_end_unix_ns=batch.window_end_unix_ns,
    )
    for w in batch.workloads:
        added = message.workloads.add(
            kind=int(w.kind),
            job=w.job,
            step=w.step,
            run=w.run,
            user=w.user,
            dtype=w.dtype,
            restart=w.restart,
        )
        for name, value in w.identities:
            added.identities.add(name=name, value=value)
    for u in batch.usage:
        message.usage.add(
            entity_index=u.entity_index,
            workload_index=u.workload_index,
            evidence_class=int(u.evidence_class),
            measured=int(u.measured),
            spread_ppm=u.spread_ppm,
            duration_ns=u.duration_ns,
            sm_elapsed_cycles=u.sm_elapsed_cycles,
            sm_active_cycles=u.sm_active_cycles,
            hmma_cycles=u.hmma_cycles,
            imma_cycles=u.imma_cycles,
            dmma_cycles=u.dmma_cycles,
            tensor_other_cycles=u.tensor_other_cycles,
            fp64_cycles=u.fp64_cycles,
            fp32_cycles=u.fp32_cycles,
            fp16_cycles=u.fp16_cycles,
            int_cycles=u.int_cycles,
            energy_mj=u.energy_mj,
            gap_reason=int(u.gap_reason),
        )
    for a in batch.anchors:
        message.anchors.add(
            entity_index=a.entity_index,
            t_boot_ns=a.t_boot_ns,
            t_unix_ns=a.t_unix_ns,
            epoch=a.epoch,
            scale=a.scale,
            counter_ids=[key for key, _ in a.counters],
            counter_values=[value for _, value in a.counters],
            energy_mj_plus_one=a.energy_mj + 1,
            k_ppm=a.k_ppm,
        )
    for n in batch.notices:
        message.notices.add(
            kind=int(n.kind),
            t_boot_ns=n.t_boot_ns,
            t_unix_ns=n.t_unix_ns,
            entity_index_plus_one=n.entity_index + 1,
            detail=n.detail,
        )
    for p in batch.progress:
        message.progress.add(
            workload_index=p.workload_index,
            t_boot_ns=p.t_boot_ns,
            t_unix_ns=p.t_unix_ns,
            tokens=p.tokens,
            parameters=p.parameters,
            flop_per_token=p.flop_per_token,
            ranks=p.ranks,
        )
    return message.SerializeToString(deterministic=True)


def encode_inventory(inventory: Inventory) -> bytes:
    """What a batch names by its digest."""
    message = pb.Inventory(
        node=inventory.node,
        cluster=inventory.cluster,
        driver=inventory.driver,
        nvml=inventory.nvml,
        source=inventory.source,
    )
    for d in inventory.devices:
        message.devices.add(
            entity=d.entity,
            name=d.name,
            compute_capability=d.compute_capability,
            sm_count=d.sm_count,
            max_sm_clock_mhz=d.max_sm_clock_mhz,
            serial=d.serial,
            mig=d.mig,
            parent=d.parent,
            gpu_instance_plus_one=d.gpu_instance + 1,
            pci_address=d.pci_address,
            persistence=_SWITCH[d.persistence],
            confidential=_SWITCH[d.confidential],
        )
    if inventory.library != NO_LIBRARY:
        found = inventory.library
        message.library.CopyFrom(
            pb.Library(path=found.path, sha256=found.sha256, kernel_module=found.kernel_module)
        )
    for other in inventory.uncovered:
        message.uncovered.add(
            pci_address=other.pci_address, vendor=other.vendor, model=other.model, reason=other.reason
        )
    return message.SerializeToString(deterministic=True)


def inventory_digest(encoded: bytes) -> bytes:
    """SHA-256 of an inventory's wire bytes: the name that batches call it by."""
    return hashlib.sha256(encoded).digest()


@dataclass(frozen=True, slots=True)
class Outline:
    """What must be known of a record of ours to say what is lost without it."""

    agent_version: str
    inventory_digest: bytes
    window_start_boot_ns: int
    window_end_boot_ns: int
    window_start_unix_ns: int
    window_end_unix_ns: int
    time_ns: dict[int, int]  # by entity_index, over all rows
    only_lost: bool  # meters nothing and quotes nothing: at most gaps of lost records
    notices: frozenset[int]  # kinds


def decode_outline(payload: bytes) -> Outline | None:
    """The outline of a record's payload; None if it is not a batch."""
    try:
        message = pb.Batch.FromString(payload)
    except Exception:  # noqa: BLE001 - DecodeError has no stable home in protobuf
        return None
    time_ns: dict[int, int] = {}
    for row in message.usage:
        time_ns[row.entity_index] = time_ns.get(row.entity_index, 0) + row.duration_ns
    return Outline(
        agent_version=message.agent_version,
        inventory_digest=message.inventory_digest,
        window_start_boot_ns=message.window_start_boot_ns,
        window_end_boot_ns=message.window_end_boot_ns,
        window_start_unix_ns=message.window_start_unix_ns,
        window_end_unix_ns=message.window_end_unix_ns,
        time_ns=time_ns,
        only_lost=not message.anchors
        and all(
            row.evidence_class == EvidenceClass.GAP and row.gap_reason == GapReason.RECORD_LOST
            for row in message.usage
        ),
        notices=frozenset(NoticeKind(n.kind) for n in message.notices if n.kind in set(NoticeKind)),
    )


def decode_devices(inventory: bytes) -> tuple[Device, ...]:
    """The devices of an inventory that we encoded."""
    message = pb.Inventory.FromString(inventory)
    return tuple(
        Device(
            entity=d.entity,
            name=d.name,
            compute_capability=d.compute_capability,
            sm_count=d.sm_count,
            max_sm_clock_mhz=d.max_sm_clock_mhz,
            serial=d.serial,
            mig=d.mig,
            parent=d.parent,
            gpu_instance=d.gpu_instance_plus_one - 1,
            pci_address=d.pci_address,
            persistence=_SWITCHED.get(d.persistence),
            confidential=_SWITCHED.get(d.confidential),
        )
        for d in message.devices
    )
