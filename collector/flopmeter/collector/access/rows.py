"""The access table: who may speak, from when until when, and by whose word. Appended, chained. Pure.

A row is written when somebody's standing changes: a token is made, used or revoked; an agent is admitted, enrolled,
renewed, revoked, seen twice, or takes another key. What strangers try and are refused is no row, only a line in the
operator's log: else anybody could fill the evidence log.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flopmeter.collector.chained_words import NO_HASH, Fault, link_fault

#: First in the hash of every row, so that it is the hash of nothing else.
DOMAIN = b"flopmeter-access/1\0"

TOKEN_MADE = "token-made"  # subject: its id; detail: what it allows, and the SHA-256 of its secret  # noqa: S105
TOKEN_USED = "token-used"  # subject: its id; an enrolment follows  # noqa: S105
TOKEN_REVOKED = "token-revoked"  # subject: its id  # noqa: S105
ADMITTED = "admitted"  # by the operator's file, or on first use; subject: the node
ENROLLED = "enrolled"  # by a join token; subject: the node
RENEWED = "renewed"  # another certificate for the same agent; subject: the node
REVOKED = "revoked"  # no record of this agent is taken any more; subject: the node
KEY_CHANGED = (
    "key-changed"  # the agent's record key is another one from here on, signed by both; subject: the node
)
CLONE_SEEN = "clone-seen"  # its certificate was renewed from two places: refused like a revoked one
KINDS = (
    TOKEN_MADE,
    TOKEN_USED,
    TOKEN_REVOKED,
    ADMITTED,
    ENROLLED,
    RENEWED,
    REVOKED,
    KEY_CHANGED,
    CLONE_SEEN,
)
#: Kinds that say whether an agent's records count.
STANDING = (ADMITTED, ENROLLED, REVOKED, KEY_CHANGED, CLONE_SEEN)
#: … and those of them that end it for the agent that they name.
ENDING = (REVOKED, KEY_CHANGED, CLONE_SEEN)


class AccessRow(NamedTuple):
    """A row of the access table, in the order of its columns."""

    access_no: int
    unix_ns: int  # the collector's clock, or that of whoever said it
    position: int  # of the last record in the books then
    kind: str  # one of KINDS
    agent_id: bytes  # 16 bytes; none of a token
    subject: str
    detail: str  # canonical JSON: an object of texts
    prev_hash: bytes
    hash: bytes


class NewAccess(NamedTuple):
    """What is to be appended; numbers and hashes are given in the transaction that does it."""

    unix_ns: int
    kind: str
    agent_id: bytes
    subject: str
    detail: Mapping[str, str]


def detail_text(detail: Mapping[str, str]) -> str:
    """The one text of a detail."""
    return json.dumps(
        dict(detail), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def row_hash(row: AccessRow) -> bytes:
    """SHA-256 over the domain, the hash before, and all that the row says."""
    said = [
        str(row.access_no),
        str(row.unix_ns),
        str(row.position),
        row.kind,
        row.agent_id.hex(),
        row.subject,
        row.detail,
    ]
    text = json.dumps(said, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return hashlib.sha256(DOMAIN + row.prev_hash + text).digest()


def sealed(
    news: Iterable[NewAccess], last_no: int, last_hash: bytes | None, position: int
) -> list[AccessRow]:
    """The rows behind the one numbered `last_no` (0 and None: there is none)."""
    prev_hash = NO_HASH if last_hash is None else last_hash
    rows = []
    for number, new in enumerate(news, last_no + 1):
        unsealed = AccessRow(
            number,
            new.unix_ns,
            position,
            new.kind,
            new.agent_id,
            new.subject,
            detail_text(new.detail),
            prev_hash,
            b"",
        )
        row = unsealed._replace(hash=row_hash(unsealed))
        rows.append(row)
        prev_hash = row.hash
    return rows


def check_chain(rows: Iterable[AccessRow]) -> Fault | None:
    """Walk the rows in order: numbers without holes, each hash over the one before, each detail canonical."""
    prev_hash = NO_HASH
    for number, row in enumerate(rows, 1):
        fault = link_fault(row, number, prev_hash, row_hash)
        if fault is not None:
            return fault
        if row.kind not in KINDS:
            return Fault(number, "kind", f"one of {', '.join(KINDS)}", row.kind)
        if not _canonical(row.detail):
            return Fault(number, "detail", "a canonical JSON object of texts", row.detail[:200])
        prev_hash = row.hash
    return None


def _canonical(text: str) -> bool:
    try:
        detail = json.loads(text)
    except ValueError:
        return False
    return (
        isinstance(detail, dict)
        and all(isinstance(v, str) for v in detail.values())
        and detail_text(detail) == text
    )
