"""A small log of one's own for tests: RFC 6962 by its definition, recursive and slow, with signed C2SP heads."""

import base64
import hashlib

from nacl.signing import SigningKey


class SignedLog:
    """Leaves in memory. `heads` are not remembered: ask for the size that is wanted."""

    def __init__(self, origin: str = "flopmeter-test", seed: bytes = b"log") -> None:
        self.origin = origin
        self.leaves: list[bytes] = []
        self._key = SigningKey(hashlib.sha256(seed).digest())
        self._public = b"\x01" + bytes(self._key.verify_key)

    @property
    def size(self) -> int:
        return len(self.leaves)

    @property
    def vkey(self) -> str:
        return f"{self.origin}+{self._id().hex()}+{base64.b64encode(self._public).decode()}"

    def _id(self) -> bytes:
        return hashlib.sha256(self.origin.encode() + b"\n" + self._public).digest()[:4]

    def grow(self, count: int, what: str = "leaf") -> "SignedLog":
        self.leaves += [f"{what} {self.size + n}".encode() for n in range(count)]
        return self

    def note(self, size: int | None = None, *, broken: bool = False) -> bytes:
        leaves = self.leaves[:size]
        root = base64.b64encode(root_of(leaves)).decode()
        text = f"{self.origin}\n{len(leaves)}\n{root}\n".encode()
        signature = self._key.sign(text + b"x" * broken).signature
        return text + f"\n— {self.origin} {base64.b64encode(self._id() + signature).decode()}\n".encode()

    def consistency(self, old: int, new: int | None = None) -> list[bytes]:
        """RFC 6962 2.1.2: PROOF(m, D[n])."""
        leaves = self.leaves[:new]
        return _subproof(old, leaves, whole=True) if 0 < old < len(leaves) else []


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1: MTH(D[n])."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = _half(len(leaves))
    return hashlib.sha256(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])).digest()


def _half(size: int) -> int:
    half = 1
    while half * 2 < size:
        half *= 2
    return half


def _subproof(old: int, leaves: list[bytes], *, whole: bool) -> list[bytes]:
    if old == len(leaves):
        return [] if whole else [root_of(leaves)]
    half = _half(len(leaves))
    if old <= half:
        return [*_subproof(old, leaves[:half], whole=whole), root_of(leaves[half:])]
    return [*_subproof(old - half, leaves[half:], whole=False), root_of(leaves[:half])]
