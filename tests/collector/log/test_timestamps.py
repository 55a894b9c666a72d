"""RFC 3161 tokens over checkpoints: a real authority (openssl ts) on loopback, good and bad."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from collector_log import LoggedStore
from receivers import Receiver, Reply
from tsa_rig import Tsa, make_tsa, openssl, stamping

from flopmeter.collector.errors import LogError, SettingsError
from flopmeter.collector.log import timestamps
from flopmeter.collector.log.timestamps import (
    EVERY_NS,
    Authorities,
    due,
    text_of,
    tokens_of,
    verified,
)

NOW = 1_790_000_000_000_000_000


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> Tsa:
    return make_tsa(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LoggedStore:
    folder = tmp_path_factory.mktemp("lab")
    found = LoggedStore(folder, folder / "keys").grow(3)
    found.seal()
    return found


def authorities(server: Receiver, tsa: Tsa) -> Authorities:
    return Authorities([server.url], tsa.ca)


def test_a_token_is_verified_and_stored_and_openssl_agrees(
    tsa: Tsa, store: LoggedStore, tmp_path: Path
) -> None:
    with stamping(tsa) as server, closing(store.open()) as db:
        ours = authorities(server, tsa)
        assert due(db, NOW)
        ours.stamp(db, store.latest(), NOW)
        ((url, token),) = tokens_of(db, store.latest().number)
        assert (url, ours.authorities[0].error) == (server.url, "")
        assert (
            abs(
                ours.authorities[0].stamped_unix_s
                - verified(token, text_of(store.latest().note), ours._certificates).timestamp()
            )
            < 1
        )
        assert ours.stamp(db, store.latest(), NOW) == 1
        assert len(server.requests) == 1  # who has stamped it is not asked again
        assert not due(db, NOW + EVERY_NS - 1)
        assert due(db, NOW + EVERY_NS)
        assert due(db, NOW - 1)  # a clock that was set back does not stop the stamps
        (tmp_path / "t.tsr").write_bytes(tokens_of(db, store.latest().number)[0][1])
        db.execute("DELETE FROM timestamps")
    (tmp_path / "text").write_bytes(text_of(store.latest().note))
    told = openssl("ts", "-verify", "-in", "t.tsr", "-data", "text", "-CAfile", str(tsa.ca), cwd=tmp_path)
    assert b"Verification: OK" in told


@pytest.fixture(scope="module")
def good(tsa: Tsa, store: LoggedStore) -> bytes:
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    query = (
        TimestampRequestBuilder()
        .data(text_of(store.latest().note))
        .hash_algorithm(HashAlgorithm.SHA256)
        .build()
    )
    return tsa.stamp(query.as_bytes())


def roots(tsa: Tsa, name: str = "ca.pem") -> list[object]:
    return timestamps._certificates(tsa.folder / name)


def test_a_bit_that_is_wrong_never_gives_another_time(tsa: Tsa, store: LoggedStore, good: bytes) -> None:
    text = text_of(store.latest().note)
    time = verified(good, text, roots(tsa))
    lax = []
    for i in range(len(good)):
        try:
            found = verified(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :], text, roots(tsa))
        except LogError:
            continue
        assert found == time
        lax.append(i)
    # CMS signs neither its version numbers nor the name of the signature's algorithm (RFC 5652 5.4): ten bytes.
    assert len(lax) <= 12, lax


def test_tokens_that_are_not_good(tsa: Tsa, store: LoggedStore, good: bytes) -> None:
    text = text_of(store.latest().note)
    for token, its_text, certificates, said in (
        (good, text + b"x", roots(tsa), "Mismatch"),
        (good, text, roots(tsa, "other.pem"), "certificate"),
        (good + b"x", text, roots(tsa), ""),
        (good[:-1], text, roots(tsa), ""),
        (b"", text, roots(tsa), ""),
        (b"<html>", text, roots(tsa), ""),
    ):
        with pytest.raises(LogError, match=f"(?i){said or '.'}"):
            verified(token, its_text, certificates)
    with pytest.raises(LogError, match="Nonce"):
        verified(good, text, roots(tsa), nonce=1)


@pytest.mark.parametrize(
    ("signer", "said"), [("web", "purpose|EKU|certificate"), ("stranger", "certificate")]
)
def test_who_may_not_stamp(tsa: Tsa, store: LoggedStore, signer: str, said: str) -> None:
    from rfc3161_client import TimestampRequestBuilder

    text = text_of(store.latest().note)
    query = TimestampRequestBuilder().data(text).build().as_bytes()
    try:
        token = tsa.stamp(query, signer=signer)
    except subprocess.CalledProcessError:
        assert signer == "web"  # openssl itself refuses to stamp by such a certificate
        return
    with pytest.raises(LogError, match=said):
        verified(token, text, roots(tsa))


BAD = {
    "an old token": lambda good: Reply(200, OLD[0], good.headers),
    "another type": lambda good: Reply(200, good.body, {"Content-Type": "text/html"}),
    "503": lambda _: Reply(503, b"", {"Content-Type": "application/timestamp-reply"}),
    "nothing": lambda good: Reply(200, b"", good.headers),
    "garbage": lambda good: Reply(200, b"\x30\x82" * 500, good.headers),
    "too much": lambda good: Reply(200, good.body + bytes(70_000), good.headers),
}
OLD: list[bytes] = []


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_token_is_not_stored(tsa: Tsa, store: LoggedStore, good: bytes, what: str) -> None:
    OLD[:] = [good]  # of the same text, and good: but to another request
    with stamping(tsa, BAD[what]) as server, closing(store.open()) as db:
        ours = authorities(server, tsa)
        assert ours.stamp(db, store.latest(), NOW) == 0
        assert ours.authorities[0].error
        assert tokens_of(db, store.latest().number) == []


def test_one_authority_down_and_one_good(tsa: Tsa, store: LoggedStore) -> None:
    with stamping(tsa) as server, closing(store.open()) as db:
        ours = Authorities(["http://127.0.0.1:9/", server.url], tsa.ca)
        assert ours.stamp(db, store.latest(), NOW) == 1
        assert "127.0.0.1:9" in ours.authorities[0].error
        db.execute("DELETE FROM timestamps")


def test_settings_that_cannot_be(tsa: Tsa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.pem").write_text("")
    (tmp_path / "leaf.pem").write_bytes((tsa.folder / "tsa.pem").read_bytes())
    for urls, ca, said in (
        (["https://tsa.example"], None, "--tsa-ca"),
        (["http://tsa.example"], tsa.ca, "https"),
        (["tsa.example"], tsa.ca, "URL"),
        (["https://tsa.example"] * 2, tsa.ca, "once"),
        (["https://tsa.example"], tmp_path / "absent", "cannot read"),
        (["https://tsa.example"], tmp_path / "empty.pem", "PEM"),
        (["https://tsa.example"], tmp_path / "leaf.pem", "root certificate"),
    ):
        with pytest.raises(SettingsError, match=said):
            Authorities(urls, ca)
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(SettingsError, match="rfc3161-client"):
        Authorities(["https://tsa.example"], tsa.ca)


@pytest.fixture(autouse=True)
def nothing_is_left(store: LoggedStore) -> Iterator[None]:
    yield
    assert store.rows("SELECT * FROM timestamps") == []


def test_what_an_attestation_says_of_it() -> None:
    """The levels as they are printed (reference/attestation.md 5)."""
    from flopmeter.collector.attest.limits import assurance

    assert "unwitnessed: self-consistent" in assurance((), ("a", "b"), 0)
    assert "timestamped: no witness" in assurance((), ("a", "b"), 1)
    assert "witnessed (1 of 2 that the operator names: a)." in assurance(("a",), ("a", "b"), 0)
    assert "1 RFC 3161" in assurance(("a",), ("a", "b"), 1)
    short = assurance(("a",), ("a", "b"), 0, quorum=False)
    assert short.startswith("Assurance: unwitnessed")
    assert "short of the operator's quorum (1 of 2" in short
    assert assurance(("a",), ("a", "b"), 1, quorum=False).startswith("Assurance: timestamped: short of")
