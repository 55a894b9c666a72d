"""Attestations: the chain of their rows, what their records were made of, and their order in the log."""

import json
from collections.abc import Callable, Mapping

from flopmeter.collector.attest.errors import AttestRefused
from flopmeter.collector.attest.material import fault_in
from flopmeter.collector.attest.said import RECORD, AttestationRow, check_chain
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.attestations import SELECT, attestation_rows
from flopmeter.evidence.errors import EvidenceError

from .rederive import Difference, compare


def check_attestations(reader: Reader, index_of: Callable[[str, int], int | None] | None) -> int:
    """How many there are. `index_of`: as of AccessCheck. Raises Difference."""
    rows = attestation_rows(reader.rows(SELECT))
    fault = check_chain(rows)
    if fault is not None:
        raise Difference(
            "attestations", f"attestation_no {fault.number}", fault.column, fault.expected, fault.got
        )
    _material(reader, rows)
    heads = {size: bytes(root) for size, root in reader.rows("SELECT size, root FROM checkpoints")}
    for row in rows:
        if row.kind != RECORD and index_of is not None:
            _logged_after(row, _record_of(row, rows), index_of)
            _head_of(row, heads)
    return len(rows)


def _material(reader: Reader, rows: list[AttestationRow]) -> None:
    """Every record has the fields that its digest is of, and nothing else has any."""
    digests = {r.attestation_no: r.record_digest for r in rows if r.kind == RECORD}
    for number, text in reader.rows("SELECT attestation_no, material FROM attested ORDER BY attestation_no"):
        name = f"attestation_no {number}"
        digest = digests.pop(number, None)
        if digest is None:
            raise Difference("attested", name, "row", "none: no record has that number", "a row")
        try:
            fault = fault_in(text, digest)
        except (AttestRefused, EvidenceError, ValueError, TypeError, KeyError, IndexError) as e:
            raise Difference("attested", name, "material", "the fields of a record", repr(e)) from e
        if fault is not None:
            raise Difference("attested", name, f"material, {fault[0]}", *fault[1:])
    for number in digests:
        raise Difference(
            "attested", f"attestation_no {number}", "row", "what that record was made of", "none"
        )


def _head_of(issued: AttestationRow, heads: Mapping[int, bytes]) -> None:
    """What the statement names as the head of the log is one that was signed."""
    name = f"attestation_no {issued.attestation_no}"
    try:
        said = json.loads(issued.detail)
        size, root = int(said["treeSize"]), bytes.fromhex(said["rootHash"])
    except (ValueError, TypeError, KeyError) as e:
        raise Difference("attestations", name, "detail", "treeSize and rootHash", repr(e)) from e
    compare("attestations", name, [(f"detail, its head of {size} leaves", heads.get(size), root)])


def _record_of(issued: AttestationRow, rows: list[AttestationRow]) -> AttestationRow:
    """The newest before it; check_chain has seen that there is one."""
    wanted = (issued.record_digest, issued.run, issued.position)
    return next(
        r
        for r in reversed(rows[: issued.attestation_no - 1])
        if r.kind == RECORD and (r.record_digest, r.run, r.position) == wanted
    )


def _logged_after(
    issued: AttestationRow, record: AttestationRow, index_of: Callable[[str, int], int | None]
) -> None:
    """A record is in the log before a statement about it is signed: else it could be made to fit."""
    name = f"attestation_no {issued.attestation_no}"
    at, of_record = (
        index_of("attestation", issued.attestation_no),
        index_of("attestation", record.attestation_no),
    )
    if of_record is None or (at is not None and at < of_record):
        raise Difference(
            "attestations",
            name,
            "leaf's index",
            f"behind that of its record, attestation_no {record.attestation_no} ({of_record})",
            at,
        )
