"""What is kept of witnesses in the store: how each stands, its cosignatures, and heads of ours that it refused."""

import base64
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flopmeter.evidence.note import Key, parse_key

#: The last word of a witness was a refusal: no cosignature of it came since.
_KNOWN = """
    SELECT vkey, known_size, cosigned_size, cosigned_unix_s, error, coalesce(
        (SELECT max(unix_ns) FROM refused_heads r WHERE r.vkey = w.vkey)
        > coalesce((SELECT max(unix_ns) FROM cosignatures c WHERE c.key_name = w.key_name), 0), 0)
    FROM witnesses w"""
_ROW = (
    "INSERT OR REPLACE INTO witnesses (key_name, vkey, known_size, cosigned_size, cosigned_unix_s, asked_unix_ns, error) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_LINES = "SELECT line FROM cosignatures WHERE checkpoint_no = ? AND key_name = ?"
_LINE = "INSERT INTO cosignatures (checkpoint_no, key_name, line, unix_ns) VALUES (?, ?, ?, ?)"
_REFUSAL = (
    "INSERT INTO refused_heads (refusal_no, unix_ns, key_name, vkey, status, size, root, witness_size) "
    "SELECT coalesce(max(refusal_no), 0) + 1, ?, ?, ?, ?, ?, ?, ? FROM refused_heads"
)
_REFUSED = (
    "{} refused our head of {} leaves with root {} ({}): it has cosigned one of {} leaves under our key that ours does "
    "not follow from"
)
_REFUSALS = (
    "SELECT refusal_no, key_name, size, root, status, witness_size FROM refused_heads WHERE refusal_no > ? "
    "ORDER BY refusal_no"
)


@dataclass(frozen=True, slots=True)
class Row:
    """How it stands with one key of a witness."""

    key: Key
    known_size: int
    cosigned_size: int | None
    cosigned_unix_s: int | None
    error: str
    refused: bool


class Refusal(NamedTuple):
    """A head of ours (`size`, `root`) that a witness refused because it holds another one, of `witness_size`."""

    status: int
    size: int
    root: bytes
    witness_size: int


def vkey_of(key: Key) -> str:
    """As policy files have it."""
    return f"{key.name}+{key.id.hex()}+{base64.b64encode(bytes([key.kind]) + key.public).decode()}"


def known(connection: sqlite3.Connection) -> dict[Key, Row]:
    """How it stood with each key when it was asked last."""
    found = {}
    for vkey, size, cosigned, unix_s, error, refused in connection.execute(_KNOWN):
        key = parse_key(vkey)
        found[key] = Row(key, size, cosigned, unix_s, error, refused=bool(refused))
    return found


def refusals(connection: sqlite3.Connection, after_no: int) -> list[tuple[int, str]]:
    """(number, what happened) of each since `after_no`; the same text whenever it is read."""
    return [(number, refusal_text(*row)) for number, *row in connection.execute(_REFUSALS, (after_no,))]


def refusal_text(key_name: str, size: int, root: bytes, status: int, witness_size: int) -> str:
    """What happened, in words."""
    return _REFUSED.format(key_name, size, root.hex(), status, witness_size)


def keep(
    connection: sqlite3.Connection,
    rows: Iterable[Row],
    *,
    checkpoint_no: int,
    lines: Sequence[tuple[Key, str]],
    refusal: tuple[Key, Refusal] | None,
    now_ns: int,
) -> None:
    """All that one answer brought, in one transaction. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for row in rows:
            connection.execute(
                _ROW,
                (
                    row.key.name,
                    vkey_of(row.key),
                    row.known_size,
                    row.cosigned_size,
                    row.cosigned_unix_s,
                    now_ns,
                    row.error[:500],
                ),
            )
        if refusal is not None:
            key, happened = refusal
            connection.execute(_REFUSAL, (now_ns, key.name, vkey_of(key), *happened))
        for key, line in lines:
            # A note with two lines of one key is refused; another process may have asked at the same moment.
            there = {_key_id(text) for (text,) in connection.execute(_LINES, (checkpoint_no, key.name))}
            if key.id not in there:
                connection.execute(_LINE, (checkpoint_no, key.name, line, now_ns))
        connection.execute("COMMIT")  # D2
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _key_id(line: str) -> bytes:
    return base64.b64decode(line.rsplit(" ", 1)[1])[:4]
