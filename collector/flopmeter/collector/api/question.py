"""What the HTTP port asks of the process that answers, and how both travel over a pipe. Pure.

A frame is four bytes of length (big-endian) of a JSON head, the head, and the body, whose length the head names.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flopmeter.collector.errors import CollectorError

#: Of a head: a path and its parameters are at most what the HTTP port takes of a request's first line.
MAX_HEAD_BYTES = 1 << 17
#: Of a body: the largest answer that is held in memory whole. Exports are streamed, not answered.
MAX_BODY_BYTES = 64 << 20
LENGTH = struct.Struct(">I")


class FrameError(CollectorError):
    """The other end of the pipe sent what is no frame."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request of somebody who may ask it. The HTTP port has checked token, role, origin, size and rate."""

    method: str  # GET or POST
    segments: tuple[
        str, ...
    ]  # of the path behind /api/v1, percent-decoded: ("runs", "slurm:demo/88121", "curve")
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the query; none stands twice
    body: bytes = b""  # of a POST
    who: str = ""  # name of the token
    role: str = ""  # one of access.tokens.ROLES
    tenant: str = ""  # "": sees every run; else Tenant.id, and only that tenant's
    behind_ns: int = 0  # so far the books' clock is behind this machine's: 0 unless a history is played


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. `etag` without quotes; "" = none."""

    status: int
    kind: str  # Content-Type
    body: bytes
    etag: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Pipe(Protocol):
    """One end to read from."""

    def read(self, size: int, /) -> bytes: ...


def pack(head: Mapping[str, Any], body: bytes) -> bytes:
    """One frame. Raises FrameError for one that the other end would refuse."""
    text = json.dumps({**head, "bytes": len(body)}, separators=(",", ":")).encode()
    if len(text) > MAX_HEAD_BYTES or len(body) > MAX_BODY_BYTES:
        raise FrameError(
            f"frame: expected a head of at most {MAX_HEAD_BYTES} bytes and a body of at most {MAX_BODY_BYTES}, "
            f"got {len(text)} and {len(body)}"
        )
    return LENGTH.pack(len(text)) + text + body


def question_bytes(q: Question) -> bytes:
    return pack(
        {
            "method": q.method,
            "segments": list(q.segments),
            "parameters": dict(q.parameters),
            "who": q.who,
            "role": q.role,
            "tenant": q.tenant,
            "behind_ns": q.behind_ns,
        },
        q.body,
    )


def answer_bytes(a: Answer) -> bytes:
    return pack({"status": a.status, "kind": a.kind, "etag": a.etag, "headers": dict(a.headers)}, a.body)


def question_of(head: Mapping[str, Any], body: bytes) -> Question:
    return Question(
        head["method"],
        tuple(head["segments"]),
        head["parameters"],
        body,
        head["who"],
        head["role"],
        head["tenant"],
        head["behind_ns"],
    )


def answer_of(head: Mapping[str, Any], body: bytes) -> Answer:
    return Answer(head["status"], head["kind"], body, head["etag"], head["headers"])


def read_frame(pipe: Pipe) -> tuple[dict[str, Any], bytes] | None:
    """The next frame; None at the end. Raises FrameError for half of one, and for one that is too large."""
    begin = _exactly(pipe, LENGTH.size, optional=True)
    if begin is None:
        return None
    size = head_size(begin)
    head = head_of(_whole(pipe, size))
    return head, _whole(pipe, head["bytes"])


def head_size(begin: bytes) -> int:
    (size,) = LENGTH.unpack(begin)
    if not 2 <= size <= MAX_HEAD_BYTES:
        raise FrameError(f"frame: expected a head of 2 to {MAX_HEAD_BYTES} bytes, got one of {size}")
    return int(size)


def head_of(text: bytes) -> dict[str, Any]:
    try:
        head = json.loads(text)
        size = head["bytes"]
    except (ValueError, TypeError, KeyError) as e:
        raise FrameError(
            "frame: expected a head in JSON that names its body's bytes, got something else"
        ) from e
    if not isinstance(size, int) or not 0 <= size <= MAX_BODY_BYTES:
        raise FrameError(f"frame: expected a body of at most {MAX_BODY_BYTES} bytes, got one of {size}")
    assert isinstance(head, dict)
    return head


def _whole(pipe: Pipe, size: int) -> bytes:
    found = _exactly(pipe, size)
    assert found is not None
    return found


def _exactly(pipe: Pipe, size: int, *, optional: bool = False) -> bytes | None:
    parts, missing = [], size
    while missing:
        part = pipe.read(missing)
        if not part:
            if optional and missing == size:
                return None
            raise FrameError(f"frame: expected {missing} more bytes, got the end of the pipe")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
