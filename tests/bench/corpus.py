"""The load: what agents of N nodes x 8 GPUs would send, signed and serialised before any clock runs.

A node batch is one workload and 8 usage rows of 12 numbers = 96 samples, sealed by the agent's own encoder.
"""

import hashlib
import pickle
import random
import time
from dataclasses import dataclass
from pathlib import Path

import nacl.bindings

from flopmeter.agent.shipping import encode
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.ids import agent_id
from flopmeter.contract.record import (
    DOMAIN,
    HELLO_DOMAIN,
    SIGNATURE_BYTES,
    ZERO_HASH,
    record_hash,
    unsigned_record,
)
from flopmeter.contract.usage import ALL_MEASURED, Batch, Device, Inventory, Usage, Workload, WorkloadKind
from flopmeter.wire.v1 import ingest_pb2 as pb

GPUS = 8
SAMPLES = GPUS * 12
WINDOW_NS = 60_000_000_000
NODES_PER_RUN = 64
SMS, CLOCK_HZ = 132, 1_700_000_000  # an H100 SXM under load
VERSION = "0.1.0"


@dataclass(slots=True)
class Node:
    """One agent, ready to send. `messages` are serialised StreamRequests of one record each."""

    name: str
    public_key: bytes
    secret_key: bytes
    boot_id: bytes
    inventory: bytes
    inventory_message: bytes
    records: list[bytes]
    messages: list[bytes]

    def hello(self, nonce: bytes) -> bytes:
        """A serialised StreamRequest holding the signed Hello for this stream's challenge."""
        body = pb.HelloBody(
            public_key=self.public_key,
            node=self.name,
            agent_version=VERSION,
            boot_id=self.boot_id,
            oldest_seq=1 if self.records else 0,
            newest_seq=len(self.records),
        ).SerializeToString()
        signature = _sign(HELLO_DOMAIN + nonce + body, self.secret_key)
        return pb.StreamRequest(hello=pb.Hello(body=body, signature=signature)).SerializeToString()


def _sign(message: bytes, secret_key: bytes) -> bytes:
    return nacl.bindings.crypto_sign(message, secret_key)[:SIGNATURE_BYTES]


def build(nodes: int, records_each: int, *, first: int = 0, end_unix_ns: int | None = None) -> list[Node]:
    """Nodes `first` … `first + nodes`; windows of 60 s that end now or before."""
    end = end_unix_ns or time.time_ns()
    return [_node(first + i, records_each, end) for i in range(nodes)]


def _node(number: int, count: int, end_unix_ns: int) -> Node:
    rng = random.Random(number)
    public, secret = nacl.bindings.crypto_sign_seed_keypair(
        hashlib.sha256(b"bench node %d" % number).digest()
    )
    name = f"gpu-{number:05d}"
    inventory = encode.encode_inventory(_inventory(number, name))
    node = Node(
        name=name,
        public_key=public,
        secret_key=secret,
        boot_id=rng.randbytes(16),
        inventory=inventory,
        inventory_message=pb.StreamRequest(inventory=inventory).SerializeToString(),
        records=[],
        messages=[],
    )
    digest = hashlib.sha256(inventory).digest()
    run_no = number // NODES_PER_RUN
    workload = Workload(
        WorkloadKind.SLURM,
        job=str(800_000 + run_no),
        step="0",
        run=f"pretrain-{run_no}",
        user="u1007",
        dtype="bf16",
    )
    identity, previous = agent_id(public), ZERO_HASH
    boot_ns = 1_000_000 * WINDOW_NS
    unix_ns = end_unix_ns - count * WINDOW_NS
    for k in range(count):
        batch = Batch(
            agent_version=VERSION,
            inventory_digest=digest,
            window_start_boot_ns=boot_ns + k * WINDOW_NS,
            window_end_boot_ns=boot_ns + (k + 1) * WINDOW_NS,
            window_start_unix_ns=unix_ns + k * WINDOW_NS,
            window_end_unix_ns=unix_ns + (k + 1) * WINDOW_NS,
            workloads=(workload,),
            usage=tuple(_usage(rng, g) for g in range(GPUS)),
        )
        raw = unsigned_record(
            agent_id=identity,
            boot_id=node.boot_id,
            seq=k + 1,
            prev_hash=previous,
            payload=encode.encode_batch(batch),
        )
        raw += _sign(DOMAIN + raw, secret)
        previous = record_hash(raw)
        node.records.append(raw)
        node.messages.append(pb.StreamRequest(records=pb.Records(records=[raw])).SerializeToString())
    return node


def _usage(rng: random.Random, entity: int) -> Usage:
    elapsed = int(SMS * CLOCK_HZ * 60 * rng.uniform(0.97, 1.0))

    def share(of: float) -> int:
        return int(elapsed * of * rng.uniform(0.9, 1.1))

    return Usage(
        entity_index=entity,
        workload_index=0,
        evidence_class=EvidenceClass.A1,
        measured=ALL_MEASURED,
        spread_ppm=0,
        duration_ns=WINDOW_NS,
        sm_elapsed_cycles=elapsed,
        sm_active_cycles=share(0.85),
        hmma_cycles=share(0.42),
        imma_cycles=share(0.001),
        dmma_cycles=share(0.0001),
        tensor_other_cycles=share(0.006),
        fp64_cycles=share(0.0002),
        fp32_cycles=share(0.08),
        fp16_cycles=share(0.03),
        int_cycles=share(0.06),
        energy_mj=int(60 * 640_000 * rng.uniform(0.9, 1.1)),
    )


def _inventory(number: int, name: str) -> Inventory:
    return Inventory(
        node=name,
        cluster="bench",
        driver="595.71.05",
        nvml="13.595.71.05",
        source="nvml",
        devices=tuple(
            Device(
                entity=gpu_uuid(number, g),
                name="NVIDIA H100 80GB HBM3",
                compute_capability="9.0",
                sm_count=SMS,
                max_sm_clock_mhz=1980,
                serial=f"165{number:06d}{g}",
            )
            for g in range(GPUS)
        ),
    )


def gpu_uuid(number: int, gpu: int) -> str:
    h = hashlib.sha256(b"%d/%d" % (number, gpu)).hexdigest()
    return f"GPU-{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"


def save(nodes: list[Node], path: Path) -> Path:
    path.write_bytes(pickle.dumps(nodes, protocol=5))
    return path


def load(path: Path) -> list[Node]:
    return pickle.loads(path.read_bytes())
