"""The collector's own keys: made once, private, never replaced, and never another's."""

import json
import os
import stat
import subprocess
import threading

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flopmeter.collector.errors import KeyFileError
from flopmeter.collector.keys import ATTEST_KEY, LOG_KEY, attest_key, keys_directory, log_key
from flopmeter.collector.keys_cli import keys as keys_command
from flopmeter.collector.log.checkpoint import vkey
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.evidence.note import parse_key


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path):
    os.umask(0o022)
    keys = tmp_path / "state" / "keys"
    log, attest = log_key(keys), attest_key(keys)
    assert (mode(keys), mode(keys / LOG_KEY), mode(keys / ATTEST_KEY)) == (0o700, 0o600, 0o600)
    assert sorted(p.name for p in keys.iterdir()) == [ATTEST_KEY, LOG_KEY]
    assert log_key(keys).public == log.public
    assert attest_key(keys, make=False).spki_der == attest.spki_der
    assert log.sign(b"x") == log_key(keys).sign(b"x")
    log.private.public_key().verify(log.sign(b"x"), b"x")
    assert "private" not in repr(attest_key(keys)).lower() or "object at" in repr(attest_key(keys))


def test_two_that_start_at_once_use_one_key(tmp_path):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(log_key(tmp_path / "keys").public)) for _ in range(8)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_openssl_reads_what_we_write_and_names_the_same_key(tmp_path):
    key = attest_key(tmp_path)
    der = subprocess.check_output(
        ["openssl", "pkey", "-in", tmp_path / ATTEST_KEY, "-pubout", "-outform", "DER"]
    )
    assert der == key.spki_der
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-r"], input=der, capture_output=True, check=True
    ).stdout
    assert digest.decode().split()[0] == key.key_id
    public = load_pem_public_key(key.spki_pem.encode())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(key.private.sign(b"x", ec.ECDSA(hashes.SHA256())), b"x", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path, bits):
    log_key(tmp_path)
    (tmp_path / LOG_KEY).chmod(bits)
    with pytest.raises(KeyFileError, match=f"expected mode 0600, got {bits:04o}"):
        log_key(tmp_path)


def test_a_directory_that_others_can_write_to_is_refused(tmp_path):
    keys = tmp_path / "keys"
    log_key(keys)
    keys.chmod(0o770)
    with pytest.raises(KeyFileError, match="only its owner can write to, got mode 0770"):
        log_key(keys)


def test_links_and_other_things_are_refused(tmp_path):
    log_key(tmp_path / "real")
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    (keys / LOG_KEY).symlink_to(tmp_path / "real" / LOG_KEY)
    with pytest.raises(KeyFileError, match="expected a readable file"):
        log_key(keys)
    (keys / LOG_KEY).unlink()
    (keys / LOG_KEY).symlink_to(tmp_path / "nowhere")  # not followed to make one there either
    with pytest.raises(KeyFileError):
        log_key(keys)
    assert not (tmp_path / "nowhere").exists()
    (keys / LOG_KEY).unlink()
    (keys / LOG_KEY).mkdir()
    with pytest.raises(KeyFileError, match="regular file"):
        log_key(keys)
    (keys / LOG_KEY).rmdir()
    os.mkfifo(keys / LOG_KEY, 0o600)
    with pytest.raises(KeyFileError, match="regular file"):
        log_key(keys)


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish", b"\0" * 70_000, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
)
def test_a_damaged_key_is_never_replaced(tmp_path, content):
    (tmp_path / LOG_KEY).write_bytes(content)
    (tmp_path / LOG_KEY).chmod(0o600)
    with pytest.raises(KeyFileError, match=r"damaged|at most"):
        log_key(tmp_path)
    assert (tmp_path / LOG_KEY).read_bytes() == content


def test_a_key_of_another_kind_is_refused(tmp_path):
    log_key(tmp_path)
    attest_key(tmp_path)
    (tmp_path / LOG_KEY).rename(tmp_path / "x")
    (tmp_path / ATTEST_KEY).rename(tmp_path / LOG_KEY)
    (tmp_path / "x").rename(tmp_path / ATTEST_KEY)
    with pytest.raises(KeyFileError, match="expected an Ed25519 key"):
        log_key(tmp_path)
    with pytest.raises(KeyFileError, match="expected an ECDSA P-256 key"):
        attest_key(tmp_path)
    (tmp_path / ATTEST_KEY).unlink()
    from flopmeter.collector.keys import private_key

    private_key(tmp_path / ATTEST_KEY, lambda: ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(KeyFileError, match="expected an ECDSA P-256 key"):
        attest_key(tmp_path)


def test_one_that_is_not_there_is_not_made_by_who_only_looks(tmp_path):
    with pytest.raises(KeyFileError, match="found no such file"):
        log_key(tmp_path / "keys", make=False)
    assert not (tmp_path / "keys").exists()
    with pytest.raises(KeyFileError, match="cannot make it"):
        log_key(tmp_path / "file" / "keys") if (tmp_path / "file").write_text("") is not None else None


def test_where_they_lie(tmp_path):
    assert keys_directory(None, tmp_path / "books.sqlite") == tmp_path / "keys"
    assert keys_directory(tmp_path / "k", tmp_path / "books.sqlite") == tmp_path / "k"


def test_show_prints_what_others_need_and_nothing_secret(tmp_path):
    store = tmp_path / "books.sqlite"
    SqliteStore(store).close()
    result = CliRunner().invoke(keys_command, ["show", "--store", str(store)])
    assert isinstance(result.exception, KeyFileError)  # exit 3, by the program's main
    keys = tmp_path / "keys"
    log, attest = log_key(keys), attest_key(keys)
    from log_rig import opened

    with opened(store) as evidence:
        evidence.fix_identity("lab.example/log", log)
    said = json.loads(CliRunner().invoke(keys_command, ["show", "--store", str(store), "--json"]).output)
    assert said == {
        "log": {"origin": "lab.example/log", "vkey": vkey("lab.example/log", log.public)},
        "attest": {"key_id": attest.key_id, "spki_pem": attest.spki_pem},
    }
    text = CliRunner().invoke(keys_command, ["show", "--store", str(store)]).output
    assert said["log"]["vkey"] in text
    assert attest.spki_pem in text
    for name in (LOG_KEY, ATTEST_KEY):
        secret = "".join((keys / name).read_text().splitlines()[1:-1])
        assert secret[-40:] not in text.replace("\n", "")


def test_a_vkey_is_what_the_auditors_kit_reads():
    public = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    key = parse_key(vkey("lab.example/log", public))
    assert (key.name, key.public) == ("lab.example/log", public)
