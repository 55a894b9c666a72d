"""What a witness's answer to add-checkpoint means for us (C2SP tlog-witness 1.0). Pure."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.note import Key, parse_checkpoint, signers

from .call import Reply

SIZE_TYPE = "text/x.tlog.size"
_SIZE = re.compile(
    rb"(0|[1-9][0-9]{0,18})\n?"
)  # C2SP asks for the newline; one that is missing changes no meaning
#: C2SP tlog-witness 1.0: "The client MUST NOT send more than 63 consistency proof lines."
MAX_PROOF_LINES = 63


@dataclass(frozen=True, slots=True)
class Cosigned:
    """It cosigned: the line of each of its keys, without its end, and the time in it (Unix s)."""

    lines: tuple[tuple[Key, str, int], ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """It holds a head of `size` leaves: prove from there."""

    size: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """It holds a later head of ours than the one that it was asked for: one that we signed meanwhile."""

    size: int


@dataclass(frozen=True, slots=True)
class Refused:
    """It holds a head that is none of ours: our log was set back, or another stands under its name."""

    status: int
    size: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing that can be used came back; `why` for people."""

    why: str


Answer = Cosigned | Behind | Ahead | Refused | Failed


def request(old_size: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """The body of an add-checkpoint."""
    return b"old %d\n" % old_size + b"".join(b64encode(h) + b"\n" for h in proof) + b"\n" + note


class Sent(NamedTuple):
    """What the witness was asked: to cosign `note`, a head of `size` leaves, of which it knows the first `old`."""

    note: bytes
    size: int
    old: int


def read(reply: Reply, keys: Sequence[Key], sent: Sent, newest: int) -> Answer:
    """`keys`: the witness's. `newest`: size of the largest head that we ever signed."""
    note, old = sent.note, sent.old
    if reply.status == 200:
        return _cosigned(reply.body, keys, note)
    if reply.status == 409:
        size = _size(reply)
        if size == old == sent.size:  # 1.0.0 says 409 to another root at the same size, later texts 422
            return Refused(409, old)
        if size is None or size == old:
            return Failed("it answered 409 without the size of another head")
        if size > newest:
            return Refused(409, size)
        return Behind(size) if size <= sent.size else Ahead(size)
    if reply.status == 422:
        # Our proofs were verified before they were sent (EvidenceLog): it holds another root than ours at `old`.
        return Refused(422, old) if old else Failed("it answered 422 although nothing was to be proven")
    if reply.status == 404:
        return Failed("it answered 404: it does not know this log; give its operator the log's key")
    if reply.status == 403:
        return Failed("it answered 403: it knows another key of this log; give its operator the right one")
    return Failed(f"it answered {reply.status}: {reply.body[:100].decode(errors='replace')!r}")


def _cosigned(body: bytes, keys: Sequence[Key], note: bytes) -> Cosigned | Failed:
    """As C2SP proposes: laid behind the note, and read by the strict rules of a note."""
    try:
        found = parse_checkpoint(note + body)
        times = signers(found, keys)
    except EvidenceError as e:
        return Failed(f"what it answered is no cosignature of this head by its key: {e.reason[:200]}")
    lines = tuple(
        (key, f"— {name} {b64encode(key_id + signature).decode()}", times[key] or 0)
        for name, key_id, signature in found.lines
        for key in times
        if (key.name, key.id) == (name, key_id)
    )
    return Cosigned(lines)


def _size(reply: Reply) -> int | None:
    match = _SIZE.fullmatch(reply.body)
    return int(match[1]) if match is not None and reply.content_type == SIZE_TYPE else None
