"""Attestations as `flopmeter attest create` writes them, before independent code: what it takes, and what it misses."""

import base64
import json
from datetime import UTC, datetime

import pytest
import sigstore_node
import tlog_scales.signing as scales_signing
import tlog_scales.tlog as scales
from attest_books import attest, evidence, full_store, keys, members, predicate
from cryptography.hazmat.primitives import serialization
from evidence_reference import Signer, signed_checkpoint
from processes import flopmeter
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from flopmeter.audit.steps import _witnesses
from flopmeter.collector.attest.signing import key_id, loaded
from flopmeter.collector.keys import attest_key
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import leaf_hash
from flopmeter.evidence.note import parse_checkpoint, parse_key, parse_policy, parse_proof

BUNDLE, EVIDENCE = "bundle.sigstore.json", "evidence.json"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a store, the public key of its attestations as PEM, and one attestation unzipped in `run/`."""
    folder = tmp_path_factory.mktemp("lab")
    full_store(folder / "books.sqlite")
    attest(folder / "books.sqlite", "nationalAuthority", folder / "run.zip")
    pem = serialization.Encoding.PEM
    public = loaded(attest_key(keys(folder / "books.sqlite")).spki_der)
    (folder / "lab.pub").write_bytes(
        public.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (folder / "run").mkdir()
    for name, content in members(folder / "run.zip").items():
        (folder / "run" / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def bundle(lab):
    return json.loads((lab / "run" / BUNDLE).read_bytes())


def test_securesystemslib_takes_the_envelope(lab, bundle):
    spki = attest_key(keys(lab / "books.sqlite")).spki_der
    key = SSlibKey.from_crypto(loaded(spki), keyid=key_id(spki))
    assert set(Envelope.from_dict(bundle["dsseEnvelope"]).verify([key], threshold=1)) == {key_id(spki)}


def test_sigstore_verify_takes_the_bundle_and_another_evidence_file(lab, bundle, tmp_path):
    """reference/attestation.md 1.2. `flopmeter verify` compares the digest that was signed, and names the step."""
    signed = lab / "run" / EVIDENCE
    other = tmp_path / EVIDENCE
    other.write_bytes(signed.read_bytes().replace(b'"devices":[', b'"devices": [', 1))
    assert other.read_bytes() != signed.read_bytes()
    for artifact in (signed, other):
        assert sigstore_node.verify(lab / "run" / BUNDLE, lab / "lab.pub", artifact)["accepted"]
    good = flopmeter("verify", lab / "run", "--key", lab / "lab.pub")
    assert good.returncode == 0, good.stdout + good.stderr
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (path.name for path in (lab / "run").iterdir()):
        (folder / name).write_bytes((other if name == EVIDENCE else lab / "run" / name).read_bytes())
    refused = flopmeter("verify", folder, "--key", lab / "lab.pub", "--json")
    assert refused.returncode == 1
    assert "subject" in refused.stdout + refused.stderr


def test_sigstore_verify_refuses_a_changed_statement(lab, bundle, tmp_path):
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    changed = payload.replace(b'"status":"crossed"', b'"status":"below"')
    assert changed != payload
    bundle = bundle | {
        "dsseEnvelope": bundle["dsseEnvelope"] | {"payload": base64.b64encode(changed).decode()}
    }
    (tmp_path / BUNDLE).write_text(json.dumps(bundle))
    assert not sigstore_node.verify(tmp_path / BUNDLE, lab / "lab.pub")["accepted"]


def test_tlog_scales_takes_the_checkpoints_and_every_proof(lab):
    """The log's own, the receipt's, and the inclusion of each entry that the evidence shows."""
    said = predicate(lab / "run.zip")["evidence"]
    key = scales_signing.Vkey.from_string(said["logKey"])
    head = scales.Checkpoint.from_text(said["checkpoint"])
    head.verify(key)
    assert (head.origin, str(head.size)) == (said["origin"], said["treeSize"])
    proofs = evidence(lab / "run.zip")["proofs"]
    assert {proof["role"] for proof in proofs} >= {"record", "event"}
    for proof in proofs:
        path = [bytes.fromhex(one) for one in proof["proof"]]
        scales.InclusionProof(int(proof["index"]), head.size, path).check(
            leaf_hash(proof["leaf"].encode()), head.root_hash
        )
    index, hashes, extra, note = parse_proof((lab / "run/receipt.tlog-proof").read_bytes())
    later, told = scales.Checkpoint.from_text(note.decode()), json.loads(extra or b"")
    later.verify(key)
    scales.InclusionProof(index, later.size, list(hashes)).check(
        leaf_hash(told["leaf"].encode()), later.root_hash
    )
    path = [bytes.fromhex(one) for one in told["consistency"]]
    if later.size > head.size:
        scales.ConsistencyProof(head.size, later.size, path).check(head.root_hash, later.root_hash)


def test_the_level_counts_witnesses_not_their_keys():
    """reference/attestation.md 0.5: Ed25519 and ML-DSA-44 of one witness are one of n."""
    log, leaves = Signer("lab.example/log", 1), [leaf_hash(b"one")]
    one, one_pq, two = Signer("w1.example", 4), Signer("w1.example", 6), Signer("w2.example", 4)
    policy = parse_policy(
        f"log {log.vkey}\nwitness A {one.vkey}\nwitness A-pq {one_pq.vkey}\nwitness B {two.vkey}\n"
        "group either any A A-pq\ngroup wanted any either B\nquorum wanted\n".encode()
    )
    issued = datetime.fromtimestamp(1_700_000_000, UTC)

    def level(*witnesses):
        head = parse_checkpoint(signed_checkpoint(log.name, leaves, log, *witnesses))
        return _witnesses(head, head, parse_key(log.vkey), policy, issued)

    assert level(one, one_pq) == "witnessed(1 of 2, A)"
    assert level(one_pq) == "witnessed(1 of 2, A)"
    assert level(one, one_pq, two) == "witnessed(2 of 2, A, B)"
    with pytest.raises(EvidenceError, match="quorum"):
        level()
