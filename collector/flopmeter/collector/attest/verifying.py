"""Every file is verified as a recipient would before it gets its name: what does not verify is not handed out."""

from pathlib import Path
from typing import Any

from flopmeter.evidence.errors import EvidenceError

from .errors import AttestRefused
from .signing import key_id, loaded


def check_file(file: Path, spki: bytes, attestation_id: str) -> None:
    """Raises AttestRefused with the first step that fails."""
    from flopmeter.audit.pack import check_pack, one_by_one
    from flopmeter.audit.steps import Key, Wanted, verify
    from flopmeter.cli.container import read

    def pack(members: Any, manifest: Any, predicate: Any, opened: Any) -> str:
        return check_pack(
            members, manifest, predicate, opened, lambda facts, places, _: one_by_one(facts, places)
        )

    try:
        verify(read(file), Key(loaded(spki), key_id(spki)), Wanted(pack=pack))
    except EvidenceError as e:
        raise AttestRefused(
            f"attestation {attestation_id}: expected a file that verifies, got one that fails at {e}; it was logged, and no "
            "file was written",
            "see what is wrong with `flopmeter collector fsck`, then attest the run again",
        ) from e
