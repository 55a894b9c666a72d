"""docs/verify-without-flopmeter.md: its commands, as they stand there, on a file of ours; and on files that are not right."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import evidence_files as files
import pytest
from attest_books import attest, full_store, keys
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flopmeter.collector.keys import attest_key

PAGE = Path(__file__).resolve().parents[2] / "docs/verify-without-flopmeter.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
TOOLS = ("bash", "jq", "openssl", "unzip", "base64", "basenc", "od", "sha256sum")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)),
    reason="needs openssl, jq and unzip (apt-get install -y openssl jq unzip)",
)


def run(folder: Path, made: files.Attestation) -> subprocess.CompletedProcess[str]:
    """The page on a file made by hand."""
    made.write(folder)
    (folder / "lab.pem").write_bytes(files.key_pem())
    return followed(folder)


def followed(folder: Path) -> subprocess.CompletedProcess[str]:
    """All blocks of the page in one shell, which stops at the first command that fails."""
    script = "set -euo pipefail\n" + "\n".join(BLOCKS)
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("profile", "around"),
    [("aiOffice", 0), ("nationalAuthority", 3), ("auditor", 3), ("downstream", 9)],
)
def test_every_command_says_yes_for_a_good_file(profile: str, around: int, tmp_path: Path) -> None:
    made = files.attestation(profile, witnesses=files.WITNESSES[:1], around=around)
    done = run(tmp_path, made)
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("Verified OK", "evidence.json: OK", "Signature Verified Successfully", "in the log"):
        assert said in done.stdout, said
    assert done.stdout.count(files.key_id()) == 2
    digest = made.predicate["record"]["digest"]
    assert done.stdout.count(digest) == 1
    assert done.stdout.count(digest[7:]) == 2
    assert "crossed: crossed (executed >= " in done.stdout


@pytest.mark.parametrize("name", files.MEMBERS)
def test_a_changed_member_is_found(name: str, tmp_path: Path) -> None:
    made = files.attestation()
    other = files.attestation("downstream")
    made.files[name] = other.files[name]
    assert run(tmp_path, made).returncode != 0


def test_another_leaf_is_not_in_the_log(tmp_path: Path) -> None:
    made = files.attestation()
    raw = made.files["receipt.tlog-proof"]
    index = re.search(rb"\nindex (\d+)\n", raw)
    assert index is not None
    made.files["receipt.tlog-proof"] = raw.replace(index[0], b"\nindex %d\n" % (int(index[1]) - 1))
    done = run(tmp_path, made)
    assert done.returncode != 0
    assert "in the log" not in done.stdout


def test_another_key_is_found(tmp_path: Path) -> None:
    made = files.attestation()
    bundle = made.files["bundle.sigstore.json"]
    payload = base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"])
    made.files["bundle.sigstore.json"] = files.signed(payload, ec.generate_private_key(ec.SECP256R1()))
    done = run(tmp_path, made)
    assert done.returncode != 0
    assert "Verified OK" not in done.stdout


def test_every_command_says_yes_for_a_file_of_a_collector(tmp_path: Path) -> None:
    """Of a store with a log of its own, attested as `flopmeter attest create` does it."""
    path = tmp_path / "books.sqlite"
    full_store(path)
    attest(path, "auditor", tmp_path / "run.fma")
    key = serialization.load_der_public_key(attest_key(keys(path)).spki_der)
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "lab.pem").write_bytes(key.public_bytes(serialization.Encoding.PEM, kind))
    done = followed(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("Verified OK", "pack/records.bin: OK", "Signature Verified Successfully", "in the log"):
        assert said in done.stdout, said
    again = subprocess.run(
        [Path(sys.executable).parent / "flopmeter", "verify", "run.fma", "--key", "lab.pem", "--json"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (again.returncode, json.loads(again.stdout)["verified"]) == (0, True)
