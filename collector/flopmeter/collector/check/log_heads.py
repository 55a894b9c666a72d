"""The signed heads of the evidence log: each is what its note says, under the log's own key, and larger than the last."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.note import Key, parse_checkpoint, parse_key, signers

from .rederive import Difference, compare


class Head(NamedTuple):
    """A head whose signature is good."""

    number: int
    size: int
    root: bytes

    @property
    def name(self) -> str:
        return f"checkpoint_no {self.number}"


class Said:
    """What is beside the heads, counted."""

    def __init__(self) -> None:
        self.cosignatures = 0
        self.by_others = 0  # cosignatures by keys that the store does not know (any more)
        self.timestamps = 0


def check_heads(rows: Callable[..., Any], said_of: Said) -> Iterator[Head]:
    """Every stored head with its cosignatures, the oldest first, each as it is good. Raises Difference at the first that
    is not.

    What it cannot say: that the root is the tree's.
    """
    origin, key = _identity(rows)
    witnesses = _witnesses(rows)
    size = -1
    for number, (checkpoint_no, its_size, root, note) in enumerate(
        rows("SELECT checkpoint_no, size, root, note FROM checkpoints ORDER BY checkpoint_no"), 1
    ):
        head = Head(checkpoint_no, its_size, bytes(root))
        compare("checkpoints", head.name, [("checkpoint_no", number, checkpoint_no)])
        if its_size <= size:
            raise Difference(
                "checkpoints", head.name, "size", f"more than {size}, that of the head before", its_size
            )
        size = its_size
        if key is None:
            raise Difference("log_identity", head.name, "vkey", "the key that signed it", "none")
        try:
            said = parse_checkpoint(note.encode())
            signers(said, [key])  # refuses what the key has not signed
        except EvidenceError as e:
            raise Difference(
                "checkpoints", head.name, "note", f"a checkpoint signed by {origin}", str(e)
            ) from e
        compare(
            "checkpoints",
            head.name,
            [
                ("note, its origin", origin, said.origin),
                ("note, its size", its_size, said.size),
                ("note, its root", head.root, said.root),
            ],
        )
        for name, line in rows(
            "SELECT key_name, line FROM cosignatures WHERE checkpoint_no = ?", (head.number,)
        ):
            _cosigned(f"{head.name}, key_name {name}", note + line + "\n", name, witnesses, said_of)
        _stamped(rows, head, said.text, said_of)
        yield head
    for table in ("cosignatures", "timestamps"):
        for (number,) in rows(
            f"SELECT checkpoint_no FROM {table} EXCEPT SELECT checkpoint_no FROM checkpoints"  # noqa: S608
        ):
            raise Difference(table, f"checkpoint_no {number}", "row", "none: there is no such head", "a row")


def _witnesses(rows: Callable[..., Any]) -> dict[tuple[str, bytes], Key]:
    """By the name and id that stand in a line: a witness may have several keys of one name."""
    found: dict[tuple[str, bytes], Key] = {}
    for name, vkey in rows("SELECT key_name, vkey FROM witnesses"):
        try:
            key = parse_key(vkey)
        except (EvidenceError, TypeError) as e:
            raise Difference("witnesses", f"key_name {name}", "vkey", "a verifier key", str(e)) from e
        compare("witnesses", f"key_name {name}", [("vkey, its name", name, key.name)])
        found[key.name, key.id] = key
    return found


def _cosigned(
    row: str, note: str, name: str, witnesses: Mapping[tuple[str, bytes], Key], said_of: Said
) -> None:
    """The last line of the note is a signature of it by the witness that it names. Raises Difference."""
    try:
        said = parse_checkpoint(note.encode())
        compare("cosignatures", row, [("line, its key's name", name, said.lines[-1][0])])
        key = witnesses.get(said.lines[-1][:2])
        found = key is not None and key in signers(said, [key])
    except EvidenceError as e:
        raise Difference("cosignatures", row, "line", "a cosignature of that head", str(e)) from e
    said_of.cosignatures += found
    said_of.by_others += not found


def _stamped(rows: Callable[..., Any], head: Head, text: bytes, said_of: Said) -> None:
    """Each token (RFC 3161) is over that head: the digest of its text stands in it. Raises Difference.

    Whether the token's authority is one is not asked: whom to believe what time it is, no store says.
    """
    digests = [hashlib.new(name, text).digest() for name in ("sha256", "sha384", "sha512")]
    for tsa, token in rows("SELECT tsa, token FROM timestamps WHERE checkpoint_no = ?", (head.number,)):
        if not any(digest in bytes(token) for digest in digests):
            key = f"{head.name}, tsa {tsa}"
            raise Difference("timestamps", key, "token", "one over that head", "one over something else")
        said_of.timestamps += 1


def _identity(rows: Callable[..., Any]) -> tuple[str, Key | None]:
    for origin, vkey in rows("SELECT origin, vkey FROM log_identity WHERE origin IS NOT NULL"):
        try:
            key = parse_key(vkey)
        except (EvidenceError, TypeError) as e:
            raise Difference("log_identity", "one 1", "vkey", "a verifier key", str(e)) from e
        compare("log_identity", "one 1", [("vkey, its name", origin, key.name)])
        return origin, key
    return "", None
