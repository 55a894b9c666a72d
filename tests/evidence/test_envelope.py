"""The signed envelope beside independent code: DSSE's own vectors, securesystemslib, `@sigstore/verify`, openssl.

What each of them is known to do wrong (reference/attestation.md 1.2) is shown here and not copied.
"""

import base64
import json
import shutil
import subprocess
from hashlib import sha256

import pytest
import sigstore_node
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from evidence_reference import PAYLOAD_TYPE, VECTORS, base64_of, canonical_json, pae, sigstore_bundle, spki
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from flopmeter.evidence.bundle import signed_payload
from flopmeter.evidence.errors import EvidenceError

KEY = ec.derive_private_key(0xF10B, ec.SECP256R1())
PUBLIC = KEY.public_key()
KEY_ID = sha256(spki(PUBLIC)).hexdigest()
ARTIFACT = b'{"disclosures":[]}'
STATEMENT = canonical_json(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": "https://flopmeter.dev/compute-attestation/v1",
        "subject": [{"name": "evidence.json", "digest": {"sha256": sha256(ARTIFACT).hexdigest()}}],
        "predicate": {"totals": {"executedFlop": {"point": "100000000000000001"}}},
    }
)
BUNDLE = sigstore_bundle(STATEMENT, KEY)


def changed(*path, value):
    """A copy of the bundle in which what stands at `path` is another value; None: is not there."""
    copy = json.loads(json.dumps(BUNDLE))
    inner = copy
    for step in path[:-1]:
        inner = inner[step]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


def refused(bundle, key=PUBLIC, key_id=KEY_ID):
    raw = bundle if isinstance(bundle, bytes) else canonical_json(bundle)
    with pytest.raises(EvidenceError) as refusal:
        signed_payload(raw, key, key_id)
    assert refusal.value.step == "signature"
    return refusal.value.reason


def signature():
    return base64.b64decode(BUNDLE["dsseEnvelope"]["signatures"][0]["sig"])


def test_our_own_check():
    assert signed_payload(canonical_json(BUNDLE), PUBLIC, KEY_ID) == STATEMENT


# DSSE's published vectors


def test_the_published_encoding():
    for vector in json.loads((VECTORS / "dsse.json").read_text())["pae"]:
        assert pae(vector["type"], vector["body_ascii"].encode()) == vector["pae_ascii"].encode()


def test_the_published_signature_is_not_der_and_is_refused():
    """It is right, as raw r and s; cosign, openssl and securesystemslib expect DER, and so do we."""
    vector = json.loads((VECTORS / "dsse.json").read_text())["ecdsa_p256"]
    public = ec.EllipticCurvePublicNumbers(int(vector["x"]), int(vector["y"]), ec.SECP256R1()).public_key()
    envelope = vector["envelope"]
    message = pae(envelope["payloadType"], base64.b64decode(envelope["payload"]))
    raw = base64.b64decode(envelope["signatures"][0]["sig"])
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public.verify(der, message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidSignature):
        public.verify(raw, message, ec.ECDSA(hashes.SHA256()))
    key_id = sha256(spki(public)).hexdigest()
    signatures = [{"keyid": key_id, **envelope["signatures"][0]}]
    material = {"publicKey": {"hint": key_id}}
    for kind in (envelope["payloadType"], PAYLOAD_TYPE):
        bundle = BUNDLE | {
            "dsseEnvelope": envelope | {"payloadType": kind, "signatures": signatures},
            "verificationMaterial": material,
        }
        refused(bundle, public, key_id)


def test_our_signature_as_raw_r_and_s_is_refused():
    r, s = decode_dss_signature(signature())
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    refused(changed("dsseEnvelope", "signatures", 0, "sig", value=base64_of(raw)))


def test_signatures_in_another_encoding_are_refused():
    """BER that is not DER, bytes behind, an unpadded integer: OpenSSL reads DER only."""
    der = signature()
    r, s = decode_dss_signature(der)
    long_form = bytes([0x30, 0x81, der[1]]) + der[2:]
    for other in (
        der + b"\0",
        long_form,
        der[:-1],
        b"",
        encode_dss_signature(r, 0),
        encode_dss_signature(s, r),
    ):
        refused(changed("dsseEnvelope", "signatures", 0, "sig", value=base64_of(other)))


# securesystemslib


def envelope_of(bundle):
    return Envelope.from_dict(json.loads(json.dumps(bundle["dsseEnvelope"])))


def test_securesystemslib_takes_our_envelope():
    key = SSlibKey.from_crypto(PUBLIC, keyid=KEY_ID)
    assert set(envelope_of(BUNDLE).verify([key], threshold=1)) == {KEY_ID}
    assert envelope_of(BUNDLE).pae() == pae(PAYLOAD_TYPE, STATEMENT)


def test_securesystemslib_drops_a_signature_whose_keyid_differs():
    """reference/attestation.md 1.2: so `keyid` and the bundle's hint are the SHA-256 of the SPKI, and published."""
    key = SSlibKey.from_crypto(PUBLIC)  # its own idea of an id
    assert key.keyid != KEY_ID
    with pytest.raises(VerificationError):
        envelope_of(BUNDLE).verify([key], threshold=1)


def test_securesystemslib_refuses_what_we_refuse():
    key = SSlibKey.from_crypto(PUBLIC, keyid=KEY_ID)
    flipped, sig = bytearray(STATEMENT), bytearray(signature())
    flipped[-10] ^= 1
    sig[-1] ^= 1
    for bundle in (
        changed("dsseEnvelope", "payload", value=base64_of(bytes(flipped))),
        changed("dsseEnvelope", "payloadType", value="application/json"),
        changed("dsseEnvelope", "signatures", 0, "sig", value=base64_of(bytes(sig))),
    ):
        with pytest.raises(VerificationError):
            envelope_of(bundle).verify([key], threshold=1)
        refused(bundle)


# @sigstore/verify, from npm


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Asks `@sigstore/verify` about a bundle, with an artifact or without."""
    folder = tmp_path_factory.mktemp("sigstore")
    public = folder / "lab.pub"
    pem = serialization.Encoding.PEM
    public.write_bytes(PUBLIC.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))

    def ask(bundle, artifact=None):
        file = folder / "bundle.json"
        file.write_bytes(canonical_json(bundle))
        if artifact is not None:
            (folder / "artifact").write_bytes(artifact)
        return sigstore_node.verify(file, public, folder / "artifact" if artifact is not None else None)

    return ask


def test_sigstore_verify_takes_our_bundle(node):
    assert node(BUNDLE) == {"accepted": True, "hints": [KEY_ID]}


def test_sigstore_verify_takes_a_wrong_artifact_and_we_do_not(node):
    """It checks the envelope alone (reference/attestation.md 1.2): whoever calls must compare the digests."""
    wrong = ARTIFACT.replace(b"[]", b"[1]")
    assert node(BUNDLE, wrong)["accepted"]
    subject = json.loads(signed_payload(canonical_json(BUNDLE), PUBLIC, KEY_ID))["subject"]
    digests = {one["name"]: one["digest"]["sha256"] for one in subject}
    assert digests == {"evidence.json": sha256(ARTIFACT).hexdigest()}
    assert sha256(wrong).hexdigest() not in digests.values()


def test_sigstore_verify_refuses_a_changed_statement(node):
    changed_statement = STATEMENT.replace(b"100000000000000001", b"100000000000000000")
    bundle = changed("dsseEnvelope", "payload", value=base64_of(changed_statement))
    assert "signature verification failed" in str(node(bundle)["why"])
    refused(bundle)
    # A bundle has exactly one signature: two are refused by both, although each verifies.
    twice = changed("dsseEnvelope", "signatures", value=BUNDLE["dsseEnvelope"]["signatures"] * 2)
    assert not node(twice)["accepted"]
    refused(twice)


# Ours is stricter than all of them


ODD = {
    "another media type": changed("mediaType", value="application/vnd.dev.sigstore.bundle+json;version=0.2"),
    "no media type": changed("mediaType", value=None),
    "another payload type": changed("dsseEnvelope", "payloadType", value="application/json"),
    "no signature": changed("dsseEnvelope", "signatures", value=[]),
    "no list of signatures": changed("dsseEnvelope", "signatures", value={}),
    "another hint": changed("verificationMaterial", "publicKey", "hint", value="0" * 64),
    "no hint": changed("verificationMaterial", "publicKey", "hint", value=None),
    "another keyid": changed("dsseEnvelope", "signatures", 0, "keyid", value="0" * 64),
    "no keyid": changed("dsseEnvelope", "signatures", 0, "keyid", value=None),
    "a member more": BUNDLE | {"more": "1"},
    "a member more in the envelope": changed("dsseEnvelope", "more", value="1"),
    "a member more in the signature": changed("dsseEnvelope", "signatures", 0, "more", value="1"),
    "a member more in the material": changed("verificationMaterial", "tlogEntries", value=[]),
    "a member more in the key": changed("verificationMaterial", "publicKey", "more", value="1"),
    "a certificate beside the key": changed(
        "verificationMaterial", "certificate", value={"rawBytes": "AAAA"}
    ),
    "payload without padding": changed(
        "dsseEnvelope", "payload", value=base64_of(STATEMENT + b" ").rstrip("=")
    ),
    "payload in base64url": changed(
        "dsseEnvelope", "payload", value=base64.urlsafe_b64encode(STATEMENT).decode() + "-_"
    ),
    "payload that is no text": changed("dsseEnvelope", "payload", value={}),
    "a signature that is no text": changed("dsseEnvelope", "signatures", 0, "sig", value=["AAAA"]),
    "a list": [BUNDLE],
}


@pytest.mark.parametrize("bundle", ODD.values(), ids=ODD)
def test_bundles_of_another_form(bundle):
    refused(bundle)


def test_another_base64_of_the_same_bytes_is_another_file():
    """The trailing bits of the last digit say nothing: without a strict reader both spellings verify."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    padded = next(s for s in (STATEMENT, STATEMENT + b" ") if len(s) % 3)
    bundle = sigstore_bundle(padded, KEY)
    assert signed_payload(canonical_json(bundle), PUBLIC, KEY_ID) == padded
    text = bundle["dsseEnvelope"]["payload"]
    last = text.rstrip("=")[-1]
    other = text.replace(last + "=", digits[digits.index(last) + 1] + "=")
    assert base64.b64decode(other) == padded
    assert other != text
    bundle["dsseEnvelope"]["payload"] = other
    assert "base64" in refused(bundle)


def test_bytes_of_the_same_meaning_are_another_file():
    for raw in (
        json.dumps(BUNDLE).encode(),
        json.dumps(BUNDLE, indent=1).encode(),
        canonical_json(BUNDLE) + b"\n",
        canonical_json(BUNDLE).replace(b"/", b"\\/"),
        b"",
        b"null",
        b"\xff",
    ):
        refused(raw)


def test_every_bit_of_a_bundle():
    raw = canonical_json(BUNDLE)
    for bit in range(0, len(raw) * 8, 7):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged))


def test_another_key():
    other = ec.derive_private_key(0xBAD, ec.SECP256R1()).public_key()
    assert "not by the one given" in refused(BUNDLE, other, sha256(spki(other)).hexdigest())
    refused(BUNDLE, other)  # the right id on the wrong key


def test_openssl_takes_the_signature(tmp_path):
    """The recipe of reference/attestation.md 1.3, its last step; the whole of it is run by the test of the page."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    public = PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for name, content in (
        ("lab.pub", public),
        ("sig.der", signature()),
        ("pae.bin", pae(PAYLOAD_TYPE, STATEMENT)),
    ):
        (tmp_path / name).write_bytes(content)
    command = ["openssl", "dgst", "-sha256", "-verify", "lab.pub", "-signature", "sig.der", "pae.bin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Verified OK\n")
