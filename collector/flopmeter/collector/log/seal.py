"""Making a signed head: derive, prove, sign, persist. Safe from several processes, and from a bit that flipped.

Public logs have died of one flipped bit that was signed over (reference/attestation.md 2.3). So before a head is signed,
every leaf that it adds is made again from its row, its root is derived from what is stored, and it is proven to
continue the last signed head. What is heavy happens before the write lock is taken: the log only grows.
"""

import sqlite3
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from flopmeter.collector.errors import LogError, LogForkedError
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import verify_consistency

from .checkpoint import Signer, body, signed
from .entry import BY_NAME
from .hashes import StoredHashes
from .rows import Rows
from .tree import HASH_BYTES, WIDTH, Tree, root_of

#: Leaves that one head adds at most: about a second of work. A log that has more to catch up with gets heads between.
STEP_LEAVES = 65_536
_HINT = (
    "nothing is signed on it. Keep the store as evidence; `flopmeter collector fsck` finds what was changed"
)
_LAST = "SELECT checkpoint_no, size, root, note FROM checkpoints ORDER BY checkpoint_no DESC LIMIT 1"
_SIZE = "SELECT coalesce((SELECT first_index + count FROM log ORDER BY first_index DESC LIMIT 1), 0)"
_BETWEEN = """
    SELECT first_index, kind, first_number, count FROM log
    WHERE first_index >= (SELECT max(first_index) FROM log WHERE first_index <= ?) AND first_index < ?
    ORDER BY first_index"""


_TILE = (
    "INSERT INTO tiles (level, number, hashes) VALUES (?, ?, ?) "
    "ON CONFLICT (level, number) DO UPDATE SET hashes = excluded.hashes"
)
_INSERT = "INSERT INTO checkpoints (checkpoint_no, size, root, unix_ns, note) VALUES (?, ?, ?, ?, ?)"


class _Head(NamedTuple):
    number: int  # 0: there is none yet
    size: int
    root: bytes
    note: str


_NONE = _Head(0, 0, b"", "")
_Tiles = dict[tuple[int, int], bytearray]  # by level and number


class Sealer:
    """Of one store, under one name and key. `connection` is in autocommit mode, and its own thread's."""

    def __init__(self, connection: sqlite3.Connection, rows: Rows, origin: str, signer: Signer) -> None:
        self._connection, self._rows = connection, rows
        self._origin, self._signer = origin, signer

    def seal(self, unix_ns: Callable[[], int], enough: Callable[[], bool] = lambda: False) -> int:
        """Number of a checkpoint over all that was in the log when this was called. See EvidenceLog.seal."""
        wanted = self._size()
        if wanted == 0:
            raise LogError("the evidence log is empty: nothing was recorded in this store yet")
        while True:
            last, head, new = self._derive(wanted)
            if head.number == last.number:
                return last.number
            if self._persist(last, head, new, unix_ns()) and (head.size >= wanted or enough()):
                return head.number

    def _derive(self, wanted: int) -> tuple[_Head, _Head, _Tiles]:
        """The last head, and the one that follows it, or itself if nothing is new; all read from one state."""
        self._connection.execute("BEGIN")
        try:
            last = self._last()
            self._check_last(last)
            size = min(max(wanted, last.size), last.size + STEP_LEAVES)
            self._check_leaves(last.size, size)
            new = self._new_tiles(last.size, size)
            root = self._root(new, last, size)
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")  # nothing was written
        if size == last.size:
            return last, last, new
        return last, _Head(last.number + 1, size, root, self._note(size, root)), new

    def _note(self, size: int, root: bytes) -> str:
        text = body(self._origin, size, root)
        return signed(text, self._origin, self._signer.public, self._signer.sign(text)).decode()

    def _size(self) -> int:
        return int(self._connection.execute(_SIZE).fetchone()[0])

    def _last(self) -> _Head:
        row = self._connection.execute(_LAST).fetchone()
        return _NONE if row is None else _Head(row[0], row[1], bytes(row[2]), row[3])

    def _check_last(self, last: _Head) -> None:
        """It is what this key signs for its size and root (Ed25519 always signs alike), and the log reaches to it.

        What is said of a contradiction, here and below, must not change while the log grows: each text is an event.
        """
        if last.number and self._note(last.size, last.root) != last.note:
            raise LogForkedError(
                f"checkpoints, checkpoint_no {last.number}: expected the signed head of {last.size} leaves with root "
                f"{last.root.hex()}, got {last.note!r}",
                _HINT,
            )
        if last.size > self._size():
            raise LogForkedError(
                f"log: expected at least the {last.size} leaves of checkpoint {last.number}, got fewer",
                _HINT,
            )

    def _check_leaves(self, old: int, size: int) -> None:
        """Every new leaf, made again from its row, has the hash that it was given when it was appended."""
        at = old
        for first_index, kind, first_number, count in self._connection.execute(
            _BETWEEN, (old, size)
        ).fetchall():
            end = min(size, first_index + count)
            stored = StoredHashes(self._connection).leaf_hashes(at, end)
            number = first_number + at - first_index
            for i, leaf in enumerate(self._rows.leaves(BY_NAME[kind], number, number + end - at)):
                got = stored[i * HASH_BYTES : (i + 1) * HASH_BYTES]
                if sha256(b"\0" + leaf).digest() != got:
                    raise LogForkedError(
                        f"log, index {at + i}: expected the hash of {leaf.decode()}, which the row now gives, got "
                        f"{got.hex()}: the row or the log was changed",
                        _HINT,
                    )
            at = end

    def _new_tiles(self, old: int, size: int) -> _Tiles:
        """Tiles of level 1 and more as they become: the stored hashes, and those that are new, from what is below."""
        new: _Tiles = {}
        hashes = StoredHashes(self._connection, new)
        level, begin, end = 1, old // WIDTH, size // WIDTH
        while end:
            for index in range(begin, end):
                number, place = divmod(index, WIDTH)
                tile = new.get((level, number))
                if tile is None:
                    tile = new[level, number] = bytearray(hashes.stored(level, number))
                if len(tile) != place * HASH_BYTES:
                    raise LogForkedError(
                        f"tiles, level {level}, number {number}: expected {place} hashes, got {len(tile) / HASH_BYTES}",
                        _HINT,
                    )
                tile += root_of(hashes.hashes(level - 1, index * WIDTH, (index + 1) * WIDTH))
            level, begin, end = level + 1, begin // WIDTH, end // WIDTH
        return new

    def _root(self, new: _Tiles, last: _Head, size: int) -> bytes:
        """The root from what is stored, which continues the last signed one."""
        tree = Tree(StoredHashes(self._connection, new))
        root = tree.root(size)
        if last.number:
            try:
                verify_consistency(last.size, last.root, size, root, tree.consistency(last.size, size))
            except EvidenceError as e:
                raise LogForkedError(
                    f"log: expected a tree that continues checkpoint {last.number}, of {last.size} leaves, with root "
                    f"{last.root.hex()}; what is stored does not",
                    _HINT,
                ) from e
        return root

    def _persist(self, last: _Head, head: _Head, new: _Tiles, unix_ns: int) -> bool:
        """False: another process has sealed meanwhile, and nothing was written."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self._last() != last:
                connection.execute("ROLLBACK")
                return False
            connection.executemany(_TILE, [(*key, bytes(tile)) for key, tile in new.items()])
            connection.execute(_INSERT, (head.number, head.size, head.root, unix_ns, head.note))
            connection.execute("COMMIT")
            # D3: the head is durable from here (synchronous=FULL), and only now may anybody see it. A crash before
            # this line leaves the head before, and nobody has seen the one that is lost; a crash after it this one.
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return True
