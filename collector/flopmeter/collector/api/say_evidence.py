"""GET /evidence, /log/checkpoint; POST /verify."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from flopmeter.collector.attest.view import row_documents
from flopmeter.collector.check.outcome import read_outcome
from flopmeter.collector.log.said import log_document, witness_documents
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.spelling import time_text
from flopmeter.collector.store.attestations import SELECT as ATTESTATIONS
from flopmeter.collector.store.attestations import attestation_rows

from .asking import Wish
from .books import Books
from .problems import Problem, missing
from .routes import MAX_FILE_BYTES
from .told import body_of

MOST_ATTESTATIONS = 100
_SECOND_NS = 1_000_000_000
_TIMES = frozenset({"time", "asked", "cosigned"})


def evidence(books: Books, _: Wish) -> bytes:
    with books.reading() as reader:
        rows = attestation_rows(reader.rows(ATTESTATIONS))
        issued = row_documents(rows)
        log = log_document(reader.connection, books.clock())
        document = {
            "log": log,
            "witnesses": witness_documents(reader.connection),
            "timestamps": _timestamps(reader),
            "fsck": read_outcome(books.store),
            "attestations": issued[:MOST_ATTESTATIONS],
            "attestations_total": len(issued),
        }
    if log["checkpoint"] is not None:
        del log["checkpoint"]["age_seconds"]  # it moves by itself: whoever shows it has `time`
    return body_of({"as_of": time_text(books.newest(_instants(document))), **document})


def _instants(document: Mapping[str, Any]) -> Iterator[int]:
    """All times that stand in it."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _instants(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    yield from _instants(item)
        elif key in _TIMES and isinstance(value, str):
            with suppress(ValueError):  # fsck's file is anybody's who may write there
                yield int(datetime.fromisoformat(value).timestamp() * 1_000) * 1_000_000


def checkpoint(books: Books, _: Wish) -> bytes:
    with books.reading() as reader:
        head = log_document(reader.connection, books.clock())["checkpoint"]
    if head is None:
        raise missing(
            "the log: expected a signed head, found none yet",
            "the collector signs one soon after its first record",
        )
    note: str = head["note"]
    return note.encode()


def verify(books: Books, wish: Wish) -> bytes:
    raw = wish.question.body
    if not raw:
        raise Problem(400, "body: expected an attestation's file, got nothing")
    if len(raw) > MAX_FILE_BYTES:
        raise Problem(413, f"body: expected at most {MAX_FILE_BYTES} bytes, got {len(raw)}")
    return body_of(json.loads(books.apart.verify(raw)))


def _timestamps(reader: Reader) -> list[dict[str, Any]]:
    """The newest of each authority."""
    rows = reader.rows(
        "SELECT tsa, max(checkpoint_no), max(unix_ns) FROM timestamps GROUP BY tsa ORDER BY tsa"
    )
    return [{"tsa": tsa, "checkpoint": no, "time": _second(at)} for tsa, no, at in rows]


def _second(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns // _SECOND_NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
