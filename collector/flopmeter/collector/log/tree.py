"""The Merkle tree of RFC 6962 over hashes that lie in tiles of 256 (C2SP tlog-tiles): roots and proofs. Pure.

Hash i of tile level l is the root over the 256^l leaves from i 256^l on; level 0 is the leaf hashes. Whoever reads a
root or a proof here reads stored hashes, and hashes them together: a root is derived again each time.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import Protocol

WIDTH, WIDTH_BITS, HASH_BYTES = 256, 8, 32


class Hashes(Protocol):
    """Where the hashes are."""

    def hashes(self, level: int, start: int, end: int) -> bytes:
        """Hashes `start` … `end`-1 of that tile level, 32 bytes each; none past one tile's end."""
        ...


def root_of(hashes: bytes) -> bytes:
    """The root over a power of two of subtrees of one height."""
    row = [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]
    while len(row) > 1:
        row = [sha256(b"\1" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]


class Tree:
    """Roots and proofs of any size that the hashes reach to."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes = hashes

    def node(self, height: int, index: int) -> bytes:
        """The root over the 2^height leaves from index 2^height on."""
        level, rest = divmod(height, WIDTH_BITS)
        return root_of(self._hashes.hashes(level, index << rest, (index + 1) << rest))

    def over(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) of RFC 6962 2.1, where `start` is a multiple of the power of two that holds the range."""
        if start == end:
            return sha256(b"").digest()
        peaks, at, left = [], start, end - start
        while left:
            height = left.bit_length() - 1
            peaks.append(self.node(height, at >> height))
            at, left = at + (1 << height), left - (1 << height)
        root = peaks.pop()
        while peaks:
            root = sha256(b"\1" + peaks.pop() + root).digest()
        return root

    def root(self, size: int) -> bytes:
        return self.over(0, size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """PATH(index, D[size]) of RFC 6962 2.1.1, from the leaf upwards. 0 <= index < size."""
        proof, start, end = [], 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self.over(middle, end))
                end = middle
            else:
                proof.append(self.over(start, middle))
                start = middle
        return proof[::-1]

    def consistency(self, old: int, new: int) -> list[bytes]:
        """PROOF(old, D[new]) of RFC 6962 2.1.2. 0 < old <= new."""
        proof, start, end, known = [], 0, new, True
        while end != old:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(self.over(middle, end))
                end = middle
            else:
                proof.append(self.over(start, middle))
                start, known = middle, False
        if not known:
            proof.append(self.over(start, end))
        return proof[::-1]

    def many(self, indexes: Iterable[int], size: int, *, width: int = 1) -> list[bytes]:
        """What evidence.merkle.root_from_many asks for: the largest subtrees without any of `indexes`, left to right.

        With `width` (a power of two) the tree is the one over blocks of so many leaves, the last perhaps shorter;
        `indexes` are then blocks. It has the same root.
        """
        over = partial(self._blocks, width, size)
        return list(_siblings(sorted(set(indexes)), 0, -(-size // width), over))

    def many_within(self, start: int, end: int, indexes: Iterable[int]) -> list[bytes]:
        """The same for the tree over the leaves `start` … `end`-1 alone; `indexes` count from `start`."""
        return list(
            _siblings(sorted(set(indexes)), 0, end - start, lambda a, b: self.over(start + a, start + b))
        )

    def _blocks(self, width: int, size: int, start: int, end: int) -> bytes:
        return self.over(start * width, min(end * width, size))


def _siblings(
    wanted: Sequence[int], start: int, end: int, over: Callable[[int, int], bytes]
) -> Iterator[bytes]:
    if not wanted:
        yield over(start, end)
    elif end - start > 1:
        middle = start + _split(end - start)
        cut = bisect_left(wanted, middle)
        yield from _siblings(wanted[:cut], start, middle, over)
        yield from _siblings(wanted[cut:], middle, end, over)


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def tile_widths(size: int) -> Iterator[tuple[int, int, int]]:
    """(level, full tiles, width of the partial one behind them or 0) of a tree of `size`, from level 0 up."""
    level = 0
    while size:
        yield level, size // WIDTH, size % WIDTH
        size //= WIDTH
        level += 1
