"""What a leaf of the evidence log says, as bytes. Pure: no clock, no store.

A leaf is canonical JSON (RFC 8785) of texts, at most 1 KiB. It has no figures, only hashes of the rows that do, and a
salt, so that a leaf hash that leaves the house in a proof cannot be guessed from what it may be of
(reference/attestation.md 2.3). What it means that a row is in the log: it has not been changed since it got its index.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SALT_BYTES = 16
BATCH = "batch"

_BATCH = (
    '{"agent":"%s","hash":"%s","kind":"batch","received":"%d","salt":"%s","seq":"%d","v":"1",'
    '"windowEnd":"%d","windowStart":"%d"}'
)
_OTHER = '{"body":"%s","kind":"%s","number":"%d","salt":"%s","v":"1"}'


class Kind(NamedTuple):
    """Rows of one table that are leaves, by their numbers, which count from 1 without holes."""

    name: str
    table: str
    key: str
    columns: tuple[str, ...]  # that the leaf's body is the hash of; the key is the first


def _kind(name: str, table: str, columns: str) -> Kind:
    names = tuple(columns.split())
    return Kind(name, table, names[0], names)


_ACCESS = _kind("access", "access", "access_no unix_ns position kind agent_id subject detail prev_hash hash")
_SAID = (
    _kind("entry", "entries", "entry_no unix_ns position who why statement prev_hash hash"),
    _kind("answer", "answers", "answer_no about number unix_ns position state who why detail prev_hash hash"),
    _kind("keeping", "retention", "said_no unix_ns position kind run value who why prev_hash hash"),
    _kind("law", "law_changes", "change_no regime digest w_table from_position from_unix_ns until_position"),
    _kind(
        "attestation",
        "attestations",
        # No name of a run, a recipient or a person: recipients read this row. The (salted) hash binds them all.
        "attestation_no unix_ns position kind attestation_id commitment profile record_digest statement_sha256 "
        "supersedes hash",
    ),
)
_RECORDS = Kind(
    BATCH,
    "records",
    "position",
    ("position", "agent_no", "seq", "window_end_unix_ns", "received_unix_ns", "record"),
)
_RAISED = (
    _kind("event", "events", "event_no id key type subject time_unix_ns since_position position data"),
    _kind(
        "deadline",
        "deadlines",
        "deadline_no id key regime rule rule_digest text_digest subject event_no trigger_unix_ns due_unix_ns "
        "timezone recipient act what opened_unix_ns position",
    ),
    _kind("loss", "losses", "loss_no agent_no from_seq to_seq noticed_unix_ns reason"),
)
#: In the order in which one transaction appends them: who may speak and what was said before what it applies to.
KINDS: tuple[Kind, ...] = (_ACCESS, *_SAID, _RECORDS, *_RAISED)
#: What anybody appends who finds it waiting. The rest is the collector's: it says up to where access is applied.
WAITING: tuple[Kind, ...] = _SAID
BY_NAME: Mapping[str, Kind] = {k.name: k for k in KINDS}


class Salts:
    """The salt of each leaf: the first half of HMAC-SHA256 over its kind and number, by the store's secret.

    The two halves of the HMAC (RFC 2104) are begun once: half the cost of a call for each.
    """

    def __init__(self, secret: bytes) -> None:
        key = secret.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in key))
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in key))

    def of(self, kind: str, number: int) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(b"%s:%d" % (kind.encode(), number))
        outer.update(inner.digest())
        return outer.hexdigest()[: 2 * SALT_BYTES]


class Batch(NamedTuple):
    """What the leaf of a record says."""

    position: int
    agent: str  # the agent's id, hex
    hash: bytes  # SHA-256 of the record's bytes
    seq: int
    window_start_unix_ns: int
    window_end_unix_ns: int
    received_unix_ns: int


def batch_leaf(b: Batch, salt: str) -> bytes:
    return (
        _BATCH
        % (
            b.agent,
            b.hash.hex(),
            b.received_unix_ns,
            salt,
            b.seq,
            b.window_end_unix_ns,
            b.window_start_unix_ns,
        )
    ).encode()


def row_leaf(kind: Kind, row: Sequence[object], salt: str) -> bytes:
    """Of every other kind; `row` in the order of its columns, the key first."""
    digest = hashlib.sha256(row_body(kind, row)).hexdigest()
    return (_OTHER % (digest, kind.name, row[0], salt)).encode()


def row_body(kind: Kind, row: Sequence[object]) -> bytes:
    """The canonical JSON of a row, by column: numbers in decimal, bytes in hex, both as text."""
    import rfc8785  # a collector that gets nothing but batches does without

    texts: dict[str, str | None] = {name: _text(value) for name, value in zip(kind.columns, row, strict=True)}
    return rfc8785.dumps(texts)


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)
