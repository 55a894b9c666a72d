"""Merkle sum tree: "this total is the sum of these leaves" (reference/attestation.md 3.2), in RFC 6962 shape.
For a tree of `size` leaves that each have c sums:

    tag  = "flopmeter/sum-tree/v1" ‖ 0x00 ‖ size (8 bytes) ‖ c (2 bytes)
    leaf = SHA-256(0x00 ‖ tag ‖ index (8 bytes) ‖ sums ‖ commitment (32 bytes))
    node = SHA-256(0x01 ‖ tag ‖ left sums ‖ left hash ‖ right sums ‖ right hash), its sums: left + right
    root = SHA-256(0x02 ‖ tag ‖ total sums ‖ hash of the top node)

Every number is unsigned and big-endian, each sum in 16 bytes; a leaf's sums stay below 2^112, all others
below 2^127. Both children's sums are hashed: a node that hashes its total alone can be understated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import SIZE_LIMIT

LEAF_LIMIT, NODE_LIMIT = 1 << 112, 1 << 127


@dataclass(frozen=True, slots=True)
class SumNode:
    """A subtree: the sums over its leaves, in the tree's order of components, and its hash."""

    sums: tuple[int, ...]
    hash: bytes


def leaf_node(size: int, index: int, sums: Sequence[int], commitment: bytes) -> SumNode:
    if not 0 <= index < size < SIZE_LIMIT:
        raise EvidenceError("sum tree", f"there is no leaf {index} in a tree of {size}")
    hashed = _hash(0, size, len(sums), index.to_bytes(8, "big") + _packed(sums, commitment, LEAF_LIMIT))
    return SumNode(tuple(sums), hashed)


def parent_node(size: int, left: SumNode, right: SumNode) -> SumNode:
    if len(left.sums) != len(right.sums):
        raise EvidenceError("sum tree", f"a sibling has {len(right.sums)} sums, not {len(left.sums)}")
    both = _packed(left.sums, left.hash, NODE_LIMIT) + _packed(right.sums, right.hash, NODE_LIMIT)
    sums = tuple(one + other for one, other in zip(left.sums, right.sums, strict=True))
    return SumNode(sums, _hash(1, size, len(sums), both))


def sum_root(size: int, top: SumNode) -> bytes:
    """What is published of a tree and bound by the log: the total cannot be told apart from the root."""
    return _hash(2, size, len(top.sums), _packed(top.sums, top.hash, NODE_LIMIT))


def verify_opening(
    size: int, index: int, leaf: SumNode, siblings: Sequence[SumNode], *, total: Sequence[int], root: bytes
) -> None:
    """`leaf` (of leaf_node) stands at `index`, and the sums of all `size` leaves are `total`, under `root`."""
    inner = (index ^ (size - 1)).bit_length()
    if not 0 <= index < size or len(siblings) != inner + (index >> inner).bit_count():
        raise EvidenceError(
            "sum tree", f"{len(siblings)} siblings do not lead from leaf {index} of {size} up"
        )
    for level, sibling in enumerate(siblings):
        left = level >= inner or index >> level & 1
        leaf = parent_node(size, sibling, leaf) if left else parent_node(size, leaf, sibling)
    if leaf.sums != tuple(total) or sum_root(size, leaf) != root:
        raise EvidenceError("sum tree", f"leaf {index} of {size} does not lead to this total and root")


def _packed(sums: Sequence[int], after: bytes, limit: int) -> bytes:
    if len(after) != 32 or not all(0 <= one < limit for one in sums):  # before hashing: nothing wraps
        raise EvidenceError("sum tree", f"a hash of {len(after)} bytes, or a sum outside 0 to {limit - 1}")
    return b"".join(one.to_bytes(16, "big") for one in sums) + after


def _hash(kind: int, size: int, components: int, content: bytes) -> bytes:
    if not 0 < size < SIZE_LIMIT or not 0 < components <= 64:
        raise EvidenceError("sum tree", f"a tree of {size} leaves with {components} sums is none")
    tag = b"flopmeter/sum-tree/v1\0" + size.to_bytes(8, "big") + components.to_bytes(2, "big")
    return sha256(bytes([kind]) + tag + content).digest()
