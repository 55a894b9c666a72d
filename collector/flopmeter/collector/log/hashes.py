"""The tree's hashes as they are stored: leaf hashes in `log`, those of whole subtrees in `tiles`."""

import sqlite3
from collections.abc import Mapping

from flopmeter.collector.errors import LogForkedError

from .tree import HASH_BYTES, WIDTH, root_of

#: Whole tiles kept, 8 KiB each.
MAX_CACHED_TILES = 1_024
_LEAVES = """
    SELECT first_index, hashes FROM log
    WHERE first_index >= (SELECT max(first_index) FROM log WHERE first_index <= ?) AND first_index < ?
    ORDER BY first_index"""
_TILE = "SELECT hashes FROM tiles WHERE level = ? AND number = ?"


class StoredHashes:
    """tree.Hashes of one store. What no checkpoint covers yet, and so is in no tile, is hashed again from below."""

    def __init__(
        self, connection: sqlite3.Connection, new: Mapping[tuple[int, int], bytearray] | None = None
    ) -> None:
        """`new`: tiles that are about to be written, by level and number; they stand for the stored ones."""
        self._connection = connection
        self._new = new if new is not None else {}
        self._cache: dict[tuple[int, int], bytes] = {}

    def hashes(self, level: int, start: int, end: int) -> bytes:
        number = start // WIDTH
        tile = self._cache.get((level, number))
        if tile is None:
            first = number * WIDTH
            if level == 0 and end - start < WIDTH // 2:
                return self.leaf_hashes(start, end)
            tile = self._tile(level, number, end - first)
            if len(tile) == WIDTH * HASH_BYTES:
                if len(self._cache) >= MAX_CACHED_TILES:
                    self._cache.clear()
                self._cache[level, number] = tile
        first = number * WIDTH
        return tile[(start - first) * HASH_BYTES : (end - first) * HASH_BYTES]

    def leaf_hashes(self, start: int, end: int) -> bytes:
        """Of the leaves `start` … `end`-1, any number of them. Raises LogForkedError where one is missing."""
        found = bytearray()
        at = start
        for first_index, hashes in self._connection.execute(_LEAVES, (start, end)):
            if not first_index <= at < first_index + len(hashes) // HASH_BYTES:
                break
            part = hashes[(at - first_index) * HASH_BYTES : (end - first_index) * HASH_BYTES]
            found += part
            at += len(part) // HASH_BYTES
        if at != end:
            raise LogForkedError(
                f"log: expected the hashes of leaves {start} to {end - 1}, found {at - start}"
            )
        return bytes(found)

    def stored(self, level: int, number: int) -> bytes:
        """That tile of level 1 or more as far as it is stored; b"" = not at all."""
        row = self._connection.execute(_TILE, (level, number)).fetchone()
        return b"" if row is None else bytes(row[0])

    def _tile(self, level: int, number: int, width: int) -> bytes:
        """At least the first `width` hashes of a tile."""
        first = number * WIDTH
        if level == 0:
            return self.leaf_hashes(first, first + width)
        new = self._new.get((level, number))
        tile = bytes(new) if new is not None else self.stored(level, number)
        have = len(tile) // HASH_BYTES
        if have >= width:
            return tile
        return tile + b"".join(
            root_of(self.hashes(level - 1, i * WIDTH, (i + 1) * WIDTH))
            for i in range(first + have, first + width)
        )
