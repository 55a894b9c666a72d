"""Attesting a run, step by step, each durable before the next: gather, log the record, sign, log the attestation, hand out.

1. Gather all that the books hold of the run, at one position (gather.py).
2. Log the record: its digest is in the evidence log before anybody signs anything about it (recording.py).
3. Sign a head of the log over it, have it witnessed; make the statement, sign it, verify the own signature (issuing.py).
4. Log the attestation by the SHA-256 of its statement; a head over that, and the receipt.
5. Write the file beside its name, verify all of it as a recipient would, and only then give it its name.

Whatever fails on the way leaves no file: at most a row of what was logged, which another attestation may follow.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flopmeter.collector.chained_words import check_text
from flopmeter.collector.keys import log_key
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.report.queries import reading
from flopmeter.collector.store.attestations import SqliteAttestations
from flopmeter.collector.store.told import told
from flopmeter.collector.store_path import store_file

from .errors import AttestError, AttestRefused
from .issuing import Issued, issue
from .material import Material
from .profiles import PROFILES
from .recording import recorded
from .request import Means, Request
from .said import AttestationRow, check_superseded
from .verifying import check_file


def create(request: Request, means: Means) -> Issued:
    """Attest, and write the file. Raises AttestError, StoreError, LogError, KeyFileError, SignerError."""
    _check(request)
    store = store_file(request.store)
    with (
        SqliteAttestations(store) as books,
        told(str(store), "write"),
    ):  # the log leaves SQLite's errors to its callers
        log = EvidenceLog(books.connection)
        rows = books.attestations()
        superseded = check_superseded(rows, request.run, request.supersedes) if request.supersedes else None
        head_key = log_key(request.keys, make=log.identity is None)
        log.fix_identity("", head_key)
        if request.record:
            row = _known(rows, request)
        else:
            with reading(store) as reader:
                row = recorded(books, reader, request, means)
        material = Material.of_json(books.material(row.attestation_no))
        with _beside(request.output) as directory:
            issued, file = issue(
                books, row, material, directory,
                request=request, means=means, head_key=head_key, superseded=superseded,
            )  # fmt: skip
            check_file(file, means.signer.public(), issued.attestation_id)
            _hand_out(file, request.output)
    return issued


def _check(request: Request) -> None:
    """What can be refused before anything is logged."""
    if request.profile not in PROFILES:
        raise AttestError(f"profile: expected one of {', '.join(PROFILES)}, got {request.profile[:40]!r}")
    check_text(AttestError, "who", request.who, "say who issues it: --who")
    if request.supersedes:
        check_text(AttestError, "why", request.why, "say why the earlier one no longer holds: --why")
    check_text(AttestError, "why", request.why, "", needed=False)
    check_text(AttestError, "recipient", request.recipient, "", needed=False)
    check_text(AttestError, "issuer", request.issuer, "", needed=False)
    if os.path.lexists(request.output):
        raise AttestRefused(
            f"{request.output}: expected no such file yet, found one",
            "name another with -o: an attestation that was handed out is never written over",
        )
    if not request.output.absolute().parent.is_dir():
        raise AttestError(
            f"{request.output}: expected a directory to write it to, found none", "make it, or name another"
        )


def _known(rows: list[AttestationRow], request: Request) -> AttestationRow:
    """The record that another view is asked of: by its digest, or by an attestation of it."""
    digests = {r.record_digest for r in rows if request.record in (r.attestation_id, r.record_digest)}
    found = next((r for r in rows if r.record_digest in digests), None)
    if found is None:
        raise AttestRefused(
            f"record {request.record[:80]!r}: expected the id of an attestation of this store, or a record's digest, "
            "found none",
            "`flopmeter attest list` shows them",
        )
    if found.run != request.run:
        raise AttestRefused(
            f"record {found.record_digest}: expected one of run {request.run}, got one of run {found.run}",
            "`flopmeter attest list` shows them with their runs",
        )
    return found


@contextmanager
def _beside(output: Path) -> Iterator[Path]:
    """A directory of this user's on the file system of `output`, gone afterwards."""
    try:
        directory = Path(tempfile.mkdtemp(prefix=".flopmeter-attest-", dir=output.absolute().parent))
    except OSError as e:
        raise _cannot_write(output, e) from e
    try:
        yield directory
    except OSError as e:
        raise _cannot_write(output, e) from e
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _hand_out(file: Path, output: Path) -> None:
    """Durable under its name, or not there at all; never in the place of another."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    try:
        os.link(file, output)
    except FileExistsError:
        raise AttestRefused(
            f"{output}: expected no such file yet, found one",
            "name another with -o, and --record to issue it again",
        ) from None
    fd = os.open(output.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some file systems sync no directories
            os.fsync(fd)
    finally:
        os.close(fd)


def _cannot_write(output: Path, e: OSError) -> AttestError:
    error = AttestError(
        f"{output}: cannot write: {e.strerror or e}", "free space there, or name another place with -o"
    )
    error.exit_code = 3
    return error
