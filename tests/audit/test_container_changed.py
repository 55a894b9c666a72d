"""What is used of a member is what was hashed: a file that changes under the verifier is no other evidence."""

import pytest

from flopmeter.cli.container import read
from flopmeter.evidence.errors import EvidenceError


def test_a_member_that_changes_between_its_digest_and_its_use(tmp_path):
    for name in ("bundle.sigstore.json", "evidence.json", "receipt.tlog-proof"):
        (tmp_path / name).write_bytes(b"what was signed")
    members = read(tmp_path)
    assert members["evidence.json"].span(0, 15) == b"what was signed"
    (tmp_path / "evidence.json").write_bytes(b"something other")
    with pytest.raises(EvidenceError, match="changed while"):
        members["evidence.json"].span(0, 15)
    (tmp_path / "evidence.json").write_bytes(b"shorter")
    with pytest.raises(EvidenceError, match="expected 15 bytes"):
        members["evidence.json"].span(0, 15)
