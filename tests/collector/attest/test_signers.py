"""Who signs: the key file, or a program; what a program answers is verified before anything is done with it."""

import stat

import pytest
from attest_books import LAWS, attest, full_store, keys, predicate
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from flopmeter.collector.attest.errors import AttestError, SignerError
from flopmeter.collector.attest.request import Means
from flopmeter.collector.attest.signing import (
    CommandSigner,
    FileSigner,
    checked_signature,
    key_id,
    loaded,
    signer_of,
    spki_of,
)
from flopmeter.collector.report.queries import asked, reading


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def private(tmp_path):
    """A key that only the program has; its public half in pub.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "hsm.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "pub.pem").write_bytes(public)
    return tmp_path


def openssl(private):
    return program(private / "sign", f"exec openssl dgst -sha256 -sign {private}/hsm.pem")


def test_a_key_file_is_made_once_and_signs(tmp_path):
    signer = FileSigner(tmp_path / "keys")
    assert checked_signature(signer, b"x")
    assert FileSigner(tmp_path / "keys").public() == signer.public()
    assert stat.S_IMODE((tmp_path / "keys" / "attest.key").stat().st_mode) == 0o600


def test_a_program_signs(private):
    signer = signer_of(f"command:{openssl(private)}", private / "pub.pem", private)
    message = b"x" * 200_000  # more than a pipe holds
    signature = checked_signature(signer, message)
    assert signer.public() == spki_of(private / "pub.pem")
    loaded(signer.public()).verify(signature, message, ec.ECDSA(hashes.SHA256()))


def test_an_attestation_signed_by_a_program_verifies_under_its_key(private):
    path = private / "store" / "books.sqlite"
    path.parent.mkdir()
    full_store(path)
    signer = signer_of(f"command:{openssl(private)}", private / "pub.pem", private)
    attest(path, "aiOffice", private / "x.zip", means=Means(signer, lambda now: asked(now, LAWS)))
    assert predicate(private / "x.zip")["issuer"]["keyId"] == key_id(signer.public())
    assert not (keys(path) / "attest.key").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat >/dev/null; echo nonsense", "none"),
        ("cat >/dev/null; exit 0", "got 0 bytes"),
        ("cat >/dev/null; echo no PIN >&2; exit 3", "ended with 3: no PIN"),
        ("cat >/dev/null; head -c 100000 /dev/zero", "got 100000 bytes"),
        ("sleep 60", "no answer within"),
        ("exec openssl dgst -sha384 -sign {0}/hsm.pem", "none"),
    ],
)
def test_an_answer_that_is_no_signature_stops_it(private, text, message):
    signer = CommandSigner(
        program(private / "bad", text.format(private)),
        spki_of(private / "pub.pem"),
        timeout_s=0.5 if "sleep" in text else 20,
    )
    with pytest.raises(SignerError, match=message):
        checked_signature(signer, b"x")


def test_nothing_is_issued_without_a_signature(private):
    path = private / "store" / "books.sqlite"
    path.parent.mkdir()
    full_store(path)
    signer = CommandSigner(program(private / "bad", "exit 1"), spki_of(private / "pub.pem"))
    with pytest.raises(SignerError):
        attest(path, "aiOffice", private / "x.zip", means=Means(signer, asked))
    with reading(path) as reader:
        assert reader.rows("SELECT count(*) FROM attestations WHERE kind = 'issued'").fetchone()[0] == 0
    assert not list(private.glob("*.zip"))
    assert not list(private.glob(".flopmeter*"))


def test_what_cannot_sign_is_told_before_anything_is_done(private):
    (private / "rsa.pem").write_text("-----BEGIN PUBLIC KEY-----\nno\n-----END PUBLIC KEY-----\n")
    for setting, key, error, message in (
        ("pkcs11:x", private / "pub.pem", AttestError, "command:PROGRAM"),
        ("command:", private / "pub.pem", AttestError, "command:PROGRAM"),
        ("command:/bin/true", None, AttestError, "public half"),
        ("command:/bin/true", private / "none.pem", SignerError, "cannot read"),
        ("command:/bin/true", private / "rsa.pem", SignerError, "expected a public key"),
    ):
        with pytest.raises(error, match=message):
            signer_of(setting, key, private)
    with pytest.raises(SignerError, match="cannot start"):
        CommandSigner(private / "absent", b"").sign(b"x")
