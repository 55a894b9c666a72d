"""The evidence log against the rows that it holds: each has its one leaf, and every signed head is the tree's over them.

The first thing that is wrong is kept and raised at the end: of a row that somebody changed, the books say more.
"""

import hashlib
import hmac
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flopmeter.collector.log.entry import BATCH, KINDS, SALT_BYTES, WAITING, Batch, Kind
from flopmeter.collector.report.queries import Reader

from .log_heads import Said, check_heads
from .log_tree import TILE_HEIGHT, Growing
from .rederive import Difference, compare

HASH_BYTES = 32
#: Rows that may be newer than the last leaf: what people said, and who may speak, get theirs with the next commit.
_MAY_WAIT = frozenset(k.name for k in WAITING) | {"access"}
_OTHERS = tuple(k for k in KINDS if k.name != BATCH)


class Range(NamedTuple):
    """A row of the log: leaves of one kind, with consecutive numbers and indexes."""

    first_number: int
    leaves: int
    first_index: int


class LogCheck:
    """Made before the records are read; told of each; `finish` raises what was wrong first."""

    def __init__(self, reader: Reader) -> None:
        self._rows = reader.rows
        self.leaves = 0
        self.heads = 0
        #: Leaves under the newest head that the log's key signed, as far as everything before it is good.
        self.covered = 0
        self.unlogged = 0  # records of a log that was never begun, or not finished: no head was ever signed
        self.said = Said()
        self._fault: Difference | None = None
        self._ranges: dict[str, list[Range]] = {k.name: [] for k in _OTHERS}
        self._secret = b""
        ((self._begun,),) = self._rows("SELECT count(*) FROM checkpoints")
        self._try(self._walk)
        self._batches = self._stored(BATCH)
        #: Numbers of the events whose words are as they were raised: their leaf is under a signed head.
        self.events = self._events_covered()

    # --- what the log says of itself ---

    def _try(self, check: Callable[..., None], *args: Any) -> None:
        """Keep the first difference."""
        if self._fault is None:
            try:
                check(*args)
            except Difference as d:
                self._fault = d

    def _walk(self) -> None:
        """Rows without holes, and the tree over them: at each head's size its root is the head's."""
        for (salt,) in self._rows("SELECT salt FROM log_identity"):
            self._secret = bytes(salt)
        tree = Growing()
        heads = check_heads(self._rows, self.said)
        head = next(heads, None)
        numbers = dict.fromkeys((k.name for k in KINDS), 1)
        for index, kind, number, count, hashes in self._rows(
            "SELECT first_index, kind, first_number, count, hashes FROM log ORDER BY first_index"
        ):
            key = f"first_index {index}"
            if kind not in numbers:
                raise Difference("log", key, "kind", f"one of {', '.join(numbers)}", kind)
            compare(
                "log",
                key,
                [
                    ("first_index", tree.size, index),
                    ("first_number", numbers[kind], number),
                    ("hashes, their bytes", HASH_BYTES * count, len(hashes)),
                ],
            )
            numbers[kind] += count
            if kind != BATCH:
                self._ranges[kind].append(Range(number, count, index))
            for at in range(0, len(hashes), HASH_BYTES):
                tree.add(hashes[at : at + HASH_BYTES])
                while head is not None and head.size == tree.size:
                    compare("checkpoints", head.name, [("root", tree.root, head.root)])
                    self.covered, self.heads = head.size, self.heads + 1
                    head = next(heads, None)
        self.leaves = tree.size
        if head is not None:
            raise Difference(
                "checkpoints", head.name, "size", f"at most {tree.size}, the leaves there are", head.size
            )
        self._tiles(tree)

    def _tiles(self, tree: Growing) -> None:
        """Stored subtrees are the tree's, and reach as far as the newest head."""
        stored: dict[int, bytes] = {}
        for level, number, hashes in self._rows(
            "SELECT level, number, hashes FROM tiles ORDER BY level, number"
        ):
            before, name = stored.get(level, b""), f"level {level}, number {number}"
            derived = bytes(tree.levels.get(level, b""))[len(before) : len(before) + len(hashes)]
            places = (number, 0), divmod(len(before), HASH_BYTES << TILE_HEIGHT)
            compare(
                "tiles",
                name,
                [("number, behind a full one", *reversed(places)), ("hashes", derived, bytes(hashes))],
            )
            stored[level] = before + hashes
        level = 1
        while owed := self.covered >> TILE_HEIGHT * level:
            got = len(stored.get(level, b"")) // HASH_BYTES
            if got < owed:
                raise Difference("tiles", f"level {level}", "hashes", f"{owed}, up to the newest head", got)
            level += 1

    @property
    def notes(self) -> Iterator[str]:
        """What is to be known of a good one."""
        if self.said.by_others:
            yield (
                f"cosignatures under heads of the log by keys that this store does not know (any more), and that were "
                f"not verified: {self.said.by_others:,}"
            )
        if self.unlogged:
            yield (
                f"records that have no leaf in the evidence log yet, and no head was ever signed: {self.unlogged:,}. A "
                "collector gives them theirs at its start"
            )

    # --- the rows behind the leaves ---

    def record(self, b: Batch) -> int:
        """A record as it was verified; the index of its leaf, -1 for none."""
        number, index, stored = next(self._batches, (b.position, -1, b""))
        if index < 0 and not self._begun:
            self.unlogged += 1
            return index
        leaf = {
            "agent": b.agent,
            "hash": b.hash.hex(),
            "kind": BATCH,
            "received": str(b.received_unix_ns),
            "salt": self._salt(BATCH, b.position),
            "seq": str(b.seq),
            "v": "1",
            "windowEnd": str(b.window_end_unix_ns),
            "windowStart": str(b.window_start_unix_ns),
        }
        self._try(_same, f"leaf of batch {b.position}", _leaf_hash(leaf), stored, number == b.position)
        return index

    @property
    def sound(self) -> bool:
        """Whether rows, tiles and heads hold together, so that an index says where a leaf stands."""
        return self._fault is None

    def index_of(self, kind: str, number: int) -> int | None:
        """Of a row of another kind than batch; None: it has no leaf yet."""
        ranges = self._ranges[kind]
        at = bisect_right(ranges, number, key=lambda r: r.first_number) - 1
        if at < 0 or number >= ranges[at].first_number + ranges[at].leaves:
            return None
        return ranges[at].first_index + number - ranges[at].first_number

    def finish(self) -> None:
        """All records are in. Raises Difference."""
        self._try(self._no_more_batches)
        for kind in _OTHERS:
            self._try(self._kind, kind)
        if self._fault is not None:
            raise self._fault

    def _no_more_batches(self) -> None:
        for number, index, _ in self._batches:
            raise Difference(
                "records", f"position {number}", "row", f"the record of leaf {index} of the log", "none"
            )

    def _kind(self, kind: Kind) -> None:
        """Row for row in the order of their numbers."""
        stored = self._stored(kind.name)
        for row in self._table(kind):
            number, index, found = next(stored, (row[0], -1, b""))
            if index < 0 and (kind.name in _MAY_WAIT or not self._begun):
                return
            _same(f"leaf of {kind.name} {row[0]}", self._row_leaf(kind, row), found, number == row[0])
        for number, index, _ in stored:
            raise Difference(
                kind.table, f"{kind.key} {number}", "row", f"the row of leaf {index} of the log", "none"
            )

    def _events_covered(self) -> frozenset[int]:
        kind = next(k for k in KINDS if k.name == "event")
        covered = set()
        for (number, index, stored), row in zip(self._stored("event"), self._table(kind), strict=False):
            if index < self.covered and number == row[0] and self._row_leaf(kind, row) == stored:
                covered.add(number)
        return frozenset(covered)

    def _table(self, kind: Kind) -> Iterator[Sequence[Any]]:
        columns = ", ".join(kind.columns)
        return self._rows(f"SELECT {columns} FROM {kind.table} ORDER BY {kind.key}")  # noqa: S608

    def _stored(self, kind: str) -> Iterator[tuple[int, int, bytes]]:
        """(number, index, leaf hash) of every leaf of a kind."""
        for number, index, hashes in self._rows(
            "SELECT first_number, first_index, hashes FROM log WHERE kind = ? ORDER BY first_number", (kind,)
        ):
            for i in range(len(hashes) // HASH_BYTES):
                yield number + i, index + i, hashes[HASH_BYTES * i : HASH_BYTES * (i + 1)]

    def _row_leaf(self, kind: Kind, row: Sequence[Any]) -> bytes:
        import rfc8785

        said = {name: _text(value) for name, value in zip(kind.columns, row, strict=True)}
        leaf = {
            "body": hashlib.sha256(rfc8785.dumps(said)).hexdigest(),
            "kind": kind.name,
            "number": str(row[0]),
            "salt": self._salt(kind.name, row[0]),
            "v": "1",
        }
        return _leaf_hash(leaf)

    def _salt(self, kind: str, number: int) -> str:
        digest = hmac.digest(self._secret, f"{kind}:{number}".encode(), "sha256")
        return digest[:SALT_BYTES].hex()


def _leaf_hash(leaf: Mapping[str, str]) -> bytes:
    """Of the canonical JSON (RFC 8785), which for texts of ASCII is that of json with sorted keys."""
    raw = json.dumps(leaf, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(b"\0" + raw).digest()


def _same(name: str, derived: bytes, stored: bytes, numbered: bool) -> None:
    if not numbered:
        raise Difference("log", name, "row", "a leaf", "one of another number")
    if derived != stored:
        raise Difference("log", name, "hashes", derived, stored or "no leaf")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)
