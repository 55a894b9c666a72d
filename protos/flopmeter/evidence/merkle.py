"""Merkle tree of RFC 6962 and 9162 (section 2.1), SHA-256: leaf = H(0x00 ‖ data), node = H(0x01 ‖ left ‖ right),
the left subtree of n leaves has the largest power of two below n. Sizes < 2^63: no path is over 64 hashes.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain

from flopmeter.evidence.errors import require

SIZE_LIMIT = 1 << 63


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """The tree of `size` with this root has the leaf hash `leaf` at `index`. Siblings from below upwards."""
    require(0 <= index < size < SIZE_LIMIT, "inclusion", f"there is no leaf {index} in a tree of {size}")
    inner = (index ^ (size - 1)).bit_length()  # above this level, all siblings stand on the left
    _require_hashes("inclusion", (leaf, root), proof, inner + (index >> inner).bit_count())
    for level, sibling in enumerate(proof):
        left = level >= inner or index >> level & 1
        leaf = node_hash(sibling, leaf) if left else node_hash(leaf, sibling)
    require(leaf == root, "inclusion", f"this is not leaf {index} of the tree of {size} with this root")


def verify_consistency(size1: int, root1: bytes, size2: int, root2: bytes, proof: Sequence[bytes]) -> None:
    """The tree of `size2` begins with that of `size1`. From size 0 refused: it would say nothing of a root."""
    require(0 < size1 <= size2 < SIZE_LIMIT, "consistency", f"{size2} leaves do not continue {size1}")
    low = (size1 & -size1).bit_length() - 1  # the first tree ends with a full subtree of 2^low leaves
    inner = ((size1 - 1) ^ (size2 - 1)).bit_length()
    path = inner - low + ((size1 - 1) >> inner).bit_count() if size1 < size2 else 0
    known = size1 in {size2, 1 << low}  # that subtree is the whole first tree, whose root we have
    _require_hashes("consistency", (), proof, path + (not known))
    old = new = root1 if known else proof[0]
    for level, sibling in enumerate(proof[not known :], low):
        left = level >= inner or (size1 - 1) >> level & 1
        old = node_hash(sibling, old) if left else old
        new = node_hash(sibling, new) if left else node_hash(new, sibling)
    require((old, new) == (root1, root2), "consistency", f"the {size2} leaves do not begin with the {size1}")


def root_from_many(size: int, leaves: Mapping[int, bytes], siblings: Sequence[bytes]) -> bytes:
    """The root of the tree of `size` with these leaf hashes at these indexes: one proof for all of them.
    `siblings`: the roots of the largest subtrees that hold none of the leaves, from left to right.
    """
    wanted, rest = sorted(leaves), [*reversed(siblings)]
    require(
        wanted and 0 <= wanted[0] <= wanted[-1] < size < SIZE_LIMIT, "inclusion", f"no such leaves of {size}"
    )
    _require_hashes("inclusion", leaves.values(), siblings, len(siblings))

    def subtree(start: int, width: int, first: int, end: int) -> bytes:
        if first == end:
            require(rest, "inclusion", f"{len(siblings)} hashes are too few for {len(wanted)} leaves")
            return rest.pop()
        if width == 1:
            return leaves[start]
        half = 1 << (width - 1).bit_length() - 1
        middle = bisect_left(wanted, start + half, first, end)
        left = subtree(start, half, first, middle)
        return node_hash(left, subtree(start + half, width - half, middle, end))

    root = subtree(0, size, 0, len(wanted))
    require(not rest, "inclusion", f"{len(siblings)} hashes are too many for {len(wanted)} leaves")
    return root


def _require_hashes(step: str, given: Iterable[bytes], proof: Sequence[bytes], count: int) -> None:
    fits = len(proof) == count and all(len(one) == 32 for one in chain(given, proof))
    require(fits, step, f"expected a proof of {count} hashes, got {len(proof)}, or one that is not 32 bytes")
