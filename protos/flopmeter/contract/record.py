"""The record: one signed, numbered, chained batch, as the bytes that travel, are stored and are hashed.

    offset  bytes  field
    0       16     agent id (ids.agent_id of the signing key)
    16      16     boot id of the node (random, from the kernel)
    32      8      sequence number, big-endian, counting from 1 per agent, over reboots
    40      32     hash of the agent's previous record; 32 zero bytes for the first
    72      n      payload: a serialised flopmeter.wire.v1.Batch
    72+n    64     Ed25519 signature over DOMAIN followed by bytes 0 … 72+n

Fixed widths, so no two field splits give the same bytes; nothing signed is ever encoded again.
`openssl pkeyutl -verify -rawin` checks a record that was cut with dd.
"""

import hashlib
from typing import NamedTuple

from .errors import ContractError
from .ids import AGENT_ID_BYTES
from .limits import MAX_RECORD_BYTES

DOMAIN = b"flopmeter-batch-v1\n"
HELLO_DOMAIN = b"flopmeter-hello-v1\n"
ZERO_HASH = bytes(32)
HEADER_BYTES = 72
SIGNATURE_BYTES = 64
MIN_RECORD_BYTES = HEADER_BYTES + SIGNATURE_BYTES
MAX_SEQ = (1 << 63) - 1


class Record(NamedTuple):
    """A record cut into its fields; `raw` is the whole, exactly as received. Nothing is verified yet."""

    raw: bytes
    agent_id: bytes
    boot_id: bytes
    seq: int
    prev_hash: bytes

    @property
    def payload(self) -> bytes:
        return self.raw[HEADER_BYTES:-SIGNATURE_BYTES]

    @property
    def signature(self) -> bytes:
        return self.raw[-SIGNATURE_BYTES:]

    @property
    def message(self) -> bytes:
        """What the signature covers."""
        return DOMAIN + self.raw[:-SIGNATURE_BYTES]

    @property
    def hash(self) -> bytes:
        """SHA-256 of the whole record: the next record's `prev_hash`, and the store's key."""
        return record_hash(self.raw)


def record_hash(raw: bytes) -> bytes:
    """SHA-256 over all bytes of a record, signature included (32 bytes)."""
    return hashlib.sha256(raw).digest()


def unsigned_record(*, agent_id: bytes, boot_id: bytes, seq: int, prev_hash: bytes, payload: bytes) -> bytes:
    """Header and payload; append the signature over `DOMAIN + result` to make a record."""
    if len(agent_id) != AGENT_ID_BYTES or len(boot_id) != 16 or len(prev_hash) != 32:
        raise ContractError(
            "record header: expected ids of 16 and 16 bytes and a hash of 32, "
            f"got {len(agent_id)}, {len(boot_id)}, {len(prev_hash)}"
        )
    if not 1 <= seq <= MAX_SEQ:
        raise ContractError(f"record seq: expected 1 … 2^63-1, got {seq}")
    return agent_id + boot_id + seq.to_bytes(8, "big") + prev_hash + payload


def parse_record(raw: bytes) -> Record:
    """Cut received bytes into a Record. Raises ContractError for a wrong size or number."""
    size = len(raw)
    if not MIN_RECORD_BYTES <= size <= MAX_RECORD_BYTES:
        raise ContractError(f"record: expected {MIN_RECORD_BYTES} to {MAX_RECORD_BYTES} bytes, got {size}")
    seq = int.from_bytes(raw[32:40], "big")
    if not 1 <= seq <= MAX_SEQ:
        raise ContractError(f"record seq: expected 1 … 2^63-1, got {seq}")
    return Record(raw, raw[:16], raw[16:32], seq, raw[40:72])
