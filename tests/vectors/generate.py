"""Writes records.json: one chain of three good records under a fixed key, and what tampering makes of them.

    python tests/vectors/generate.py            write
    python tests/vectors/generate.py --check    exit 1 if the file is not what this program writes

The key is public on purpose: nothing but these vectors may be signed with it.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from nacl.signing import SigningKey

from flopmeter.contract.ids import agent_id
from flopmeter.contract.limits import MAX_RECORD_BYTES
from flopmeter.contract.record import DOMAIN, HELLO_DOMAIN, ZERO_HASH, record_hash, unsigned_record
from flopmeter.wire.v1 import batch_pb2

OUT = Path(__file__).with_name("records.json")
KEY = SigningKey(bytes(range(32)))
OTHER_KEY = SigningKey(bytes(range(1, 33)))
BOOT = bytes.fromhex("00112233445566778899aabbccddeeff")
WINDOW_NS = 60_000_000_000


def payload(seq: int) -> bytes:
    """A batch of one window: one H100 that trained for 45 s and stood idle for 15."""
    batch = batch_pb2.Batch(
        agent_version="0.1.0",
        inventory_digest=bytes([7]) * 32,
        window_start_boot_ns=seq * WINDOW_NS,
        window_end_boot_ns=(seq + 1) * WINDOW_NS,
        window_start_unix_ns=1_790_000_000_000_000_000 + seq * WINDOW_NS,
        window_end_unix_ns=1_790_000_000_000_000_000 + (seq + 1) * WINDOW_NS,
        workloads=[
            batch_pb2.Workload(kind=3, job="4711", run="llama", dtype="bf16"),
            batch_pb2.Workload(kind=1),
        ],
    )
    batch.usage.add(
        entity_index=0,
        workload_index=0,
        evidence_class=1,
        measured=1023,
        duration_ns=45_000_000_000,
        sm_elapsed_cycles=132 * 1_755_000_000 * 45,
        sm_active_cycles=132 * 1_755_000_000 * 40,
        hmma_cycles=132 * 1_755_000_000 * 20,
        energy_mj=29_250_000,
    )
    batch.usage.add(
        entity_index=0,
        workload_index=1,
        evidence_class=1,
        measured=1023,
        duration_ns=15_000_000_000,
        sm_elapsed_cycles=132 * 1_200_000_000 * 15,
        energy_mj=1_200_000,
    )
    return batch.SerializeToString(deterministic=True)


def sign(unsigned: bytes, key: SigningKey = KEY, domain: bytes = DOMAIN) -> bytes:
    return unsigned + key.sign(domain + unsigned).signature


def chain() -> list[bytes]:
    records: list[bytes] = []
    for seq in (1, 2, 3):
        prev = record_hash(records[-1]) if records else ZERO_HASH
        unsigned = unsigned_record(
            agent_id=agent_id(KEY.verify_key.encode()),
            boot_id=BOOT,
            seq=seq,
            prev_hash=prev,
            payload=payload(seq),
        )
        records.append(sign(unsigned))
    return records


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def resigned(raw: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """The tamperer has the agent's key: signature good, and only the chain or the numbers betray it."""
    return sign(edit(raw[:-64]))


def tampered() -> dict[str, tuple[bytes, str]]:
    """name of the tampering -> (record 2 after it, what must notice: size, seq, signature, identity, chain)."""
    first, good, third = chain()
    own_agent = agent_id(OTHER_KEY.verify_key.encode())
    return {
        "agent-id-bit-flipped": (flipped(good, 0), "signature"),
        "boot-id-bit-flipped": (flipped(good, 16), "signature"),
        "seq-bit-flipped": (flipped(good, 39), "signature"),
        "prev-hash-bit-flipped": (flipped(good, 40), "signature"),
        "payload-first-bit-flipped": (flipped(good, 72), "signature"),
        "payload-last-bit-flipped": (flipped(good, len(good) - 65), "signature"),
        "signature-r-bit-flipped": (flipped(good, len(good) - 64), "signature"),
        "signature-s-bit-flipped": (flipped(good, len(good) - 1), "signature"),
        "signature-zeroed": (good[:-64] + bytes(64), "signature"),
        "signature-of-another-record": (good[:-64] + first[-64:], "signature"),
        "signed-by-another-key": (sign(good[:-64], OTHER_KEY), "signature"),
        "signed-under-another-domain": (sign(good[:-64], domain=HELLO_DOMAIN), "signature"),
        "signed-without-a-domain": (sign(good[:-64], domain=b""), "signature"),
        "payload-of-another-record": (good[:72] + third[72:-64] + good[-64:], "signature"),
        "payload-byte-appended": (good[:-64] + b"\0" + good[-64:], "signature"),
        "payload-byte-dropped": (good[:-65] + good[-64:], "signature"),
        "truncated-to-the-header": (good[:72], "size"),
        "truncated-by-one-from-the-least": (good[:135], "size"),
        "emptied": (b"", "size"),
        "padded-past-the-limit": (good + bytes(MAX_RECORD_BYTES + 1 - len(good)), "size"),
        "seq-zero": (good[:32] + bytes(8) + good[40:], "seq"),
        "seq-past-the-largest": (good[:32] + b"\x80" + bytes(7) + good[40:], "seq"),
        "resigned-as-another-agent": (resigned(good, lambda u: own_agent + u[16:]), "identity"),
        "resigned-with-first-hash": (resigned(good, lambda u: u[:40] + ZERO_HASH + u[72:]), "chain"),
        "resigned-with-next-hash": (resigned(good, lambda u: u[:40] + record_hash(third) + u[72:]), "chain"),
    }


def document() -> str:
    good = chain()
    value = {
        "about": "written by generate.py; hex; padded-past-the-limit is stored without its zero padding",
        "secret_key": bytes(KEY).hex(),
        "public_key": KEY.verify_key.encode().hex(),
        "agent_id": agent_id(KEY.verify_key.encode()).hex(),
        "chain": [
            {"seq": i + 1, "hash": record_hash(r).hex(), "record": r.hex()} for i, r in enumerate(good)
        ],
        "tampered": {
            name: {
                "noticed_by": by,
                "size": len(raw),
                "record": raw.rstrip(b"\0").hex() if by == "size" else raw.hex(),
            }
            for name, (raw, by) in tampered().items()
        },
    }
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if OUT.read_text() == document() else f"{OUT.name} is not what generate.py writes")
    OUT.write_text(document())
