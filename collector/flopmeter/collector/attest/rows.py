"""Commitments to lists: salted rows under one RFC 6962 root, so that one row can be shown without the others. Pure."""

import hashlib
from collections.abc import Sequence

from flopmeter.evidence.merkle import leaf_hash, node_hash


def rows_root(rows: Sequence[str]) -> bytes:
    """The root over the rows' texts; of none SHA-256 of nothing, as RFC 6962 has it."""
    return _root([leaf_hash(row.encode()) for row in rows]) if rows else hashlib.sha256().digest()


def rows_proof(rows: Sequence[str], index: int) -> list[bytes]:
    """Siblings of the row at `index`, upwards."""
    return _proof([leaf_hash(row.encode()) for row in rows], index)


def _root(hashes: Sequence[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return node_hash(_root(hashes[:half]), _root(hashes[half:]))


def _proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    if len(hashes) == 1:
        return []
    half = 1 << (len(hashes) - 1).bit_length() - 1
    if index < half:
        return [*_proof(hashes[:half], index), _root(hashes[half:])]
    return [*_proof(hashes[half:], index - half), _root(hashes[:half])]
