"""Merkle sum tree of `size` leaves with c sums each, in RFC 6962 shape (reference/attestation.md 3.2):

    tag  = "flopmeter/sum-tree/v1" ‖ 0x00 ‖ size (8 bytes) ‖ c (2 bytes)
    leaf = SHA-256(0x00 ‖ tag ‖ index (8 bytes) ‖ sums ‖ commitment (32 bytes))
    node = SHA-256(0x01 ‖ tag ‖ left sums ‖ left hash ‖ right sums ‖ right hash), its sums: left + right
    root = SHA-256(0x02 ‖ tag ‖ total sums ‖ hash of the top node)

Numbers are unsigned, big-endian, a sum 16 bytes; a leaf's sums < 2^112, all sums < 2^127. Both children's
sums are hashed: a node that hashes only its own can be understated.
"""

from collections.abc import Sequence
from hashlib import sha256
from operator import add
from typing import NamedTuple

from flopmeter.evidence.errors import require
from flopmeter.evidence.merkle import SIZE_LIMIT


class SumNode(NamedTuple):  # a subtree: the sums over its leaves, and its hash
    sums: tuple[int, ...]
    hash: bytes


def leaf_node(size: int, index: int, sums: Sequence[int], commitment: bytes) -> SumNode:
    require(0 <= index < size < SIZE_LIMIT, "sum tree", f"there is no leaf {index} in a tree of {size}")
    leaf = SumNode(tuple(sums), commitment)
    return SumNode(leaf.sums, _hash(0, size, index.to_bytes(8, "big"), leaf, below=1 << 112))


def parent_node(size: int, left: SumNode, right: SumNode) -> SumNode:
    return SumNode(tuple(map(add, left.sums, right.sums)), _hash(1, size, b"", left, right))


def sum_root(size: int, top: SumNode) -> bytes:
    return _hash(2, size, b"", top)


def verify_opening(
    size: int, index: int, leaf: SumNode, siblings: Sequence[SumNode], *, total: Sequence[int], root: bytes
) -> None:
    """`leaf` (made by leaf_node) stands at `index`, and `total` is the sum over all leaves, under `root`."""
    inner = (index ^ (size - 1)).bit_length()
    fits = 0 <= index < size and len(siblings) == inner + (index >> inner).bit_count()
    require(fits, "sum tree", f"{len(siblings)} siblings do not lead up from leaf {index} of {size}")
    for level, sibling in enumerate(siblings):
        left = level >= inner or index >> level & 1
        leaf = parent_node(size, sibling, leaf) if left else parent_node(size, leaf, sibling)
    same = leaf.sums == tuple(total) and sum_root(size, leaf) == root
    require(same, "sum tree", f"leaf {index} of {size} does not lead to this total and this root")


def _hash(kind: int, size: int, place: bytes, *nodes: SumNode, below: int = 1 << 127) -> bytes:
    count = len(nodes[0].sums)
    require(
        0 < size < SIZE_LIMIT and 0 < count <= 64, "sum tree", f"no tree has {size} leaves of {count} sums"
    )
    hashed = b"flopmeter/sum-tree/v1\0" + size.to_bytes(8, "big") + count.to_bytes(2, "big") + place
    for sums, digest in nodes:  # refused before anything wraps or is hashed
        fits = len(sums) == count and len(digest) == 32 and all(0 <= one < below for one in sums)
        require(fits, "sum tree", f"expected {count} sums from 0 to {below - 1} and 32 bytes")
        hashed += b"".join(one.to_bytes(16, "big") for one in sums) + digest
    return sha256(bytes([kind]) + hashed).digest()
