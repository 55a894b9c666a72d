"""Batches and inventories as wire bytes: the agent's only meeting with protobuf.

What is encoded here is signed and never encoded again; the same batch gives the same bytes.
"""

import hashlib

from flopmeter.contract.usage import Batch, Inventory
from flopmeter.wire.v1 import batch_pb2 as pb


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
        message.workloads.add(
            kind=int(w.kind),
            job=w.job,
            step=w.step,
            run=w.run,
            user=w.user,
            dtype=w.dtype,
            restart=w.restart,
        )
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
        )
    for n in batch.notices:
        message.notices.add(
            kind=int(n.kind),
            t_boot_ns=n.t_boot_ns,
            t_unix_ns=n.t_unix_ns,
            entity_index_plus_one=n.entity_index + 1,
            detail=n.detail,
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
        )
    return message.SerializeToString(deterministic=True)


def inventory_digest(encoded: bytes) -> bytes:
    """SHA-256 of an inventory's wire bytes: the name that batches call it by."""
    return hashlib.sha256(encoded).digest()
