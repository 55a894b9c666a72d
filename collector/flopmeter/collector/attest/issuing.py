"""Issuing a view of a record: statement, signature, its own entry in the log, and the file. Nothing is handed out here."""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.log.checkpoint import Checkpoint, Signer
from flopmeter.collector.log.entry import BATCH
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.log.rows import salts_of
from flopmeter.collector.report.queries import reading
from flopmeter.collector.store.attestations import SqliteAttestations

from . import container, limits
from .bundle import bundle, statement
from .errors import AttestRefused
from .evidence_file import Head, Place, evidence, row_text
from .material import Material
from .pack import write_pack
from .predicate import Anchored, Header, predicate, proofs
from .profiles import AUDITOR, view
from .request import Means, Request
from .said import ISSUED, AttestationRow, check_superseded, next_row, uuid7
from .signing import key_id
from .values import canonical

ATTESTATION = "attestation"
BUNDLE, EVIDENCE, RECEIPT = "bundle.sigstore.json", "evidence.json", "receipt.tlog-proof"
_TOKENS = "SELECT token FROM timestamps WHERE checkpoint_no = ? ORDER BY tsa"
_PSEUDONYM = b"flopmeter-pseudonym/1\0"


@dataclass(frozen=True, slots=True)
class Issued:
    """What was issued."""

    row: AttestationRow
    predicate: dict[str, Any]
    assurance: str

    @property
    def attestation_id(self) -> str:
        return self.row.attestation_id


def issue(
    books: SqliteAttestations,
    row: AttestationRow,
    material: Material,
    directory: Path,
    *,
    request: Request,
    means: Means,
    head_key: Signer,
    superseded: AttestationRow | None,
) -> tuple[Issued, Path]:
    """`row` is the record's. The file lies in `directory`; the attestation is logged. Raises AttestRefused, LogError."""
    connection, log = books.connection, EvidenceLog(books.connection)
    place = Place(connection, log)
    head = _head(log, connection, head_key, means, stamp=True)
    shown = view(material.record.values, request.profile)
    before = [r for r in books.attestations() if r.kind == ISSUED and r.recipient == request.to]
    previous = _heads(connection, log, before, head.size)
    anchored = _anchored(place, row, material, head, previous)
    files: dict[str, bytes | Path] = {
        EVIDENCE: canonical(
            evidence(
                place,
                head.size,
                material.record,
                shown,
                material.tree,
                profile=request.profile,
                proofs=proofs(shown, anchored),
                heads=previous,
                devices=material.devices,
            )
        )
    }
    if request.profile == AUDITOR:
        salts = salts_of(connection)
        assert salts is not None  # there are leaves
        with reading(
            request.store
        ) as reader:  # records never change: any state of the books that has them will do
            files |= write_pack(directory, reader, log, salts=salts, facts=material.facts, size=head.size)
    subjects = [container.member(name, content) for name, content in files.items()]
    now = means.now_unix_ns()
    header = Header(
        attestation_id=uuid7(now // 10**6, means.random(10)),
        profile=request.profile,
        issued_unix_ns=now,
        issuer=request.issuer or anchored.origin,
        role=request.role,
        key_id=key_id(means.signer.public()),
        supersedes=()
        if superseded is None
        else ((superseded.attestation_id, superseded.statement_sha256, request.why),),
        pseudonym=pseudonym(connection, request.to, row.run),
    )
    level = _assurance(log, means, head, len(anchored.timestamps))
    said = [level, *limits.LIMITS]
    if int(material.facts["unknownAncestors"]):
        said.append(limits.UNKNOWN_ANCESTORS.format(count=material.facts["unknownAncestors"]))
    stated = predicate(header, shown, material.record, material.tree, anchored=anchored, limits=said)
    payload = statement(stated, [(m.name, m.sha256) for m in subjects])
    sealed = bundle(payload, means.signer)
    issued = _logged(books, log, row, header, payload, head=head, request=request, means=means)
    receipt = _receipt(place, issued, head, _head(log, connection, head_key, means))
    file = directory / "attestation.zip"
    # Only its maker reads it: it goes to one recipient, and an auditor's has names.
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        container.write(
            f,
            [
                container.member(BUNDLE, sealed),
                subjects[0],
                container.member(RECEIPT, receipt),
                *subjects[1:],
            ],
        )
    return Issued(issued, stated, level), file


def _anchored(
    place: Place, row: AttestationRow, material: Material, head: Checkpoint, previous: Sequence[Head]
) -> Anchored:
    """Where all of it stands in the log, under `head`."""
    connection, log = place
    identity, facts = log.identity, material.facts
    assert identity is not None  # create() has seen to it
    return Anchored(
        origin=identity.origin,
        log_key=identity.vkey,
        size=head.size,
        root=head.root,
        note=head.note.decode(),
        leaf_range=(
            _index(log, BATCH, int(facts["firstPosition"])),
            _index(log, BATCH, int(facts["lastPosition"])) + 1,
        ),
        previous=previous[0] if previous else None,
        record_index=_index(log, ATTESTATION, row.attestation_no),
        timestamps=tuple(
            base64.b64encode(t).decode() for (t,) in connection.execute(_TOKENS, (head.number,))
        ),
        start_index=None if facts["startIndex"] is None else int(facts["startIndex"]),
    )


def pseudonym(connection: sqlite3.Connection, recipient: str, run: str) -> str:
    """What one recipient knows a run by: HMAC-SHA256 under the store's secret. Two cannot tell that theirs are one run."""
    (secret,) = connection.execute("SELECT salt FROM log_identity").fetchone()
    said = _PSEUDONYM + recipient.encode() + b"\0" + run.encode()
    return f"run-{hmac.new(bytes(secret), said, hashlib.sha256).hexdigest()[:32]}"


def _head(
    log: EvidenceLog, connection: sqlite3.Connection, key: Signer, means: Means, *, stamp: bool = False
) -> Checkpoint:
    """A signed head over all that is in the log now, with the cosignatures and timestamps that could be had."""
    head = log.seal(key, means.now_unix_ns)
    identity = log.identity
    if means.witnesses is not None and identity is not None:
        means.witnesses(identity.vkey).ask(connection, patient=False)
    if stamp and means.authorities is not None:
        means.authorities.stamp(connection, head, means.now_unix_ns())
    return log.checkpoint_of(head.size) or head


def _assurance(log: EvidenceLog, means: Means, head: Checkpoint, timestamps: int) -> str:
    identity = log.identity
    if means.witnesses is None or identity is None:
        return limits.assurance((), (), timestamps)
    witnesses = means.witnesses(identity.vkey)
    standing = witnesses.standing(head)
    return limits.assurance(standing.cosigned, witnesses.names, timestamps, quorum=standing.reached)


def _heads(
    connection: sqlite3.Connection, log: EvidenceLog, rows: Iterable[AttestationRow], size: int
) -> list[Head]:
    """Heads that the recipient was shown: of each attestation the one in its statement and its receipt's, newest first.

    The first of them is the last statement's.
    """
    found: list[Head] = []
    for row in reversed(list(rows)):
        detail = json.loads(row.detail)
        found.append(Head(int(detail["treeSize"]), bytes.fromhex(detail["rootHash"])))
        sql = "SELECT size, root FROM checkpoints WHERE size > ? ORDER BY size LIMIT 1"
        later = connection.execute(sql, (_index(log, ATTESTATION, row.attestation_no),)).fetchone()
        if later is not None:
            found.append(Head(later[0], bytes(later[1])))
    return [head for head in found if head.size <= size]


def _logged(
    books: SqliteAttestations,
    log: EvidenceLog,
    row: AttestationRow,
    header: Header,
    payload: bytes,
    *,
    head: Checkpoint,
    request: Request,
    means: Means,
) -> AttestationRow:
    """Step 4: that this statement was issued, in the log, before anybody gets it."""
    unsealed = row._replace(
        unix_ns=header.issued_unix_ns,
        kind=ISSUED,
        attestation_id=header.attestation_id,
        profile=request.profile,
        recipient=request.to,
        statement_sha256=hashlib.sha256(payload).hexdigest(),
        supersedes=request.supersedes,
        who=request.who,
        why=request.why or f"asked for as {request.profile}",
        detail=json.dumps(
            {"treeSize": str(head.size), "rootHash": head.root.hex(), "keyId": header.key_id}, sort_keys=True
        ),
        salt=means.random(16),
        prev_hash=NO_HASH,
        hash=NO_HASH,
    )

    def make(before: AttestationRow | None) -> tuple[AttestationRow, str]:
        if request.supersedes:  # somebody else may have been quicker
            check_superseded(books.attestations(), request.run, request.supersedes)
        return next_row(before, unsealed), ""

    return books.append_attestation(make, lambda _: log.append_waiting())


def _receipt(place: Place, issued: AttestationRow, stated: Checkpoint, head: Checkpoint) -> bytes:
    """A tlog-proof (C2SP) that the attestation was logged, under a head that continues the one in its statement."""
    log = place.log
    index = _index(log, ATTESTATION, issued.attestation_no)
    kind, number = log.at(index)
    extra = canonical(
        {
            "leaf": log.leaf(index).decode(),
            "body": row_text(place.connection, kind, number),
            "consistency": [one.hex() for one in log.consistency(stated.size, head.size)],
        }
    )
    lines = [
        "c2sp.org/tlog-proof@v1",
        f"extra {base64.b64encode(extra).decode()}",
        f"index {index}",
        *(base64.b64encode(one).decode() for one in log.inclusion(index, head.size)),
    ]
    return "\n".join(lines).encode() + b"\n\n" + head.note


def _index(log: EvidenceLog, kind: str, number: int) -> int:
    index = log.index_of(kind, number)
    if index is None:
        raise AttestRefused(
            f"{kind} {number}: expected it in the evidence log, found it not there",
            "see what is wrong with `flopmeter collector fsck`",
        )
    return index
