"""C2SP at 5ba5ee8: signed-note and tlog-checkpoint 1.0, tlog-cosignature, tlog-proof@v1, tlog-policy.

Parsed strictly: nothing is stripped, no CR, one way only to write each number and each base64.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import SIZE_LIMIT

NOTE_LIMIT = 1 << 18  # bytes: more than the 16 signatures of 5 kB that signed-note 1.0 asks to take
ED25519, COSIGNATURE_ED25519, COSIGNATURE_MLDSA44 = 1, 4, 6  # signature types of signed-note 1.0
_LENGTHS = {ED25519: 32, COSIGNATURE_ED25519: 32, COSIGNATURE_MLDSA44: 1312}


@dataclass(frozen=True, slots=True)
class Key:
    """A verifier key: `name` and `id` stand in the signature lines, `kind` is the signature type."""

    name: str
    id: bytes
    kind: int
    public: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A note as it was read: who signed it is only what `signers` or a policy's `check` say."""

    origin: str
    size: int
    root: bytes
    text: bytes
    lines: tuple[tuple[str, bytes, bytes], ...]  # name, key id, signature


@dataclass(frozen=True, slots=True)
class Proof:
    """A tlog-proof: `extra` is not signed, the checkpoint is still to be read and checked."""

    index: int
    hashes: tuple[bytes, ...]
    extra: bytes | None
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Policy:
    """A tlog-policy: the logs, the witnesses with their URLs, the groups (k, members) and the quorum."""

    logs: tuple[Key, ...]
    witnesses: Mapping[str, tuple[Key, str | None]]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    quorum: str

    def check(self, checkpoint: Checkpoint) -> dict[Key, int]:
        """Signed by one of the logs under its own origin, cosigned as the quorum asks; the time (Unix s)
        of each witness key that cosigned. Two keys of one name are one witness.
        """
        raise NotImplementedError


def parse_key(vkey: str) -> Key:
    """`<name>+<id, 8 hex>+<base64 of type ‖ public key>`."""
    raise NotImplementedError


def parse_checkpoint(note: bytes) -> Checkpoint: ...


def signers(checkpoint: Checkpoint, keys: Iterable[Key]) -> dict[Key, int | None]:
    """The keys that signed, each with the time of its cosignature (Unix s, None for a log's signature).

    A line of a known key that does not verify refuses the note; lines of others are passed over.
    """
    raise NotImplementedError


def parse_proof(data: bytes) -> Proof: ...


def parse_policy(data: bytes) -> Policy: ...
