"""Hand-made windows and entries for tests of spool, chain, uplink and pipeline: no meter needed."""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

from flopmeter.agent.keys import RecordKey, load_or_create_key
from flopmeter.agent.shipping.chain import Chain
from flopmeter.agent.shipping.encode import encode_inventory
from flopmeter.agent.shipping.seal import behind, seal_record
from flopmeter.agent.shipping.segment import Entry
from flopmeter.agent.shipping.spool import Spool, Tip
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import IDLE, Batch, Device, Inventory, Measured, Usage

WINDOW_NS = 60_000_000_000
BOOT = bytes(range(16))
OTHER_BOOT = bytes(range(16, 32))
DEVICE = Device("GPU-00000000-0000-0000-0000-000000000000", "NVIDIA H100 80GB HBM3", "9.0", 132)
INVENTORY = Inventory("node-a", "c1", "595.58.03", "13.595.58", "trace", (DEVICE,))
INVENTORY_BYTES = encode_inventory(INVENTORY)
DIGEST = hashlib.sha256(INVENTORY_BYTES).digest()


@dataclass(frozen=True)
class Window:
    """What a meter closes."""

    batch: Batch
    journal: bytes
    boot_id: bytes = BOOT
    inventory: Inventory = INVENTORY
    told: tuple[str, ...] = ()


def window(n: int, hmma: int = 7, boot: bytes = BOOT) -> Window:
    """The n-th window of a boot, counting from 0; its journal says that it is."""
    start, end = n * WINDOW_NS, (n + 1) * WINDOW_NS
    usage = Usage(0, 0, EvidenceClass.A1, Measured.HMMA, 0, WINDOW_NS, 1_000, hmma_cycles=hmma)
    batch = Batch("0.1.0", DIGEST, start, end, 10**18 + start, 10**18 + end, (IDLE,), (usage,))
    return Window(batch, struct.pack("<Q", n), boot)


def entries(key: RecordKey, tip: Tip, count: int, *, payload: int = 100, boot: bytes = BOOT) -> list[Entry]:
    """`count` entries behind `tip`; number n covers window n-1."""
    made: list[Entry] = []
    for _ in range(count):
        n = tip.next_seq - 1
        body = hashlib.sha256(n.to_bytes(8, "big")).digest() * (payload // 32 + 1)
        entry = Entry(
            seal_record(key, boot, tip, body[:payload]),
            struct.pack("<Q", n),
            DIGEST,
            n * WINDOW_NS,
            (n + 1) * WINDOW_NS,
        )
        made.append(entry)
        tip = behind(entry)
    return made


def open_chain(state: Path, **limits: int) -> Chain:
    key = load_or_create_key(state)
    return Chain(Spool.open(state / "spool", **limits), key)


def append(chain: Chain, first: int, count: int, boot: bytes = BOOT) -> None:
    """Windows first … first+count-1 into the chain, one write."""
    chain.append([window(n, boot=boot) for n in range(first, first + count)])
