"""The evidence log's tree, derived again from the stored leaf hashes alone: one leaf after the other. Pure.

Not the collector's own way of adding up, which takes whole subtrees from stored tiles: a mistake there shows here.
"""

import hashlib

#: Levels of the tree between two levels of tiles (C2SP tlog-tiles): 256 hashes to a full one.
TILE_HEIGHT = 8
#: Root of a tree without leaves (RFC 9162 2.1.1).
EMPTY = hashlib.sha256(b"").digest()


class Growing:
    """A tree to which leaf hashes are appended; it keeps the roots of its full subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._full: list[tuple[int, bytes]] = []  # (height, root)
        #: Tile level -> the roots of all full subtrees of that level so far, one behind the other.
        self.levels: dict[int, bytearray] = {}

    def add(self, leaf: bytes) -> None:
        """Append a leaf hash."""
        height, root = 0, leaf
        while self._full and self._full[-1][0] == height:
            height, root = height + 1, _node(self._full.pop()[1], root)
            if height % TILE_HEIGHT == 0:
                self.levels.setdefault(height // TILE_HEIGHT, bytearray()).extend(root)
        self._full.append((height, root))
        self.size += 1

    @property
    def root(self) -> bytes:
        """Of all leaves so far."""
        if not self._full:
            return EMPTY
        root = self._full[-1][1]
        for _, left in reversed(self._full[:-1]):
            root = _node(left, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
