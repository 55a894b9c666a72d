"""Wire bytes as the contract's frozen types, for fsck, reports and people; and what the hot path shares with them.

The hot path itself is ingest/encode.py. Nothing is ever encoded again. Unknown protobuf fields are ignored and
survive: what is stored and hashed are the received bytes, so a newer agent's extra fields stay readable for a
newer collector. Unknown *numbers* in known fields (enums, evidence classes, spreads) are refused, because
adding them up would mean guessing what they mean.
"""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.contract.errors import ContractError
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.identity import check_identities
from flopmeter.contract.ids import check_entity, check_label
from flopmeter.contract.limits import MAX_ENTITIES, MAX_RECORD_BYTES
from flopmeter.contract.usage import (
    Anchor,
    Batch,
    Device,
    GapReason,
    Inventory,
    Library,
    Measured,
    Notice,
    NoticeKind,
    Progress,
    Uncovered,
    Usage,
    Workload,
    WorkloadKind,
)
from flopmeter.wire.v1 import batch_pb2

#: No GPU listed has more than 192 SMs; the bound keeps one row's cycles below 2^63.
MAX_SM_COUNT = 1_024
_KINDS = frozenset(int(k) for k in WorkloadKind)

_SWITCHED = {batch_pb2.SWITCH_OFF: False, batch_pb2.SWITCH_ON: True}


def parse_batch(payload: bytes) -> batch_pb2.Batch:
    try:
        return batch_pb2.Batch.FromString(payload)
    except DecodeError as e:
        raise ContractError(
            f"payload: expected a flopmeter.wire.v1.Batch, got {len(payload)} bytes that do not parse: {e}"
        ) from e


def decode_workload(w: batch_pb2.Workload, index: int) -> Workload:
    """The workload at `index` of a batch, checked. Raises ContractError."""
    if w.kind not in _KINDS:
        raise ContractError(f"workload {index}: kind {w.kind} is not known")
    return Workload(
        kind=WorkloadKind(w.kind),
        job=check_label("job", w.job),
        step=check_label("step", w.step),
        run=check_label("run", w.run),
        user=check_label("user", w.user),
        dtype=check_label("dtype", w.dtype),
        restart=w.restart,
        identities=check_identities((i.name, i.value) for i in w.identities) if w.identities else (),
    )


def decode_inventory(raw: bytes) -> Inventory:
    """The inventory in `raw`, checked against the contract. Raises ContractError."""
    if len(raw) > MAX_RECORD_BYTES:
        raise ContractError(f"inventory: expected at most {MAX_RECORD_BYTES} bytes, got {len(raw)}")
    try:
        m = batch_pb2.Inventory.FromString(raw)
    except DecodeError as e:
        raise ContractError(f"inventory: expected a flopmeter.wire.v1.Inventory, got {e}") from e
    if len(m.devices) > MAX_ENTITIES:
        raise ContractError(f"inventory: expected at most {MAX_ENTITIES} devices, got {len(m.devices)}")
    devices = tuple(_device(d) for d in m.devices)
    if len({d.entity for d in devices}) != len(devices):
        raise ContractError("inventory: expected each entity once")
    for name in ("node", "cluster", "driver", "nvml", "source"):
        check_label(name, getattr(m, name))
    if len(m.uncovered) > MAX_ENTITIES:
        raise ContractError(f"inventory: expected at most {MAX_ENTITIES} uncovered, got {len(m.uncovered)}")
    return Inventory(
        node=m.node,
        cluster=m.cluster,
        driver=m.driver,
        nvml=m.nvml,
        source=m.source,
        devices=devices,
        library=Library(
            path=check_label("library path", m.library.path),
            sha256=check_label("library sha256", m.library.sha256),
            kernel_module=check_label("kernel module", m.library.kernel_module),
        ),
        uncovered=tuple(
            Uncovered(
                pci_address=check_label("pci_address", u.pci_address),
                vendor=check_label("vendor", u.vendor),
                model=check_label("model", u.model),
                reason=check_label("reason", u.reason),
            )
            for u in m.uncovered
        ),
    )


def _device(d: batch_pb2.Device) -> Device:
    if d.sm_count > MAX_SM_COUNT:
        raise ContractError(f"device {d.entity}: expected at most {MAX_SM_COUNT} SMs, got {d.sm_count}")
    return Device(
        entity=check_entity(d.entity),
        name=check_label("device name", d.name),
        compute_capability=check_label("compute_capability", d.compute_capability),
        sm_count=d.sm_count,
        max_sm_clock_mhz=d.max_sm_clock_mhz,
        serial=check_label("serial", d.serial),
        mig=d.mig,
        parent=check_entity(d.parent) if d.parent else "",
        gpu_instance=d.gpu_instance_plus_one - 1,
        pci_address=check_label("pci_address", d.pci_address),
        persistence=_SWITCHED.get(d.persistence),
        confidential=_SWITCHED.get(d.confidential),
    )


def decode_batch(payload: bytes) -> Batch:
    """The batch in `payload` as contract types, for readers that take their time (fsck, fleet, people).

    Raises ContractError where the bytes do not parse or hold numbers unknown here. Does not repeat the
    checks against the inventory: what is in the books passed them.
    """
    m = parse_batch(payload)
    try:
        return Batch(
            agent_version=m.agent_version,
            inventory_digest=m.inventory_digest,
            window_start_boot_ns=m.window_start_boot_ns,
            window_end_boot_ns=m.window_end_boot_ns,
            window_start_unix_ns=m.window_start_unix_ns,
            window_end_unix_ns=m.window_end_unix_ns,
            workloads=tuple(decode_workload(w, i) for i, w in enumerate(m.workloads)),
            usage=tuple(_usage(m.usage)),
            anchors=tuple(_anchor(a) for a in m.anchors),
            notices=tuple(decode_notice(n) for n in m.notices),
            progress=tuple(decode_progress(p) for p in m.progress),
        )
    except ContractError:
        raise
    except ValueError as e:
        raise ContractError(f"payload: {e}") from e


def _usage(rows: Iterable[batch_pb2.Usage]) -> Iterable[Usage]:
    for r in rows:
        yield Usage(
            entity_index=r.entity_index,
            workload_index=r.workload_index,
            evidence_class=EvidenceClass(r.evidence_class),
            measured=Measured(r.measured),
            spread_ppm=r.spread_ppm,
            gap_reason=GapReason(r.gap_reason),
            **{name: getattr(r, name) for name in SUM_FIELDS},
        )


def _anchor(a: batch_pb2.Anchor) -> Anchor:
    return Anchor(
        entity_index=a.entity_index,
        t_boot_ns=a.t_boot_ns,
        t_unix_ns=a.t_unix_ns,
        epoch=a.epoch,
        scale=a.scale,
        counters=tuple(zip(a.counter_ids, a.counter_values, strict=False)),
        energy_mj=a.energy_mj_plus_one - 1,
        k_ppm=tuple(a.k_ppm),
    )


def decode_notice(n: batch_pb2.Notice) -> Notice:
    return Notice(
        kind=NoticeKind(n.kind),
        t_boot_ns=n.t_boot_ns,
        t_unix_ns=n.t_unix_ns,
        entity_index=n.entity_index_plus_one - 1,
        detail=n.detail,
    )


def decode_progress(p: batch_pb2.Progress) -> Progress:
    return Progress(
        workload_index=p.workload_index,
        t_boot_ns=p.t_boot_ns,
        t_unix_ns=p.t_unix_ns,
        tokens=p.tokens,
        parameters=p.parameters,
        flop_per_token=p.flop_per_token,
        ranks=p.ranks,
    )
