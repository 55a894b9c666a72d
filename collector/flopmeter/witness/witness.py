"""What a witness answers to add-checkpoint (C2SP tlog-witness), in the order of the specification's text.

The text followed is that of C2SP at 5ba5ee8 (July 2026): release 1.0.0 with later clarifications, of which one changes a status:
another root at the size of the head is 422, where 1.0.0 said 409. It is what litewitness and omniwitness answer.
"""

import hashlib
import logging
import sqlite3
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import verify_consistency
from flopmeter.evidence.note import Checkpoint, parse_checkpoint, signers
from flopmeter.evidence.note import Key as LogKey

from .heads import Head, Heads, Refused
from .keys import Key
from .request import AddCheckpoint, MalformedError, parse

log = logging.getLogger(__name__)

#: RFC 6962 section 2.1: the root of the empty tree.
EMPTY_ROOT = hashlib.sha256(b"").digest()
SIZE_TYPE = "text/x.tlog.size"
_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    content_type: str = _TEXT


class Witness:
    """Cosigns heads of `logs` (their vkeys' names are their origins) that continue what it cosigned before."""

    def __init__(
        self,
        keys: Sequence[Key],
        logs: Sequence[LogKey],
        heads: Heads,
        unix_s: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self._keys, self._heads, self._unix_s = tuple(keys), heads, unix_s
        self._logs: dict[str, list[LogKey]] = defaultdict(list)
        for key in logs:
            self._logs[key.name].append(key)
        self._by_hash = {hashlib.sha256(origin.encode()).hexdigest(): origin for origin in self._logs}

    def add_checkpoint(self, body: bytes) -> Answer:
        """The answer to one request. Raises nothing: what goes wrong here is a 500, and nothing is cosigned."""
        try:
            asked = parse(body)
            checkpoint = parse_checkpoint(asked.note)
        except (MalformedError, EvidenceError) as e:
            return _refused(HTTPStatus.BAD_REQUEST, "?", str(e))
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return _refused(
                HTTPStatus.NOT_FOUND, checkpoint.origin, "this witness knows no log of this origin"
            )
        try:
            signed = signers(checkpoint, keys)
        except EvidenceError as e:
            return _refused(HTTPStatus.FORBIDDEN, checkpoint.origin, str(e))
        if asked.old_size > checkpoint.size:
            return _refused(
                HTTPStatus.BAD_REQUEST, checkpoint.origin, "the old size is larger than the checkpoint's"
            )
        log_lines = b"".join(
            _line(name, key_id, signature)
            for name, key_id, signature in checkpoint.lines
            if any((name, key_id) == (key.name, key.id) for key in signed)
        )
        try:
            with self._heads.transaction():
                answer = self._judge(asked, checkpoint, log_lines)
        except sqlite3.Error as e:
            log.error("%s: state: %s: nothing is cosigned", _shown(checkpoint.origin), e)  # noqa: TRY400
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"the state cannot be written\n")
        if answer.status == HTTPStatus.OK:
            log.info(
                "%s: cosigned size %d (before: %d)",
                _shown(checkpoint.origin),
                checkpoint.size,
                asked.old_size,
            )
        return answer

    def _judge(self, asked: AddCheckpoint, checkpoint: Checkpoint, log_lines: bytes) -> Answer:
        """Within a transaction: the head is read, compared and written with nobody in between."""
        head = self._heads.head(checkpoint.origin)
        size = head.size if head is not None else 0
        if asked.old_size != size:
            log.info("%s: 409: old size %d, cosigned %d", _shown(checkpoint.origin), asked.old_size, size)
            return Answer(HTTPStatus.CONFLICT, b"%d\n" % size, SIZE_TYPE)
        fault = _fault(asked, checkpoint, head)
        now = self._unix_s()
        if fault is not None:
            note = checkpoint.text + b"\n" + log_lines
            self._heads.keep(Refused(checkpoint.origin, checkpoint.size, checkpoint.root, size, now, note))
            return _refused(HTTPStatus.UNPROCESSABLE_ENTITY, checkpoint.origin, fault, logging.ERROR)
        if head is not None and now < head.unix_s:
            # A cosignature says "as of this time the largest head that I saw": of an earlier time that would be false.
            log.error(
                "%s: the clock is %d s behind the last cosignature: nothing is cosigned until it is right",
                _shown(checkpoint.origin),
                head.unix_s - now,
            )
            return Answer(
                HTTPStatus.SERVICE_UNAVAILABLE, b"the witness's clock is behind its last cosignature\n"
            )
        lines = b"".join(
            key.cosign(checkpoint.text, checkpoint.origin, checkpoint.size, checkpoint.root, now)
            for key in self._keys
        )
        note = checkpoint.text + b"\n" + log_lines + lines
        self._heads.put(Head(checkpoint.origin, checkpoint.size, checkpoint.root, now, note))
        return Answer(HTTPStatus.OK, lines)

    def checkpoint(self, origin_hash: str) -> Answer:
        """The latest cosigned checkpoint of the log whose origin has this SHA-256 (hex), for monitors."""
        origin = self._by_hash.get(origin_hash)
        try:
            with self._heads.transaction():
                head = self._heads.head(origin) if origin is not None else None
        except sqlite3.Error as e:
            log.error("state: %s", e)  # noqa: TRY400
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"the state cannot be read\n")
        if head is None:
            return Answer(HTTPStatus.NOT_FOUND, b"no checkpoint of such a log was cosigned\n")
        return Answer(HTTPStatus.OK, head.note)

    def healthy(self) -> bool:
        """Whether the state can be locked for writing now."""
        try:
            with self._heads.transaction():
                return True
        except sqlite3.Error as e:
            log.error("state: %s", e)  # noqa: TRY400
            return False


def _fault(asked: AddCheckpoint, checkpoint: Checkpoint, head: Head | None) -> str | None:
    """Why `checkpoint` is no continuation of the head; None: it is one."""
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        return "the tree of no leaves has another root"
    if head is None or head.size == 0:
        return "expected no proof from size 0" if asked.proof else None
    if checkpoint.size == head.size and checkpoint.root != head.root:
        return f"another root at size {head.size} than the one that was cosigned"
    try:
        verify_consistency(head.size, head.root, checkpoint.size, checkpoint.root, asked.proof)
    except EvidenceError as e:
        return str(e)
    return None


def _refused(status: HTTPStatus, origin: str, why: str, level: int = logging.INFO) -> Answer:
    log.log(level, "%s: %d: %s", _shown(origin), status, why[:300])
    return Answer(status, why[:300].encode() + b"\n")


def _line(name: str, key_id: bytes, signature: bytes) -> bytes:
    return f"— {name} {b64encode(key_id + signature).decode()}\n".encode()


def _shown(origin: str) -> str:
    """Anybody can send an origin of any length and script: in a log line it stays short and ASCII."""
    return ascii(origin[:100])[1:-1]
