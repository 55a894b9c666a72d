"""Commitments to lists: salted rows under one RFC 6962 root, so that one row can be shown without the others. Pure."""

import hashlib
from collections.abc import Sequence

from flopmeter.evidence.merkle import leaf_hash, node_hash


def rows_root(rows: Sequence[str]) -> bytes:
    """The root over the rows' texts; of none SHA-256 of nothing, as RFC 6962 has it."""
    return _tree([leaf_hash(row.encode()) for row in rows])[0] if rows else hashlib.sha256().digest()


def rows_proofs(rows: Sequence[str]) -> list[list[bytes]]:
    """Of each row its siblings, upwards."""
    return _tree([leaf_hash(row.encode()) for row in rows])[1] if rows else []


def _tree(hashes: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """(root, proofs), each node hashed once."""
    if len(hashes) == 1:
        return hashes[0], [[]]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    (left, lefts), (right, rights) = _tree(hashes[:half]), _tree(hashes[half:])
    for proof in lefts:
        proof.append(right)
    for proof in rights:
        proof.append(left)
    return node_hash(left, right), lefts + rights
