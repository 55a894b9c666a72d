"""Signed directories: what was not signed, or was signed and is gone, is refused with file and reason."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from law_files import PROFILE, REGIME
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.laws import read_files, read_laws
from flopmeter.collector.law.signing import (
    FIRST_LINE,
    MANIFEST,
    SIGNATURE,
    PublicKey,
    read_private_key,
    read_public_key,
    sign,
)

SEED, OTHER = hashlib.sha256(b"law").digest(), hashlib.sha256(b"other").digest()
KEY = PublicKey(bytes(crypto_sign_seed_keypair(SEED)[0]), "law.pub")


def files_of(path: Path) -> dict[str, bytes]:
    return {f.name: f.raw for f in read_files(path)}


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    (tmp_path / "own.toml").write_text(REGIME)
    (tmp_path / "house.toml").write_text(PROFILE)
    assert sign(tmp_path, files_of(tmp_path), SEED) == KEY.raw
    return tmp_path


def refused(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(RegimeError) as e:
        read_laws(path, KEY)
    assert all("regimes sign" in f.todo for f in e.value.faults)
    return [(Path(f.file).name, f.got) for f in e.value.faults]


def test_what_is_signed_is_taken(signed):
    assert "site-rule" in {r.id for r in read_laws(signed, KEY).regimes}


def test_one_byte_more_is_refused(signed):
    (signed / "own.toml").write_text(REGIME + "\n")
    assert [name for name, _ in refused(signed)] == ["own.toml"]


def test_a_file_that_was_not_signed_and_one_that_is_gone_are_refused_by_name(signed):
    (signed / "new.toml").write_text(REGIME.replace("site-rule", "new"))
    (signed / "house.toml").unlink()
    assert refused(signed) == [("house.toml", "no such file"), ("new.toml", "one that it does not name")]


def test_another_key_is_refused(signed):
    sign(signed, files_of(signed), OTHER)
    assert refused(signed) == [(SIGNATURE, "one that does not verify")]


@pytest.mark.parametrize("gone", [MANIFEST, SIGNATURE])
def test_an_unsigned_directory_is_refused(signed, gone):
    (signed / gone).unlink()
    assert refused(signed) == [(gone, "no such file")]


@pytest.mark.parametrize("raw", [b"", b"\x00" * 64, b"\x00" * 63, b"\x00" * 4096])
def test_what_is_no_signature_is_refused(signed, raw):
    (signed / SIGNATURE).write_bytes(raw)
    assert refused(signed) == [(SIGNATURE, "one that does not verify")]


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"\xff\n",
        b"something else\n",
        FIRST_LINE.encode() + b"\nnot a line\n",
        FIRST_LINE.encode() + b"\n" + b"0" * 64 + b"  ../own.toml\n",
        FIRST_LINE.encode() + (b"\n" + b"0" * 64 + b"  own.toml") * 2,
    ],
)
def test_a_manifest_must_be_one_even_if_it_is_signed(signed, manifest):
    secret = crypto_sign_seed_keypair(SEED)[1]
    (signed / MANIFEST).write_bytes(manifest)
    (signed / SIGNATURE).write_bytes(crypto_sign(manifest, secret)[:64])
    ((name, _),) = refused(signed)
    assert name == MANIFEST


def test_keys_are_those_that_openssl_makes_and_it_checks_what_we_sign(signed, tmp_path_factory):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    keys = tmp_path_factory.mktemp("keys")
    private, public = keys / "law.key", keys / "law.pub"
    subprocess.run(
        [openssl, "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True
    )
    subprocess.run(
        [openssl, "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True
    )
    key = read_public_key(public)
    assert sign(signed, files_of(signed), read_private_key(private)) == key.raw
    assert read_laws(signed, key).files
    verify = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin"]
    checked = subprocess.run(
        [*verify, "-in", signed / MANIFEST, "-sigfile", signed / SIGNATURE], capture_output=True
    )
    assert checked.returncode == 0, checked
    summed = subprocess.run(["sha256sum", "--check", "--strict", MANIFEST], cwd=signed, capture_output=True)
    assert summed.returncode == 0, summed
    hexed = keys / "hex"
    hexed.write_text(key.raw.hex() + "\n")
    assert read_public_key(hexed).raw == key.raw


@pytest.mark.parametrize(
    "text", ["", "00", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "é"]
)
def test_what_is_no_key_is_told_with_how_to_make_one(tmp_path, text):
    (tmp_path / "k").write_text(text)
    for read in (read_public_key, read_private_key):
        with pytest.raises(RegimeError, match="Ed25519") as e:
            read(tmp_path / "k")
        assert "openssl genpkey" in e.value.hint
    with pytest.raises(RegimeError, match="No such file"):
        read_public_key(tmp_path / "absent")
