"""Rows of the attestations table: what was attested, to whom, and what takes the place of what. Pure.

Two kinds. A `record` is all that was gathered of a run, known by the digest over its salted fields; it is in the log
before anything is signed. An `issued` is one signed statement about a record, in the log after it. Neither is changed.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from flopmeter.collector.chained_words import NO_HASH, Fault, check_text, link_fault
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_label

from .errors import AttestError, AttestRefused

#: First in the hash of every row, so that it is the hash of nothing else.
DOMAIN = b"flopmeter-attestation/1\0"
RECORD = "record"
ISSUED = "issued"
KINDS = (RECORD, ISSUED)
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


class AttestationRow(NamedTuple):
    """A row of the attestations table, in the order of its columns."""

    attestation_no: int
    unix_ns: int  # the clock of whoever made it
    position: int  # of the last record in the books that it rests on
    kind: str  # one of KINDS
    attestation_id: str  # UUIDv7 of the statement; "" of a record
    commitment: str  # to the run's names, salted, hex: how the log's leaf calls it
    run: str
    profile: str  # "" of a record
    recipient: str  # "" of a record
    record_digest: str  # hex
    statement_sha256: str  # of the signed bytes, hex; "" of a record
    supersedes: str  # the attestation_id that it takes the place of; "" for none
    who: str
    why: str
    detail: str  # JSON: of an issued one the head of the log that it states
    salt: bytes  # 16 random bytes in the hash, which leaves the house: names cannot be guessed from it
    prev_hash: bytes
    hash: bytes


_SAID = 16  # columns before the two hashes


def next_row(before: AttestationRow | None, unsealed: AttestationRow) -> AttestationRow:
    """`unsealed` as the row behind `before`. Raises AttestError where it may not stand in the books."""
    number, prev_hash = (0, NO_HASH) if before is None else (before.attestation_no, before.hash)
    row = unsealed._replace(attestation_no=number + 1, prev_hash=prev_hash)
    check_form(row)
    return row._replace(hash=row_hash(row))


def row_hash(row: AttestationRow) -> bytes:
    """SHA-256 over the domain, the hash before, and all that the row says."""
    said = json.dumps(
        [v.hex() if isinstance(v, bytes) else str(v) for v in row[:_SAID]],
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()
    return hashlib.sha256(DOMAIN + row.prev_hash + said).digest()


def check_form(row: AttestationRow) -> None:
    """Raise AttestError unless the row is one that could be made, whatever was made before."""
    if row.kind not in KINDS:
        raise AttestError(f"kind: expected one of {', '.join(KINDS)}, got {row.kind[:40]!r}")
    issued = row.kind == ISSUED
    for name in ("attestation_id", "profile", "statement_sha256"):
        if bool(getattr(row, name)) is not issued:
            raise AttestError(f"{name}: expected {'one' if issued else 'none'} of {row.kind}")
    if issued and not _UUID7.match(row.attestation_id):
        raise AttestError(f"attestation_id: expected a UUIDv7, got {row.attestation_id[:40]!r}")
    for name in ("record_digest", "commitment", *(("statement_sha256",) if issued else ())):
        if not _SHA256.match(getattr(row, name)):
            raise AttestError(f"{name}: expected 64 hex digits, got {getattr(row, name)[:70]!r}")
    if len(row.salt) != 16:
        raise AttestError(f"salt: expected 16 bytes, got {len(row.salt)}")
    if row.supersedes and not (issued and _UUID7.match(row.supersedes)):
        raise AttestError(f"supersedes: expected the id of an attestation, got {row.supersedes[:40]!r}")
    try:
        if not check_label("run", row.run):
            raise AttestError("run: expected the name of a run, got none")
    except ContractError as e:
        raise AttestError(str(e), "name the run as `flopmeter runs list` does") from e
    check_text(AttestError, "who", row.who, "say who issues it: --who")
    check_text(
        AttestError, "why", row.why, "say why, in a sentence that an auditor can follow: --why", needed=issued
    )
    check_text(AttestError, "recipient", row.recipient, "name whom it is for: --recipient", needed=False)
    try:
        detail = json.loads(row.detail)
    except ValueError:
        detail = None
    if not isinstance(detail, dict):
        raise AttestError(f"detail: expected a JSON object, got {row.detail[:40]!r}")


def check_superseded(rows: Iterable[AttestationRow], run: str, attestation_id: str) -> AttestationRow:
    """The attestation that may be superseded. Raises AttestRefused: unknown, of another run, or superseded already."""
    found: AttestationRow | None = None
    for row in rows:
        if row.kind == ISSUED and row.attestation_id == attestation_id:
            found = row
        if row.supersedes == attestation_id:
            raise AttestRefused(
                f"attestation {attestation_id}: expected one that stands, got one that {row.attestation_id} superseded",
                "supersede the later one: `flopmeter attest list` shows them",
            )
    if found is None:
        raise AttestRefused(
            f"attestation {attestation_id}: expected one that was issued from this store, found none",
            "`flopmeter attest list` shows them with their ids",
        )
    if found.run != run:
        raise AttestRefused(
            f"attestation {attestation_id}: expected one of run {run}, got one of run {found.run}",
            "`flopmeter attest list` shows them with their runs",
        )
    return found


def check_chain(rows: Iterable[AttestationRow]) -> Fault | None:
    """Walk the rows in order: numbers without holes, each hash over the one before, each one that could be made then."""
    good: list[AttestationRow] = []
    for number, row in enumerate(rows, 1):
        fault = link_fault(row, number, good[-1].hash if good else NO_HASH, row_hash)
        if fault is not None:
            return fault
        try:
            check_form(row)
            if row.supersedes:
                check_superseded(good, row.run, row.supersedes)
        except AttestError as e:
            return Fault(
                number, "kind, run, profile, supersedes, who, why", "what could be said then", str(e)
            )
        if row.kind == ISSUED and not any(_same_record(row, r) for r in good):
            return Fault(number, "record_digest", "of a record of the run, logged before", row.record_digest)
        good.append(row)
    return None


def _same_record(issued: AttestationRow, row: AttestationRow) -> bool:
    return row.kind == RECORD and (row.record_digest, row.run, row.position) == (
        issued.record_digest,
        issued.run,
        issued.position,
    )


def uuid7(unix_ms: int, random10: bytes) -> str:
    """RFC 9562 section 5.7: 48 bits of Unix milliseconds, then 74 random bits around version and variant."""
    value = (unix_ms & ((1 << 48) - 1)) << 80 | int.from_bytes(random10, "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
