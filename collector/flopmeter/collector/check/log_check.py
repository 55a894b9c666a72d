"""The evidence log against the rows that it holds: each has its one leaf, and every signed head is the tree's over them.

The first thing that is wrong is kept and raised at the end: of a row that somebody changed, the books say more.
"""

import hashlib
import hmac
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flopmeter.collector.log.entry import BATCH, KINDS, SALT_BYTES, WAITING, Batch, Kind
from flopmeter.collector.report.queries import Reader

from .log_walk import HASH_BYTES, LogTree
from .rederive import Difference

#: Rows that may be newer than the last leaf: what people said, and who may speak, get theirs with the next commit.
_MAY_WAIT = frozenset(k.name for k in WAITING) | {"access"}
_OTHERS = tuple(k for k in KINDS if k.name != BATCH)


class LogCheck:
    """Made before the records are read; told of each; `finish` raises what was wrong first."""

    def __init__(self, reader: Reader) -> None:
        self._rows = reader.rows
        self.unlogged = 0  # records of a log that was never begun, or not finished: no head was ever signed
        self._fault: Difference | None = None
        ((self._begun,),) = self._rows("SELECT count(*) FROM checkpoints")
        self._secret = next((bytes(salt) for (salt,) in self._rows("SELECT salt FROM log_identity")), b"")
        self.tree = LogTree(reader.rows)
        self._try(self.tree.walk)
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

    @property
    def notes(self) -> Iterator[str]:
        """What is to be known of a good one."""
        if self.tree.said.by_others:
            yield (
                f"cosignatures under heads of the log by keys that this store does not know (any more), and that were "
                f"not verified: {self.tree.said.by_others:,}"
            )
        if self.tree.said.timestamps:
            yield (
                f"timestamps that are of their heads: {self.tree.said.timestamps:,}. Whom to believe is the reader's "
                "to say: `flopmeter verify --tsa-cert` takes the authority's certificate"
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
        ranges = self.tree.ranges[kind]
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
            if index < self.tree.covered and number == row[0] and self._row_leaf(kind, row) == stored:
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
