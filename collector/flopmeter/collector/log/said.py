"""How the evidence log and its witnesses stand, as objects with stable keys: `collector log show`, and GET /evidence."""

import sqlite3
from datetime import UTC, datetime
from typing import Any

from .append import waiting
from .entry import KINDS
from .evidence_log import EvidenceLog

#: Numbers of a kind are without holes from 1 on (the trigger log_goes_on): the end of its last row is how many there are.
_LEAVES = "SELECT first_number + count - 1 FROM log WHERE kind = ? ORDER BY first_number DESC LIMIT 1"
_WITNESSES = (
    "SELECT key_name, vkey, known_size, cosigned_size, cosigned_unix_s, asked_unix_ns, error FROM witnesses "
    "ORDER BY key_name, vkey"
)
_COSIGNED = "SELECT DISTINCT key_name FROM cosignatures WHERE checkpoint_no = ? ORDER BY key_name"
_SECOND_NS = 1_000_000_000


def log_document(connection: sqlite3.Connection, now_unix_ns: int) -> dict[str, Any]:
    """Size, name, key, the last checkpoint and its age, and who cosigned it."""
    evidence = EvidenceLog(connection)
    identity, head = evidence.identity, evidence.latest()
    ends = {k.name: connection.execute(_LEAVES, (k.name,)).fetchone() for k in KINDS}
    document: dict[str, Any] = {
        "origin": identity.origin if identity else None,
        "vkey": identity.vkey if identity else None,
        "size": evidence.size,
        "leaves": {name: row[0] for name, row in ends.items() if row is not None},
        "waiting": waiting(connection),
        "checkpoint": None,
    }
    if head is not None:
        document["checkpoint"] = {
            "number": head.number,
            "size": head.size,
            "root": head.root.hex(),
            "time": _second(head.unix_ns // _SECOND_NS),
            "age_seconds": max(0, (now_unix_ns - head.unix_ns) // _SECOND_NS),
            "cosigned_by": [name for (name,) in connection.execute(_COSIGNED, (head.number,))],
            "note": head.note.decode(),
        }
    return document


def witness_documents(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """How it stood with each key of a witness when it was asked last. `error`: of that answer; null if it cosigned."""
    return [
        {
            "name": name,
            "vkey": vkey,
            "known_size": known,
            "cosigned_size": size,
            "cosigned": None if at is None else _second(at),
            "asked": _second(asked // _SECOND_NS),
            "error": error or None,
        }
        for name, vkey, known, size, at, asked, error in connection.execute(_WITNESSES)
    ]


def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
