"""Joining and renewing against an authority written apart from ours: what is pinned, told, kept, and done once."""

import asyncio
import json
import os
import stat
import time
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from fake_authority import DOMAIN, Authority, EnrolmentServer

from flopmeter.agent.access import step
from flopmeter.agent.access.credentials import Joined
from flopmeter.agent.access.state import (
    IDENTITY_FILE,
    REQUEST_FILE,
    IdentityError,
    load_identity,
    load_request,
)
from flopmeter.agent.keys import load_or_create_key


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def server(authority, tmp_path):
    made = EnrolmentServer(authority, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def state(tmp_path) -> Path:
    path = tmp_path / "state"
    load_or_create_key(path)
    return path


def join(state: Path, server: EnrolmentServer, token: str = "", **more) -> None:
    values = {"node": "node-a", "host": "127.0.0.1", "port": server.port, "server_name": ""} | more
    step.join(state, token or server.token, **values)


def test_an_agent_joins_and_has_all_of_it_in_one_private_file(state, server, authority):
    join(state, server)
    assert server.paths == ["/ca", "/nonce", "/enrol"]
    identity = load_identity(state)
    agent = load_or_create_key(state).agent_id.hex()
    assert (identity.agent_id, identity.trust_domain, identity.sequence) == (agent, DOMAIN, 1)
    assert identity.ca_pin == authority.pin
    assert identity.not_after_unix_s - identity.not_before_unix_s == 86_400
    assert stat.S_IMODE((state / IDENTITY_FILE).stat().st_mode) == 0o600
    assert sorted(p.name for p in state.iterdir()) == ["record.key", IDENTITY_FILE]
    assert server.secret not in "".join(p.read_text() for p in state.iterdir())
    assert identity.key_pem not in repr(identity)


def test_the_secret_is_told_to_nobody_whose_pin_differs(state, server, tmp_path):
    impostor = EnrolmentServer(Authority("impostor"), tmp_path)
    try:
        with pytest.raises(IdentityError, match="nothing was sent") as caught:
            join(state, impostor, server.token)
        assert caught.value.final
        assert impostor.paths == ["/ca"]
    finally:
        impostor.stop()
    assert load_identity(state) is None


def test_the_secret_is_told_to_nobody_who_only_shows_the_right_authority(state, server, authority, tmp_path):
    """The authority's certificate is public: who shows it must also have a certificate of it."""
    impostor = EnrolmentServer(Authority("impostor"), tmp_path)
    impostor.authority = authority  # what /ca says
    try:
        with pytest.raises(IdentityError, match="not one of the authority in the token"):
            join(state, impostor, server.token)
        assert impostor.paths == ["/ca"]
    finally:
        impostor.stop()


def test_a_certificate_for_another_host_is_not_enough(state, server, authority, tmp_path):
    other = EnrolmentServer(authority, tmp_path, "collector.example")
    try:
        with pytest.raises(IdentityError, match="for the name"):
            join(state, other)
        assert other.paths == ["/ca"]
        join(state, other, server_name="collector.example")
    finally:
        other.stop()
    assert load_identity(state) is not None


def test_a_request_without_an_answer_is_repeated_with_the_same_key(state, server):
    server.lose_answers = 2
    for _ in range(2):
        with pytest.raises(IdentityError):
            join(state, server)
    join(state, server)
    asked = [body["csr"] for path, body in server.asked if path == "/enrol"]
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert len({body["nonce"] for path, body in server.asked if path == "/enrol"}) == 3
    assert load_identity(state).sequence == 1
    assert load_request(state) is None


@pytest.mark.parametrize(
    ("status", "word", "final"),
    [(403, "token-used", True), (401, "unknown-token", True), (409, "nonce", False), (429, "too-many", False),
     (503, "not-now", False), (500, "", False), (409, "cloned", True)],
)  # fmt: skip
def test_a_refusal_says_what_to_do_and_whether_to_come_again(state, server, status, word, final):
    server.refuse = status, word
    with pytest.raises(IdentityError) as caught:
        join(state, server)
    assert caught.value.final is final
    assert f"{status} {word}" in str(caught.value)
    assert "do this" in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"{" * 20_000, b'{"ca_pem": 1}', b"x" * 100_000])
def test_answers_that_are_none_are_named(state, server, raw):
    server.answer_with = raw
    with pytest.raises(IdentityError, match="enrolment"):
        join(state, server)
    assert load_identity(state) is None


def test_a_certificate_of_another_agent_or_key_is_not_taken(state, server, authority):
    certificate, _ = authority.pair(f"spiffe://{DOMAIN}/flopmeter/agent/{'0' * 32}")
    server.answer_with = None

    class Lying(dict):
        def get(self, key, default=None):
            return (1, b"", certificate)

    server.given = Lying()
    server._give = lambda *_: (1, b"", certificate)
    with pytest.raises(IdentityError, match="do not belong together"):
        join(state, server)
    assert load_identity(state) is None
    assert load_request(state) is not None


def joined(state: Path, server: EnrolmentServer, token: str | None = None, **more) -> Joined:
    given = server.token if token is None else token
    more = {"rng": Random(1), "look_s": 0.01, "retry_s": 0.01} | more
    return Joined(state, "node-a", ("127.0.0.1", server.port), lambda: given, **more)


def credentials(access: Joined):
    return asyncio.run(access.credentials())


def test_a_second_start_with_the_same_token_enrols_nobody(state, server):
    first = credentials(joined(state, server))
    again = credentials(joined(state, server))
    assert first == again
    assert server.paths.count("/enrol") == 1
    gone = credentials(joined(state, server, ""))  # the secret was taken away meanwhile
    assert gone == first

    def unreadable() -> str:
        raise FileNotFoundError("no such file")

    access = Joined(state, "node-a", ("127.0.0.1", 1), unreadable, rng=Random(1))
    assert credentials(access) == first


def test_without_certificate_and_token_it_says_what_to_do(state, server):
    with pytest.raises(IdentityError, match="--join-file"):
        credentials(joined(state, server, ""))


def test_another_token_joins_anew_and_one_that_fails_leaves_the_certificate(state, server, tmp_path):
    first = credentials(joined(state, server))
    other = server.token.replace(server.token_id, "token0002")
    server.refuse = 403, "token-expired"
    access = joined(state, server, other)
    assert credentials(access) == first
    assert "token-expired" in access.trouble
    another = EnrolmentServer(Authority("another"), tmp_path)
    another.token_id = "token0003"
    forgotten: list[int] = []
    try:
        access = joined(state, another, other_authority=lambda: forgotten.append(1))
        second = credentials(access)
    finally:
        another.stop()
    assert second.ca != first.ca
    assert forgotten == [1]  # of the former collector's log


def test_an_expired_certificate_is_renewed_by_the_record_key(state, server, authority):
    credentials(joined(state, server, unix_s=lambda: 0))
    late = load_identity(state).not_after_unix_s + 1
    credentials(joined(state, server, unix_s=lambda: late))
    assert server.paths.count("/enrol") == 1
    assert server.paths.count("/renew") == 1
    assert load_identity(state).sequence == 2
    server.lose_answers = 1
    with pytest.raises(IdentityError, match="expired"):
        credentials(joined(state, server, unix_s=lambda: late))
    credentials(joined(state, server, unix_s=lambda: late))
    assert load_identity(state).sequence == 3


def test_a_clone_is_refused_for_good_and_says_so(state, server):
    credentials(joined(state, server))
    copy = (state / IDENTITY_FILE).read_bytes()
    late = load_identity(state).not_after_unix_s + 1
    credentials(joined(state, server, unix_s=lambda: late))
    (state / IDENTITY_FILE).write_bytes(copy)  # set back, as in a restored image
    with pytest.raises(IdentityError, match="cloned") as caught:
        credentials(joined(state, server, unix_s=lambda: late))
    assert caught.value.final


def test_connections_that_fail_lead_to_a_renewal_though_our_clock_says_that_all_is_well(state, server):
    access = joined(state, server)
    credentials(access)
    for _ in range(3):
        access.failed()
    credentials(access)
    assert server.paths.count("/renew") == 1
    credentials(access)
    assert server.paths.count("/renew") == 1


class Due:
    """Renewal over an open channel, with a clock and a channel of the test's."""

    def __init__(self, state: Path, server: EnrolmentServer) -> None:
        self.now = 0.0
        self.access = joined(state, server, unix_s=lambda: self.now)
        self.calls: list[bytes] = []
        credentials(self.access)
        self.identity = load_identity(state)

    async def call(self, method: str, request: bytes) -> bytes:
        self.calls.append(request)
        raise IdentityError("UNAVAILABLE: gone")

    def look(self, calls: int, seconds: float) -> bool:
        """Whether it asked so often by then; nothing newer came."""

        async def look() -> bool:
            waiting = asyncio.ensure_future(self.access.superseded(self.call))
            until = time.monotonic() + seconds
            while len(self.calls) < calls and time.monotonic() < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            return len(self.calls) >= calls

        return asyncio.run(look())


def test_it_is_due_at_half_of_its_life_and_a_clock_that_steps_changes_only_when(state, server):
    due = Due(state, server)
    half = due.identity.half_life_unix_s
    due.now = half - 86_400 * 0.11
    assert not due.look(1, 0.2)
    due.now = half + 86_400 * 0.11
    assert due.look(2, 30)
    due.now = 1.0  # far back: what was asked is asked on, as it has no answer
    assert due.look(4, 30)
    assert len(set(due.calls)) == 1  # the very same request
    assert "UNAVAILABLE" in due.access.trouble


def test_files_that_others_may_read_or_that_are_damaged_are_refused_with_a_way_out(state, server):
    join(state, server)
    path = state / IDENTITY_FILE
    good = path.read_bytes()
    path.chmod(0o640)
    with pytest.raises(IdentityError, match="0600"):
        load_identity(state)
    path.chmod(0o600)
    for raw in (
        good[:-20],
        b"",
        b"[]",
        b"{}",
        good.replace(b'"sequence": 1', b'"sequence": "1"'),
        b"\xff" * 99,
    ):
        path.write_bytes(raw)
        with pytest.raises(IdentityError, match="join again"):
            load_identity(state)
    path.unlink()
    path.symlink_to(state / "record.key")
    with pytest.raises(IdentityError):
        load_identity(state)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(IdentityError):
        load_identity(state)


def test_a_request_that_the_identity_has_outrun_is_forgotten(state, server):
    server.lose_answers = 1
    with pytest.raises(IdentityError):
        join(state, server)
    request = (state / REQUEST_FILE).read_bytes()
    join(state, server)
    step.save_request(state, step.Request(**json.loads(request)))  # as after a crash right behind the answer
    assert load_request(state) is None
    assert not (state / REQUEST_FILE).exists()


def test_a_request_for_another_record_key_is_not_repeated(state, server):
    server.lose_answers = 1
    with pytest.raises(IdentityError):
        join(state, server)
    server.given.clear()
    (state / "record.key").unlink()
    load_or_create_key(state)
    join(state, server)
    assert load_identity(state).agent_id == load_or_create_key(state).agent_id.hex()


def test_a_life_of_certificates_never_names_an_old_sequence(state, server, authority):
    authority.life, before = timedelta(hours=1), authority.life
    try:
        now = [0.0]
        for _ in range(4):
            credentials(joined(state, server, unix_s=lambda: now[-1]))
            now.append(load_identity(state).not_after_unix_s + 5.0)
        asked = [int(body["sequence"]) for path, body in server.asked if path == "/renew"]
        assert asked == [1, 2, 3]
    finally:
        authority.life = before
