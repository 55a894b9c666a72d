"""Slow, obviously correct makers of what flopmeter.evidence checks: written from the RFCs and the C2SP texts, by
recursion, sharing no line with the library. Tests compare against these, and sign with these.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

#: Public vectors, each with its repository, commit and licence in SOURCES.json.
VECTORS = Path(__file__).resolve().parents[2] / "shared/data/merkle"


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def base64url_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


# Merkle tree: RFC 9162 section 2.1, over leaf hashes


def split(n: int) -> int:
    """The largest power of two below n."""
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """MTH(D[n]), 2.1.1."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha256(b"\x01" + tree_root(leaves[:k]) + tree_root(leaves[k:]))


def inclusion_proof(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n]), 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if index < k:
        return [*inclusion_proof(index, leaves[:k]), tree_root(leaves[k:])]
    return [*inclusion_proof(index - k, leaves[k:]), tree_root(leaves[:k])]


def consistency_proof(old: int, leaves: Sequence[bytes], known: bool = True) -> list[bytes]:
    """SUBPROOF(m, D[n], b), 2.1.4.1."""
    if old == len(leaves):
        return [] if known else [tree_root(leaves)]
    k = split(len(leaves))
    if old <= k:
        return [*consistency_proof(old, leaves[:k], known), tree_root(leaves[k:])]
    return [*consistency_proof(old - k, leaves[k:], known=False), tree_root(leaves[:k])]


def many_proof(wanted: Collection[int], leaves: Sequence[bytes]) -> list[bytes]:
    """What root_from_many asks for: roots of the largest subtrees without a wanted leaf, from left to right."""
    if not wanted:
        return [tree_root(leaves)]
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    left = {i for i in wanted if i < k}
    right = {i - k for i in wanted if i >= k}
    return [*many_proof(left, leaves[:k]), *many_proof(right, leaves[k:])]


# Signed notes: C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof


@dataclass(frozen=True)
class Signer:
    """A key that signs notes. `kind`: 1 a log (Ed25519), 4 a witness (Ed25519), 6 a witness (ML-DSA-44)."""

    name: str
    kind: int
    seed: bytes = b"\x07" * 32

    @cached_property
    def private(self) -> Ed25519PrivateKey | MLDSA44PrivateKey:
        maker = MLDSA44PrivateKey.from_seed_bytes if self.kind == 6 else Ed25519PrivateKey.from_private_bytes
        return maker(sha256(self.seed + bytes([self.kind]) + self.name.encode()))

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public)[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64_of(bytes([self.kind]) + self.public)}"

    def signature(self, text: str, seconds: int = 1_700_000_000) -> bytes:
        """Over a checkpoint's text, which ends in a newline."""
        if self.kind == 1:
            return self.private.sign(text.encode())
        stamp = struct.pack(">Q", seconds)
        if self.kind == 4:
            return stamp + self.private.sign(f"cosignature/v1\ntime {seconds}\n{text}".encode())
        origin, size, root = text.split("\n")[:3]
        message = struct.pack(
            f">12sB{len(self.name.encode())}sQB{len(origin.encode())}sQQ32s",
            *(b"subtree/v1\n\0", len(self.name.encode()), self.name.encode(), seconds),
            *(len(origin.encode()), origin.encode(), 0, int(size), base64.b64decode(root)),
        )
        return stamp + self.private.sign(message)

    def line(self, text: str, seconds: int = 1_700_000_000) -> str:
        """One signature line of a note with this text."""
        return f"— {self.name} {base64_of(self.id + self.signature(text, seconds))}\n"


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    return f"{origin}\n{size}\n{base64_of(root)}\n"


def signed_checkpoint(
    origin: str, leaves: Sequence[bytes], *signers: Signer, seconds: int = 1_700_000_000
) -> bytes:
    """The note of a log with these leaf hashes, signed by all of them."""
    text = checkpoint_text(origin, len(leaves), tree_root(leaves))
    return (text + "\n" + "".join(signer.line(text, seconds) for signer in signers)).encode()


def tlog_proof(index: int, hashes: Sequence[bytes], checkpoint: bytes, extra: bytes | None = None) -> bytes:
    lines = ["c2sp.org/tlog-proof@v1"]
    lines += [f"extra {base64_of(extra)}"] if extra is not None else []
    lines += [f"index {index}", *map(base64_of, hashes), "", ""]
    return "\n".join(lines).encode() + checkpoint


# Disclosures: RFC 9901 4.2.3, reference/attestation.md 3.1


def disclosure(salt: bytes, path: str, value: object) -> str:
    """The value must have no member names outside ASCII, and no numbers."""
    content = json.dumps(
        [base64url_of(salt), path, value], ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    return base64url_of(content.encode())


def disclosure_digest(text: str) -> str:
    return base64url_of(sha256(text.encode()))


# Sum tree: reference/attestation.md 3.2


@dataclass(frozen=True)
class SumLeaf:
    sums: tuple[int, ...]
    commitment: bytes


@dataclass(frozen=True)
class SlowSumTree:
    """All of it made again for every question. `sum_limit` only for tests that go past it on purpose."""

    leaves: tuple[SumLeaf, ...]

    @property
    def tag(self) -> bytes:
        return b"flopmeter/sum-tree/v1\0" + struct.pack(">QH", len(self.leaves), len(self.leaves[0].sums))

    @property
    def total(self) -> tuple[int, ...]:
        return tuple(sum(column) for column in zip(*(leaf.sums for leaf in self.leaves), strict=True))

    def sums(self, start: int, end: int) -> tuple[int, ...]:
        return tuple(
            sum(column) for column in zip(*(leaf.sums for leaf in self.leaves[start:end]), strict=True)
        )

    def hash(self, start: int, end: int) -> bytes:
        if end - start == 1:
            leaf = self.leaves[start]
            return sha256(
                b"\x00" + self.tag + struct.pack(">Q", start) + self.packed(leaf.sums) + leaf.commitment
            )
        middle = start + split(end - start)
        left = self.packed(self.sums(start, middle)) + self.hash(start, middle)
        right = self.packed(self.sums(middle, end)) + self.hash(middle, end)
        return sha256(b"\x01" + self.tag + left + right)

    @property
    def root(self) -> bytes:
        size = len(self.leaves)
        return sha256(b"\x02" + self.tag + self.packed(self.total) + self.hash(0, size))

    def opening(
        self, index: int, start: int = 0, end: int | None = None
    ) -> list[tuple[tuple[int, ...], bytes]]:
        """Siblings of a leaf, from it upwards: (sums, hash)."""
        end = len(self.leaves) if end is None else end
        if end - start == 1:
            return []
        middle = start + split(end - start)
        low, high = (start, middle), (middle, end)
        own, other = (low, high) if index < middle else (high, low)
        return [*self.opening(index, *own), (self.sums(*other), self.hash(*other))]

    @staticmethod
    def packed(sums: Sequence[int]) -> bytes:
        return b"".join(one.to_bytes(16, "big") for one in sums)


# DSSE 1.0.2 and Sigstore bundle v0.3: reference/attestation.md 1.2, docs/attestation-format.md 3

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def pae(payload_type: str, payload: bytes) -> bytes:
    """ "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body (protocol.md)."""
    kind = payload_type.encode()
    parts = [b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload]
    return b" ".join(parts)


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def sigstore_bundle(payload: bytes, key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """One DSSE signature in a bundle; `canonical_json` makes bytes of it."""
    key_id = hashlib.sha256(spki(key.public_key())).hexdigest()
    signature = key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": key_id}},
        "dsseEnvelope": {
            "payload": base64_of(payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": key_id, "sig": base64_of(signature)}],
        },
    }


def canonical_json(value: object) -> bytes:
    return rfc8785.dumps(value)
