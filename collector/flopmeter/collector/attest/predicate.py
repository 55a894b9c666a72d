"""The statement's predicate: a view of a record, and what holds it in the log (docs/attestation-format.md 4). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopmeter.evidence.disclosure import field_digest

from .disclosures import Record
from .evidence_file import ENTRY, EVENT, RECORD, START, Head, Proof
from .profiles import View
from .sum_tree import SumTree
from .values import time_text

SCHEMA_VERSION = "1"
SUM_ALG = "flopmeter/sum-tree/v1"
CLAIM = "thisRunOnly"
_ITEMS = ("/totals/countable/", "/thresholds/")


@dataclass(frozen=True, slots=True)
class Header:
    """Who says it, about what, to whom, in the place of what."""

    attestation_id: str
    profile: str
    issued_unix_ns: int
    issuer: str
    role: str
    key_id: str
    supersedes: tuple[tuple[str, str, str], ...]  # (attestation id, SHA-256 of its statement, reason)
    pseudonym: str


@dataclass(frozen=True, slots=True)
class Anchored:
    """Where the record stands in the log."""

    origin: str
    log_key: str
    size: int
    root: bytes
    note: str
    leaf_range: tuple[int, int]
    previous: Head | None
    record_index: int
    timestamps: tuple[str, ...]  # RFC 3161 tokens over the note's text, base64
    start_index: int | None  # of the run's declared start, if it was declared before its first record


def predicate(
    header: Header, view: View, record: Record, tree: SumTree, *, anchored: Anchored, limits: Sequence[str]
) -> dict[str, Any]:
    """All of it. `limits`: what is not proven, in sentences."""
    groups = _groups(view.shown)
    a = anchored
    return {
        "schemaVersion": SCHEMA_VERSION,
        "attestationId": header.attestation_id,
        "profile": header.profile,
        "issuedAt": time_text(header.issued_unix_ns),
        "issuer": {"name": header.issuer, "role": header.role, "keyId": header.key_id},
        "supersedes": [
            {"attestationId": i, "statementSha256": digest, "reason": reason}
            for i, digest, reason in header.supersedes
        ],
        **groups,
        "run": {"pseudonym": header.pseudonym} | groups["run"],
        "evidence": {
            "origin": a.origin,
            "logKey": a.log_key,
            "treeSize": str(a.size),
            "rootHash": f"sha256:{a.root.hex()}",
            "leafRange": [str(n) for n in a.leaf_range],
            "checkpoint": a.note,
            "previous": None
            if a.previous is None
            else {"treeSize": str(a.previous.size), "rootHash": f"sha256:{a.previous.root.hex()}"},
            "sumTree": {
                "alg": SUM_ALG,
                "root": f"sha256:{tree.root.hex()}",
                "leafCount": str(len(tree.leaves)),
            },
            "recordEntry": {"index": str(a.record_index)},
            "timestamps": list(a.timestamps),
        },
        "record": {"fieldDigests": record.field_digests, "digest": f"sha256:{record.digest}"},
        "redactions": [
            {
                "path": r.path,
                "form": r.form.value,
                "reason": r.reason,
                "digest": field_digest(record.disclosures[r.path]),
            }
            for r in view.redactions
        ],
        "scope": {
            "claim": CLAIM,
            "limits": list(limits),
            "precommittedBy": None if a.start_index is None else str(a.start_index),
        },
    }


def proofs(view: View, anchored: Anchored) -> list[Proof]:
    """Which rows the statement refers to, all of which must be shown to be in the log."""
    found = [Proof(anchored.record_index, RECORD)]
    if anchored.start_index is not None:
        found.append(Proof(anchored.start_index, START))
    for path, value in view.shown.items():
        if path.startswith("/thresholds/") and value["eventLogIndex"] is not None:
            found.append(Proof(int(value["eventLogIndex"]), EVENT))
        elif path.startswith("/totals/countable/"):
            found += [Proof(int(e["evidenceLogIndex"]), ENTRY) for e in value["excluded"]]
    return found


def _groups(shown: Mapping[str, Any]) -> dict[str, Any]:
    groups: dict[str, Any] = {
        "run": {},
        "period": {},
        "totals": {"countable": []},
        "method": {},
        "coverage": {},
        "thresholds": [],
        "inventory": {},
    }
    for path in sorted(shown):
        value = shown[path]
        if path.startswith(_ITEMS[0]):
            groups["totals"]["countable"].append(value)
        elif path.startswith(_ITEMS[1]):
            groups["thresholds"].append(value)
        elif path.count("/") == 1:
            groups[path[1:]] = value
        else:
            _, group, member = path.split("/")
            groups[group][member] = value
    return groups
