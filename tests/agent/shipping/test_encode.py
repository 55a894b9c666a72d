"""What is signed: every field of the contract's types on the wire, the same bytes each time."""

import hashlib
from dataclasses import replace

import pytest
from metering import JOB_A, device

from flopmeter.agent.shipping.encode import encode_batch, encode_inventory, inventory_digest
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import (
    ALL_MEASURED,
    Anchor,
    Batch,
    GapReason,
    Inventory,
    Measured,
    Notice,
    NoticeKind,
    Usage,
)
from flopmeter.wire.v1 import batch_pb2 as pb

USAGE = Usage(1, 0, EvidenceClass.A2, ALL_MEASURED, 5_000, 60, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
GAP = Usage(0, 1, EvidenceClass.GAP, Measured(0), 0, 60, 2, gap_reason=GapReason.LOST)
ANCHOR = Anchor(2, 10, 11, 3, 132, ((248, 5), (249, 6)), 0)
NOTICE = Notice(NoticeKind.CLOCK_STEPPED, 7, 8, 0, "detail")
BATCH = Batch(
    "0.1.0", bytes(range(32)), 1, 2, 3, 4, (replace(JOB_A, restart=2),), (USAGE, GAP), (ANCHOR,), (NOTICE,)
)
INVENTORY = Inventory(
    "node-a",
    "c1",
    "595",
    "13",
    "nvml",
    (device(serial="1"), device(1, mig=True, parent="GPU-0", gpu_instance=0)),
)


def parsed() -> pb.Batch:
    return pb.Batch.FromString(encode_batch(BATCH))


def test_every_number_of_usage_arrives() -> None:
    message = parsed()
    for row, want in zip(message.usage, (USAGE, GAP), strict=True):
        for name in Usage.__slots__:
            assert getattr(row, name) == int(getattr(want, name)), name
    assert {f.name for f in pb.Usage.DESCRIPTOR.fields} == set(Usage.__slots__)


def test_times_workloads_anchors_and_notices_arrive() -> None:
    message = parsed()
    for name in ("agent_version", "inventory_digest", "window_start_boot_ns", "window_end_boot_ns"):
        assert getattr(message, name) == getattr(BATCH, name)
    assert (message.window_start_unix_ns, message.window_end_unix_ns) == (3, 4)
    workload = message.workloads[0]
    for name in ("kind", "job", "step", "run", "user", "dtype", "restart"):
        assert getattr(workload, name) == getattr(BATCH.workloads[0], name)
    anchor = message.anchors[0]
    assert (anchor.entity_index, anchor.t_boot_ns, anchor.t_unix_ns) == (2, 10, 11)
    assert (anchor.epoch, anchor.scale, anchor.energy_mj_plus_one) == (3, 132, 1)
    assert (list(anchor.counter_ids), list(anchor.counter_values)) == ([248, 249], [5, 6])
    notice = message.notices[0]
    assert (notice.kind, notice.t_boot_ns, notice.t_unix_ns) == (NoticeKind.CLOCK_STEPPED, 7, 8)
    assert (notice.entity_index_plus_one, notice.detail) == (1, "detail")


def test_not_read_and_the_node_are_zero_on_the_wire() -> None:
    batch = replace(
        BATCH, anchors=(replace(ANCHOR, energy_mj=-1),), notices=(replace(NOTICE, entity_index=-1),)
    )
    message = pb.Batch.FromString(encode_batch(batch))
    assert message.anchors[0].energy_mj_plus_one == 0
    assert message.notices[0].entity_index_plus_one == 0


def test_inventory() -> None:
    raw = encode_inventory(INVENTORY)
    message = pb.Inventory.FromString(raw)
    assert (message.node, message.cluster, message.driver, message.nvml) == ("node-a", "c1", "595", "13")
    assert message.source == "nvml"
    for got, want in zip(message.devices, INVENTORY.devices, strict=True):
        for name in ("entity", "name", "compute_capability", "sm_count", "max_sm_clock_mhz", "serial", "mig"):
            assert getattr(got, name) == getattr(want, name)
        assert got.parent == want.parent
        assert got.gpu_instance_plus_one == want.gpu_instance + 1
    assert inventory_digest(raw) == hashlib.sha256(raw).digest()


def test_same_meaning_same_bytes() -> None:
    assert encode_batch(BATCH) == encode_batch(replace(BATCH))
    assert encode_inventory(INVENTORY) == encode_inventory(replace(INVENTORY))
    assert encode_batch(BATCH) != encode_batch(replace(BATCH, usage=(GAP, USAGE)))


def test_a_number_that_the_wire_cannot_hold_is_an_error_not_another_number() -> None:
    with pytest.raises(ValueError, match="range"):
        encode_batch(replace(BATCH, usage=(replace(USAGE, hmma_cycles=1 << 64),)))
