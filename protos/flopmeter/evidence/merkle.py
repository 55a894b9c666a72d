"""Merkle tree of RFC 6962 and 9162 (section 2.1), SHA-256: inclusion, consistency, many leaves at once.

Leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right); the left subtree of n leaves has the
largest power of two below n. Sizes stay below 2^63, so no proof is longer than 64 hashes.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from hashlib import sha256

from flopmeter.evidence.errors import EvidenceError

SIZE_LIMIT = 1 << 63


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """The tree of `size` leaves with this root has the leaf hash `leaf` at `index`; siblings go upwards."""
    if not 0 <= index < size < SIZE_LIMIT:
        raise EvidenceError("inclusion", f"there is no leaf {index} in a tree of {size}")
    inner = (index ^ (size - 1)).bit_length()  # below: siblings on both sides; above: on the left only
    _hashes("inclusion", proof, inner + (index >> inner).bit_count())
    for level, sibling in enumerate(proof):
        left = level >= inner or index >> level & 1
        leaf = node_hash(sibling, leaf) if left else node_hash(leaf, sibling)
    if leaf != root:
        raise EvidenceError("inclusion", f"this is not leaf {index} of the tree of {size} with this root")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """The tree of `size2` begins with all leaves of the tree of `size1`, unchanged and in their order.

    Size 0 is refused: every tree begins with nothing, so it would prove nothing of the second root.
    """
    if not 0 < size1 <= size2 < SIZE_LIMIT:
        raise EvidenceError("consistency", f"a tree of {size2} leaves does not continue one of {size1}")
    low = (size1 & -size1).bit_length() - 1  # the first tree ends with a full subtree of 2^low leaves
    inner = ((size1 - 1) ^ (size2 - 1)).bit_length()
    above = inner - low + ((size1 - 1) >> inner).bit_count() if size1 < size2 else 0
    whole = size1 == size2 or size1 == 1 << low  # that subtree is the whole first tree: its root is known
    _hashes("consistency", proof, above + (not whole))
    old = new = root1 if whole else proof[0]
    for level, sibling in enumerate(proof[not whole :], low):
        if level >= inner or (size1 - 1) >> level & 1:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if (old, new) != (root1, root2):
        raise EvidenceError("consistency", f"the tree of {size2} does not begin with that of {size1}")


def root_from_many(size: int, leaves: Mapping[int, bytes], siblings: Sequence[bytes]) -> bytes:
    """The root of the tree of `size` that has these leaf hashes at these indexes, in one proof for all.

    `siblings`: the roots of the largest subtrees that hold none of the leaves, from left to right.
    """
    wanted, rest = sorted(leaves), iter(siblings)
    if not wanted or wanted[0] < 0 or not wanted[-1] < size < SIZE_LIMIT:
        raise EvidenceError("inclusion", f"{len(wanted)} leaves do not fit a tree of {size}")

    def subtree(start: int, width: int, first: int, end: int) -> bytes:
        if first == end:
            return next(rest)
        if width == 1:
            return leaves[start]
        half = 1 << (width - 1).bit_length() - 1
        middle = bisect_left(wanted, start + half, first, end)
        return node_hash(
            subtree(start, half, first, middle), subtree(start + half, width - half, middle, end)
        )

    _hashes("inclusion", [*leaves.values(), *siblings], len(leaves) + len(siblings))
    try:
        root = subtree(0, size, 0, len(wanted))
    except StopIteration:
        raise EvidenceError("inclusion", f"{len(siblings)} hashes are too few for these leaves") from None
    if next(rest, None) is not None:
        raise EvidenceError("inclusion", f"{len(siblings)} hashes are too many for these leaves")
    return root


def _hashes(step: str, hashes: Sequence[bytes], wanted: int) -> None:
    """A proof has exactly as many hashes as the sizes ask for (at most 64 a leaf), each of 32 bytes."""
    if len(hashes) != wanted or any(len(one) != 32 for one in hashes):
        raise EvidenceError(step, f"expected {wanted} hashes of 32 bytes, got {len(hashes)} or other lengths")
