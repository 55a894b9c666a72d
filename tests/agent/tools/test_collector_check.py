"""What doctor and top say of the certificate and of the collector's log, from the state directory."""

import os

import pytest
from fake_authority import Authority
from signed_log import SignedLog

from fakes import FakeCollector
from flopmeter.agent.access.heads import Heads
from flopmeter.agent.access.state import Identity, save_identity
from flopmeter.agent.tools.collector_check import of_access

BEGIN = 1_790_000_000
DAY = 86_400


@pytest.fixture(scope="module")
def authority():
    return Authority()


def joined(state, authority) -> None:
    certificate, key = authority.pair("spiffe://x/flopmeter/agent/ab")
    values = (certificate.decode(), authority.pem.decode(), key.decode())
    save_identity(state, Identity("ab" * 16, "x", authority.pin, "token0001", 1, BEGIN, BEGIN + DAY, *values))


def said(state, now=BEGIN + 1.0, **more):
    return [(a.why, a.change) for a in of_access(state, now_unix_s=now, **more)]


def test_an_agent_that_never_joined_is_nothing_to_speak_of(tmp_path):
    assert said(tmp_path) == []
    assert said(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("now", "why", "change"),
    [
        (BEGIN + 1, "until 2026-09-22", ""),
        (BEGIN + DAY * 0.8, "not renewed at half", "agent's log"),
        (BEGIN + DAY, "expired", "--join-file"),
        (BEGIN - 9, "not valid yet by this node's clock", "set this node's clock"),
    ],
)
def test_a_certificate_is_told_with_its_end_and_what_to_do(tmp_path, authority, now, why, change):
    joined(tmp_path, authority)
    ((got, what),) = said(tmp_path, now)
    assert why in got
    assert authority.pin[:16] in got
    assert change in what
    assert bool(change) == bool(what)


def test_a_damaged_one_and_one_that_cannot_be_read(tmp_path, authority):
    joined(tmp_path, authority)
    (tmp_path / "tls.json").write_text("{")
    ((got, what),) = said(tmp_path)
    assert "damaged" in got
    assert "--join" in what


def test_a_contradiction_is_told_until_the_log_goes_on_again(tmp_path):
    clock = iter(range(BEGIN * 10**9, BEGIN * 10**9 + 100))
    heads = Heads(tmp_path, tell=lambda name, text: None, unix_ns=lambda: next(clock))
    log = SignedLog().grow(5)
    assert heads.hear(log.note(), [], log.vkey)
    ((got, what),) = said(tmp_path)
    assert "5 leaves seen" in got
    assert what == ""
    assert not heads.hear(SignedLog().grow(2).note(), [], log.vkey)
    (_, (got, what)) = said(tmp_path)
    assert "was set back" in got
    assert "log-head.json" in what
    assert heads.hear(log.grow(1).note(), log.consistency(5), log.vkey)
    (_, (got, what)) = said(tmp_path)
    assert "gone on from there" in got
    assert what == ""


def test_the_collector_is_asked_whether_it_takes_us(tmp_path, authority):
    collector = FakeCollector(0, authority.server_credentials())
    try:
        joined(tmp_path, authority)
        assert "are taken" in said(tmp_path, collector=collector.target)[1][0]
        got, what = said(tmp_path, collector=collector.target, server_name="another")[1]
        assert "not good for another" in got
        assert what
        joined(tmp_path, Authority("another"))
        assert "not good for" in said(tmp_path, collector=collector.target)[1][0]
    finally:
        collector.stop()
    assert said(tmp_path, collector=collector.target)[1][1] != ""


def test_files_that_somebody_renews(tmp_path, authority):
    certificate, key = authority.pair("spiffe://site/agent")
    paths = [str(tmp_path / n) for n in ("c", "k", "a")]
    for path, data in zip(paths, (certificate, key, authority.pem), strict=True):
        with open(path, "wb") as f:  # noqa: PTH123
            f.write(data)
    ((got, what),) = said(tmp_path, 0.0, files=paths)
    assert "spiffe://site/agent" in got
    assert what == ""
    assert "expired" in said(tmp_path, 1e11, files=paths)[0][0]
    os.unlink(paths[1])  # noqa: PTH108
    assert said(tmp_path, 0.0, files=paths)[0][1] != ""
