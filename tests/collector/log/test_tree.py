"""Roots and proofs out of tiles, against the definitions of RFC 6962 written down as they stand there."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.log.tree import WIDTH, Tree, root_of, tile_widths
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import leaf_hash, root_from_many, verify_consistency, verify_inclusion


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:k]) + mth(leaves[k:])).digest()


class Listed:
    """Every hash of every tile level, from a list of leaf hashes by the definition."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.levels = [leaves]
        while len(self.levels[-1]) >= WIDTH:
            below = self.levels[-1]
            self.levels.append([mth(below[i : i + WIDTH]) for i in range(0, len(below) - WIDTH + 1, WIDTH)])

    def hashes(self, level: int, start: int, end: int) -> bytes:
        assert 0 <= start < end <= len(self.levels[level])
        assert start // WIDTH == (end - 1) // WIDTH  # one tile at a time
        return b"".join(self.levels[level][start:end])


LEAVES = [leaf_hash(str(i).encode()) for i in range(70_000)]
TREE = Tree(Listed(LEAVES))


@pytest.mark.parametrize("size", [*range(1, 20), 255, 256, 257, 511, 512, 513, 1000])
def test_roots_are_those_of_the_definition(size):
    assert TREE.root(size) == mth(LEAVES[:size])


def test_the_root_of_nothing_is_the_hash_of_nothing():
    assert TREE.root(0).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(1, 34))
def test_every_proof_of_small_trees_verifies(size):
    root = TREE.root(size)
    for index in range(size):
        verify_inclusion(index, size, LEAVES[index], TREE.inclusion(index, size), root)
    for old in range(1, size + 1):
        verify_consistency(old, TREE.root(old), size, root, TREE.consistency(old, size))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_proofs_of_large_trees_verify_and_say_nothing_of_other_leaves(data):
    size = data.draw(st.integers(1, len(LEAVES)))
    root = TREE.root(size)
    index = data.draw(st.integers(0, size - 1))
    proof = TREE.inclusion(index, size)
    verify_inclusion(index, size, LEAVES[index], proof, root)
    with pytest.raises(EvidenceError):
        verify_inclusion(index, size, LEAVES[index - 1] if size > 1 else bytes(32), proof, root)
    old = data.draw(st.integers(1, size))
    verify_consistency(old, TREE.root(old), size, root, TREE.consistency(old, size))
    wanted = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=20))
    siblings = TREE.many(wanted, size)
    assert root_from_many(size, {i: LEAVES[i] for i in wanted}, siblings) == root


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_proofs_by_blocks_come_to_the_same_root(data):
    """docs/attestation-format.md, pack/leaves.bin: leaves to their block's root, block roots to the tree's."""
    size = data.draw(st.integers(1, 5_000))
    wanted = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=20))
    blocks: dict[int, dict[int, bytes]] = {}
    for i in wanted:
        blocks.setdefault(i // WIDTH, {})[i % WIDTH] = LEAVES[i]
    roots = {}
    for block, leaves in blocks.items():
        start, end = block * WIDTH, min(size, (block + 1) * WIDTH)
        roots[block] = root_from_many(end - start, leaves, TREE.many_within(start, end, leaves))
        assert roots[block] == mth(LEAVES[start:end])
    siblings = TREE.many(blocks, size, width=WIDTH)
    assert root_from_many(-(-size // WIDTH), roots, siblings) == TREE.root(size)


def test_widths_of_tiles_are_those_of_the_example():
    """C2SP tlog-tiles, "Partial Tiles"."""
    assert list(tile_widths(70_000)) == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert list(tile_widths(256)) == [(0, 1, 0), (1, 0, 1)]
    assert list(tile_widths(0)) == []


def test_a_row_of_hashes_is_hashed_pairwise():
    assert root_of(b"".join(LEAVES[:8])) == mth(LEAVES[:8])
