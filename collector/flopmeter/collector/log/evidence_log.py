"""The evidence log of a store: what it holds, its heads, and proofs out of it. One connection, one thread at a time."""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from flopmeter.collector.errors import LogError, LogForkedError
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import (
    leaf_hash,
    root_from_many,
    verify_consistency,
    verify_inclusion,
)

from .append import Appender
from .checkpoint import ORIGIN, Checkpoint, Signer, vkey, with_lines
from .entry import BY_NAME, Kind
from .hashes import StoredHashes
from .rows import Rows, salts_of
from .seal import Sealer
from .tree import WIDTH, Tree

_SIZE = "SELECT coalesce((SELECT first_index + count FROM log ORDER BY first_index DESC LIMIT 1), 0)"
_CHECKPOINT = "SELECT checkpoint_no, size, root, unix_ns, note FROM checkpoints"
_AT = (
    "SELECT first_index, kind, first_number FROM log WHERE first_index <= ? ORDER BY first_index DESC LIMIT 1"
)
_OF = (
    "SELECT first_index, first_number, count FROM log WHERE kind = ? AND first_number <= ? "
    "ORDER BY first_number DESC LIMIT 1"
)


class Identity(NamedTuple):
    """Whose log it is: fixed with its first checkpoint."""

    origin: str
    vkey: str


class EvidenceLog:
    """On a connection to a store. Reading needs no more than a read-only one; every read sees what is committed.

    Raises LogError for what is not in the log, LogForkedError where what is stored contradicts itself: a proof under
    a signed head that does not verify is never returned. sqlite3's errors are the caller's (store.told).
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._tree = Tree(StoredHashes(connection))
        self._rows: Rows | None = None

    @property
    def size(self) -> int:
        """Leaves in the log now; `latest().size` of them are under a signed head."""
        return int(self._connection.execute(_SIZE).fetchone()[0])

    @property
    def identity(self) -> Identity | None:
        """None before the first checkpoint."""
        row = self._connection.execute("SELECT origin, vkey FROM log_identity").fetchone()
        return None if row is None or row[0] is None else Identity(*row)

    def fix_identity(self, origin: str, signer: Signer) -> Identity:
        """Give the log its name and key, once. `origin` "": the one that it has, or a random one.

        In a transaction of its own. Raises LogError where the log has another name or another key.
        """
        public, connection = signer.public, self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = self.identity
            if found is None:
                name = origin or f"flopmeter-{secrets.token_hex(8)}"
                if ORIGIN.fullmatch(name) is None:
                    raise LogError(
                        f"log origin: expected printable ASCII without space and plus, got {name!r}"
                    )
                found = Identity(name, vkey(name, public))
                connection.execute(
                    "INSERT INTO log_identity (one, salt, origin, vkey) VALUES (1, ?, ?, ?) "
                    "ON CONFLICT (one) DO UPDATE SET origin = excluded.origin, vkey = excluded.vkey",
                    (secrets.token_bytes(32), *found),
                )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return check_identity(found, origin, public)

    def latest(self) -> Checkpoint | None:
        """The newest head, with all cosignatures that came for it."""
        row = self._connection.execute(f"{_CHECKPOINT} ORDER BY checkpoint_no DESC LIMIT 1").fetchone()
        return None if row is None else self._checkpoint(row)

    def checkpoints(self, *, newest_first: bool = True) -> Iterator[Checkpoint]:
        """Every head that was signed."""
        order = "DESC" if newest_first else "ASC"
        for row in self._connection.execute(f"{_CHECKPOINT} ORDER BY checkpoint_no {order}"):
            yield self._checkpoint(row)

    def checkpoint_of(self, size: int) -> Checkpoint | None:
        """The head of exactly that size."""
        row = self._connection.execute(f"{_CHECKPOINT} WHERE size = ?", (size,)).fetchone()
        return None if row is None else self._checkpoint(row)

    def index_of(self, kind: str, number: int) -> int | None:
        """Index of the leaf of that row; None: it is not in the log yet."""
        row = self._connection.execute(_OF, (kind, number)).fetchone()
        if row is None or number >= row[1] + row[2]:
            return None
        return int(row[0]) + number - int(row[1])

    def at(self, index: int) -> tuple[Kind, int]:
        """Which row the leaf of that index is of: kind and number."""
        self._within(index, self.size)
        first_index, kind, first_number = self._connection.execute(_AT, (index,)).fetchone()
        return BY_NAME[kind], int(first_number) + index - int(first_index)

    def leaf(self, index: int) -> bytes:
        """The leaf's bytes, made again from its row and held against the stored hash."""
        return next(self.leaves(index, index + 1))

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the leaves `start` … `end`-1, each made again from its row and held against the stored hash."""
        while start < end:
            rows = self._leaf_rows()
            kind, number = self.at(start)
            count = self._connection.execute(_OF, (kind.name, number)).fetchone()
            stop = min(end, int(count[0]) + int(count[2]))
            hashes = StoredHashes(self._connection).leaf_hashes(start, stop)
            for i, leaf in enumerate(rows.leaves(kind, number, number + stop - start)):
                if leaf_hash(leaf) != hashes[32 * i : 32 * i + 32]:
                    raise LogForkedError(
                        f"{kind.table}, {kind.key} {number + i}: expected the row whose leaf has index {start + i}, "
                        f"with hash {hashes[32 * i : 32 * i + 32].hex()}, got {leaf.decode()}",
                        "keep the store as evidence: the row or the log was changed",
                    )
                yield leaf
            start = stop

    def leaf_hash(self, index: int) -> bytes:
        """As it is stored."""
        self._within(index, self.size)
        return StoredHashes(self._connection).leaf_hashes(index, index + 1)

    def root(self, size: int) -> bytes:
        """Of the first `size` leaves, from stored hashes."""
        self._reaches(size)
        return self._tree.root(size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """That the leaf is in the tree of the first `size` leaves (RFC 6962 2.1.1)."""
        self._reaches(size)
        self._within(index, size)
        proof = self._tree.inclusion(index, size)
        self._proven(size, lambda root: verify_inclusion(index, size, self.leaf_hash(index), proof, root))
        return proof

    def consistency(self, old: int, new: int) -> list[bytes]:
        """That the tree of `new` leaves begins with that of `old` (RFC 6962 2.1.2). 0 < old <= new."""
        self._reaches(new)
        if not 0 < old <= new:
            raise LogError(f"consistency: expected sizes with 0 < old <= new, got {old} and {new}")
        proof = self._tree.consistency(old, new)
        before = self.checkpoint_of(old)
        if before is not None:
            self._proven(new, lambda root: verify_consistency(old, before.root, new, root, proof))
        return proof

    def many(self, indexes: Iterable[int], size: int) -> list[bytes]:
        """Siblings for evidence.merkle.root_from_many: all those leaves are in the tree of `size`, in one proof."""
        self._reaches(size)
        wanted = self._all_within(indexes, size)
        siblings = self._tree.many(wanted, size)
        leaves = {i: self.leaf_hash(i) for i in wanted}
        self._proven(size, lambda root: _same(root_from_many(size, leaves, siblings), root))
        return siblings

    def many_in_block(self, block: int, indexes: Iterable[int], size: int) -> list[bytes]:
        """The same within one block of 256 (attestation-format.md, pack/leaves.bin); `indexes` count from its start."""
        self._reaches(size)
        start, end = block * WIDTH, min(size, (block + 1) * WIDTH)
        return self._tree.many_within(start, end, self._all_within(indexes, end - start))

    def many_blocks(self, blocks: Iterable[int], size: int) -> list[bytes]:
        """The same over the roots of all blocks of 256."""
        self._reaches(size)
        wanted = self._all_within(blocks, -(-size // WIDTH))
        siblings = self._tree.many(wanted, size, width=WIDTH)
        roots = {b: self._tree.over(b * WIDTH, min(size, (b + 1) * WIDTH)) for b in wanted}
        self._proven(size, lambda root: _same(root_from_many(-(-size // WIDTH), roots, siblings), root))
        return siblings

    def append_waiting(self) -> int:
        """Give what people said (entry.WAITING) its indexes, within the caller's transaction (BEGIN IMMEDIATE).

        Returns how many leaves it appended.
        """
        return Appender(self._connection).append_waiting()

    def seal(
        self, signer: Signer, unix_ns: Callable[[], int], enough: Callable[[], bool] = lambda: False
    ) -> Checkpoint:
        """Sign a head over all that is in the log now. Outside of any transaction; several processes may call it.

        On return the head is durable. Nothing new in the log: the latest head again. Raises LogError where there is
        nothing to sign or the key is not the log's, LogForkedError where what is stored does not continue the last
        signed head: then nothing is signed. `enough` is asked between the heads of a log that has much to catch up
        with (seal.STEP_LEAVES): yes ends it with a head over a part.
        """
        if self.size == 0:
            raise LogError("the evidence log is empty: nothing was recorded in this store yet")
        identity = self.identity or self.fix_identity("", signer)
        check_identity(identity, "", signer.public)
        number = Sealer(self._connection, self._leaf_rows(), identity.origin, signer).seal(unix_ns, enough)
        row = self._connection.execute(f"{_CHECKPOINT} WHERE checkpoint_no = ?", (number,)).fetchone()
        return self._checkpoint(row)

    def _checkpoint(self, row: Sequence[object]) -> Checkpoint:
        number, size, root, unix_ns, note = row
        lines = self._connection.execute(
            "SELECT line FROM cosignatures WHERE checkpoint_no = ? ORDER BY unix_ns, key_name, line",
            (number,),
        )
        text = with_lines(str(note).encode(), [line for (line,) in lines])
        origin = str(note).partition("\n")[0]
        return Checkpoint(int(str(number)), origin, int(str(size)), _bytes(root), int(str(unix_ns)), text)

    def _leaf_rows(self) -> Rows:
        if self._rows is None:
            salts = salts_of(self._connection)
            if salts is None:
                raise LogError("the evidence log is empty: nothing was recorded in this store yet")
            self._rows = Rows(self._connection, salts)
        return self._rows

    def _reaches(self, size: int) -> None:
        if not 0 <= size <= self.size:
            raise LogError(f"expected a size of up to {self.size} leaves, got {size}")

    def _within(self, index: int, size: int) -> None:
        if not 0 <= index < size:
            raise LogError(f"expected an index of 0 to {size - 1}, got {index}: the log has no such leaf")

    def _all_within(self, indexes: Iterable[int], size: int) -> list[int]:
        wanted = sorted(set(indexes))
        for index in wanted[:1] + wanted[-1:]:
            self._within(index, size)
        return wanted

    def _proven(self, size: int, check: Callable[[bytes], None]) -> None:
        """Hold a proof against the signed head of that size, if there is one."""
        head = self.checkpoint_of(size)
        if head is None:
            return
        try:
            check(head.root)
        except EvidenceError as e:
            raise LogForkedError(
                f"log: expected hashes that lead to checkpoint {head.number}, of {size} leaves, with root "
                f"{head.root.hex()}: {e}",
                "keep the store as evidence; `flopmeter collector fsck` finds what was changed",
            ) from e


def check_identity(identity: Identity, origin: str, public: bytes) -> Identity:
    """Raises LogError where a log of that identity is to go on under another name ("": the same) or another key."""
    if origin not in ("", identity.origin):
        raise LogError(
            f"log origin: expected {identity.origin!r}, under which this log was begun, got {origin!r}",
            "leave --log-origin out, or name it as it is: a log keeps its name",
        )
    if identity.vkey != vkey(identity.origin, public):
        raise LogError(
            f"log key: expected that of {identity.vkey}, got the one of {vkey(identity.origin, public)}",
            "put the log's own key back into the directory of keys: nobody would believe its heads under another",
        )
    return identity


def _same(root: bytes, expected: bytes) -> None:
    if root != expected:
        raise EvidenceError("inclusion", f"these leaves lead to the root {root.hex()}")


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
