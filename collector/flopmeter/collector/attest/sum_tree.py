"""Makes what `flopmeter.evidence.sumtree` checks: the tree over the groups that a run's total is the sum of. Pure.

A leaf is one group that is priced alike (figures.PriceKey): its six sums, and a salted commitment to what the group is.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flopmeter.evidence.sumtree import SumNode, leaf_node, parent_node, sum_root

#: What a leaf adds up, in this order (reference/attestation.md 3.2).
COMPONENTS = ("flopLower", "flopPoint", "flopUpper", "deviceNs", "gapNs", "energyMj")


class SumLeaf(NamedTuple):
    """One group: its sums in COMPONENTS' order, and the salted disclosure of what it is, which stays with the operator."""

    sums: tuple[int, ...]
    opening: str

    @property
    def commitment(self) -> bytes:
        """SHA-256 of the disclosure's text."""
        return hashlib.sha256(self.opening.encode()).digest()


@dataclass(frozen=True, slots=True)
class SumTree:
    """All leaves with their hashes; proofs are made when they are asked for."""

    leaves: tuple[SumLeaf, ...]
    nodes: tuple[SumNode, ...]

    @property
    def top(self) -> SumNode:
        return _subtree(self.nodes, len(self.nodes))

    @property
    def total(self) -> tuple[int, ...]:
        """The sums of all leaves."""
        return self.top.sums

    @property
    def root(self) -> bytes:
        return sum_root(len(self.nodes), self.top)

    def opening(self, index: int) -> list[SumNode]:
        """Siblings of the leaf at `index`, from it upwards."""
        return _siblings(self.nodes, index, len(self.nodes))


def sum_tree(leaves: Sequence[SumLeaf]) -> SumTree:
    """Raises EvidenceError where a sum is below 0 or too large, or there is no leaf."""
    size = len(leaves)
    nodes = tuple(leaf_node(size, i, leaf.sums, leaf.commitment) for i, leaf in enumerate(leaves))
    sum_root(size, _subtree(nodes, size))  # a total that no node may have is refused here
    return SumTree(tuple(leaves), nodes)


def _subtree(nodes: Sequence[SumNode], size: int) -> SumNode:
    """The node over `nodes`, in a tree of `size`: the left one takes the largest power of two below."""
    if len(nodes) == 1:
        return nodes[0]
    half = 1 << (len(nodes) - 1).bit_length() - 1
    return parent_node(size, _subtree(nodes[:half], size), _subtree(nodes[half:], size))


def _siblings(nodes: Sequence[SumNode], index: int, size: int) -> list[SumNode]:
    if len(nodes) == 1:
        return []
    half = 1 << (len(nodes) - 1).bit_length() - 1
    left, right = nodes[:half], nodes[half:]
    if index < half:
        return [*_siblings(left, index, size), _subtree(right, size)]
    return [*_siblings(right, index - half, size), _subtree(left, size)]
