"""The body of an add-checkpoint request (C2SP tlog-witness 1.0): old size, consistency proof, checkpoint. Pure."""

import base64
import binascii
import re
from dataclasses import dataclass

#: C2SP tlog-witness 1.0: "The client MUST NOT send more than 63 consistency proof lines."
MAX_PROOF_LINES = 63
#: 63 proof lines, and a note of sixteen signatures of near 5 kB each in base64 (C2SP signed-note 1.0): some 115 KiB.
MAX_BODY_BYTES = 128 * 1024
#: The largest size that the state can hold (a signed 64-bit integer).
MAX_SIZE = 2**63 - 1

_OLD = re.compile(rb"old (0|[1-9][0-9]{0,18})")


class MalformedError(ValueError):
    """Not the body of an add-checkpoint request; `str()` says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """What a log asks for: that `note` be cosigned, being consistent with the head of `old_size` leaves."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes


def parse(body: bytes) -> AddCheckpoint:
    """Strictly: one encoding of each request. Raises MalformedError."""
    head, gap, note = body.partition(b"\n\n")
    if not gap:
        raise MalformedError("expected an old size line, proof lines, an empty line and a checkpoint")
    first, *lines = head.split(b"\n")
    match = _OLD.fullmatch(first)
    if match is None or int(match[1]) > MAX_SIZE:
        raise MalformedError("first line: expected 'old' and a tree size in decimal")
    if len(lines) > MAX_PROOF_LINES:
        raise MalformedError(f"expected at most {MAX_PROOF_LINES} proof lines, got {len(lines)}")
    return AddCheckpoint(int(match[1]), tuple(_hash(i, line) for i, line in enumerate(lines, 2)), note)


def body(request: AddCheckpoint) -> bytes:
    """The bytes that `parse` reads."""
    lines = [b"old %d" % request.old_size, *(base64.b64encode(h) for h in request.proof)]
    return b"\n".join(lines) + b"\n\n" + request.note


def _hash(number: int, line: bytes) -> bytes:
    try:
        found = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    # Compared as text again: base64 of 32 bytes has two bits that a lenient decoder drops.
    if len(found) != 32 or base64.b64encode(found) != line:
        raise MalformedError(f"line {number}: expected a hash of 32 bytes in base64")
    return found
