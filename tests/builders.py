"""Signed, valid records and chains for tests, with every knob that a test may want to turn wrong.

chain = Chain("gpu-001")
raw = chain.next()                       # a good record of one busy minute, workload run "r1"
raw = chain.next(payload=b"not a batch")  # signed garbage
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from flopmeter.collector.figures import tally
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.ids import agent_id
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.record import DOMAIN, HELLO_DOMAIN, ZERO_HASH, record_hash, unsigned_record
from flopmeter.contract.usage import ALL_MEASURED, GapReason, Measured, Usage, Workload, WorkloadKind
from flopmeter.wire.v1 import batch_pb2, ingest_pb2

WINDOW_NS = 60_000_000_000
UNIX_NS = 1_790_000_000_000_000_000  # the FakeClock's epoch
SM_COUNT = 132
CLOCK_MHZ = 1_700
H100 = "NVIDIA H100 80GB HBM3"
TRAINING = Workload(WorkloadKind.SLURM, job="4711", run="r1", dtype="bf16")


def sign(message: bytes, secret_key: bytes) -> bytes:
    """The 64-byte Ed25519 signature."""
    return crypto_sign(message, secret_key)[:64]


def busy(entity: int = 0, workload: int = 0, *, duration_ns: int = WINDOW_NS, percent: int = 40) -> Usage:
    """A plausible A1 row: `percent` of the elapsed cycles in HMMA."""
    elapsed = SM_COUNT * CLOCK_MHZ * duration_ns // 1_000
    return Usage(
        entity_index=entity,
        workload_index=workload,
        evidence_class=EvidenceClass.A1,
        measured=ALL_MEASURED,
        spread_ppm=0,
        duration_ns=duration_ns,
        sm_elapsed_cycles=elapsed,
        sm_active_cycles=elapsed * 9 // 10,
        hmma_cycles=elapsed * percent // 100,
        fp32_cycles=elapsed // 50,
        energy_mj=duration_ns * 600 // 1_000_000,
    )


def gap(
    entity: int = 0,
    workload: int = 0,
    *,
    duration_ns: int = WINDOW_NS,
    reason: GapReason = GapReason.READ_FAILED,
) -> Usage:
    """Time without a reading, priced at the most that can have elapsed."""
    most = SM_COUNT * MAX_SM_CLOCK_MHZ * duration_ns // 1_000
    return Usage(entity, workload, EvidenceClass.GAP, Measured(0), 0, duration_ns, most, gap_reason=reason)


def inventory(
    node: str, *, gpus: int = 2, cluster: str = "c1", name: str = H100, capability: str = "9.0"
) -> bytes:
    """A serialised Inventory."""
    message = batch_pb2.Inventory(node=node, cluster=cluster, driver="595.1", nvml="13.1", source="sim")
    for i in range(gpus):
        digest = hashlib.sha256(f"{cluster}/{node}/{i}".encode()).hexdigest()
        message.devices.add(
            entity=f"GPU-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}",
            name=name,
            compute_capability=capability,
            sm_count=SM_COUNT,
            max_sm_clock_mhz=1_980,
        )
    return message.SerializeToString()


def batch(
    digest: bytes,
    usage: Iterable[Usage],
    workloads: Sequence[Workload] = (TRAINING,),
    *,
    boot_ns: tuple[int, int] = (1_000_000_000_000, 1_060_000_000_000),
    unix_ns: tuple[int, int] = (UNIX_NS, UNIX_NS + WINDOW_NS),
) -> batch_pb2.Batch:
    """A Batch message; change its fields before serialising to break it."""
    message = batch_pb2.Batch(
        agent_version="0.1.0",
        inventory_digest=digest,
        window_start_boot_ns=boot_ns[0],
        window_end_boot_ns=boot_ns[1],
        window_start_unix_ns=unix_ns[0],
        window_end_unix_ns=unix_ns[1],
    )
    for w in workloads:
        message.workloads.add(
            kind=w.kind,
            job=w.job,
            step=w.step,
            run=w.run,
            user=w.user,
            dtype=w.dtype,
            restart=w.restart,
            identities=[batch_pb2.Identity(name=name, value=value) for name, value in w.identities],
        )
    for u in usage:
        message.usage.add(**{name: int(getattr(u, name)) for name in Usage.__slots__})
    return message


class Chain:
    """One agent: a key, an inventory, and a chain of records that continues itself."""

    def __init__(
        self, node: str = "gpu-001", *, gpus: int = 2, cluster: str = "c1", key_seed: str = ""
    ) -> None:
        self.node = node
        self.gpus = gpus
        self.public_key, self.secret_key = crypto_sign_seed_keypair(
            hashlib.sha256(f"test key {key_seed or node}".encode()).digest()
        )
        self.agent_id = agent_id(self.public_key)
        self.boot_id = hashlib.sha256(f"boot of {node}".encode()).digest()[:16]
        self.inventory = inventory(node, gpus=gpus, cluster=cluster)
        self.digest = hashlib.sha256(self.inventory).digest()
        self.seq = 0
        self.prev_hash = ZERO_HASH
        self.boot_ns = 1_000_000_000_000
        self.unix_ns = UNIX_NS
        self.records: list[bytes] = []

    def batch(
        self, usage: Iterable[Usage] | None = None, workloads: Sequence[Workload] = (TRAINING,)
    ) -> batch_pb2.Batch:
        """The next window's Batch; all GPUs busy with the one workload unless `usage` says otherwise."""
        rows = [busy(i) for i in range(self.gpus)] if usage is None else usage
        return batch(
            self.digest,
            rows,
            workloads,
            boot_ns=(self.boot_ns, self.boot_ns + WINDOW_NS),
            unix_ns=(self.unix_ns, self.unix_ns + WINDOW_NS),
        )

    def seal(
        self,
        payload: bytes,
        *,
        seq: int | None = None,
        prev_hash: bytes | None = None,
        agent: bytes | None = None,
        secret_key: bytes | None = None,
        domain: bytes = DOMAIN,
    ) -> bytes:
        """A signed record that does not move the chain."""
        unsigned = unsigned_record(
            agent_id=agent or self.agent_id,
            boot_id=self.boot_id,
            seq=self.seq + 1 if seq is None else seq,
            prev_hash=self.prev_hash if prev_hash is None else prev_hash,
            payload=payload,
        )
        return unsigned + sign(domain + unsigned, secret_key or self.secret_key)

    def next(
        self,
        usage: Iterable[Usage] | None = None,
        workloads: Sequence[Workload] = (TRAINING,),
        *,
        payload: bytes | None = None,
    ) -> bytes:
        """The next good record of the chain; time moves one window on."""
        if payload is None:
            payload = self.batch(usage, workloads).SerializeToString()
        raw = self.seal(payload)
        self.seq += 1
        self.prev_hash = record_hash(raw)
        self.boot_ns += WINDOW_NS
        self.unix_ns += WINDOW_NS
        self.records.append(raw)
        return raw

    def reboot(self) -> None:
        """Another boot: boot time starts again."""
        self.boot_id = hashlib.sha256(self.boot_id).digest()[:16]
        self.boot_ns = 10_000_000_000

    # --- the stream's messages ---

    def hello_body(self, *, oldest_seq: int | None = None, newest_seq: int | None = None) -> bytes:
        return ingest_pb2.HelloBody(
            public_key=self.public_key,
            node=self.node,
            agent_version="0.1.0",
            boot_id=self.boot_id,
            oldest_seq=(1 if self.seq else 0) if oldest_seq is None else oldest_seq,
            newest_seq=self.seq if newest_seq is None else newest_seq,
        ).SerializeToString()

    def hello(self, nonce: bytes, *, body: bytes | None = None, secret_key: bytes | None = None) -> bytes:
        """A serialised StreamRequest holding a signed Hello."""
        body = self.hello_body() if body is None else body
        signature = sign(HELLO_DOMAIN + nonce + body, secret_key or self.secret_key)
        return ingest_pb2.StreamRequest(
            hello=ingest_pb2.Hello(body=body, signature=signature)
        ).SerializeToString()


def records_message(*records: bytes) -> bytes:
    """A serialised StreamRequest holding records."""
    return ingest_pb2.StreamRequest(records=ingest_pb2.Records(records=records)).SerializeToString()


def inventory_message(raw: bytes) -> bytes:
    """A serialised StreamRequest holding an inventory."""
    return ingest_pb2.StreamRequest(inventory=raw).SerializeToString()


def run_flop(groups: Any, models: Any, dtypes: Any, table: Any) -> Figure:
    """FLOP that one run executed, from all its groups."""
    return tally(groups, dtypes).figures(models, table)[0]
