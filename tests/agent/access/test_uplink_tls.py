"""The uplink under TLS: certificates that change while records flow, files that are half written, collectors that differ."""

import os
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from chains import BOOT, append, open_chain
from fake_authority import DOMAIN, Authority, EnrolmentServer
from uplinks import FAST, WAIT_S, in_books, settled

from fakes import FakeCollector
from flopmeter.agent.access.credentials import Files, Joined
from flopmeter.agent.access.state import load_identity, load_request
from flopmeter.agent.shipping.status import Identity
from flopmeter.agent.shipping.uplink import Uplink


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def chain(tmp_path):
    made = open_chain(tmp_path / "state")
    yield made
    made.spool.close()


@pytest.fixture
def serve(authority):
    """Collectors behind mTLS."""
    made: list[FakeCollector] = []

    def serve(*names: str, handlers=(), port: int = 0) -> FakeCollector:
        made.append(FakeCollector(port, authority.server_credentials(*names), handlers))
        return made[-1]

    yield serve
    for collector in made:
        collector.stop()


@pytest.fixture
def connect(chain):
    timing = replace(FAST, connect_s=0.5)

    made: list[Uplink] = []

    def connect(target: str, access=None, **more) -> Uplink:
        identity = Identity("node-a", "0.1.0", BOOT)
        uplink = Uplink(target, chain, identity, rng=Random(1), timing=timing, access=access, **more)
        made.append(uplink)
        uplink.start()
        return uplink

    yield connect
    for uplink in made:
        uplink.stop()


class Pair:
    """Certificate files that somebody renews."""

    def __init__(self, directory, authority: Authority) -> None:
        self.authority = authority
        self.certificate, self.key, self.ca = (directory / n for n in ("tls.crt", "tls.key", "ca.crt"))
        self.ca.write_bytes(authority.pem)
        self.renew()

    def renew(self, *, half: bool = False) -> None:
        certificate, key = self.authority.pair("spiffe://site/agent")
        self._put(self.certificate, certificate)
        if not half:
            self._put(self.key, key)
        self.rest = self.key, key

    def finish(self) -> None:
        self._put(*self.rest)

    def _put(self, path, data: bytes) -> None:
        path.with_suffix(".new").write_bytes(data)
        path.with_suffix(".new").replace(path)

    def access(self, **more) -> Files:
        return Files(self.certificate, self.key, self.ca, **({"look_s": 0.01} | more))


def until(uplink: Uplink, true: Callable[[], bool]) -> None:
    """Polled: not everything wakes an uplink's waiter."""
    import time

    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, uplink.status
        uplink.wait_for(true, 0.02)


def test_certificates_are_swapped_under_open_streams_and_nothing_is_lost_or_sent_twice(
    chain, connect, serve, authority, tmp_path
):
    collector, pair = serve(), Pair(tmp_path, authority)
    uplink = connect(collector.target, pair.access())
    count = 0
    for swap in range(4):
        append(chain, count, 25)  # some of it is in flight when the certificate changes
        count += 25
        pair.renew()
        until(uplink, lambda swap=swap: uplink.status.connects >= swap + 2)
    settled(uplink, count)
    in_books(collector, chain)
    assert len(collector.received) == len(collector.records) == count  # drained: no record travelled twice
    assert uplink.status.last_error == ""
    assert collector.half_closed == 4  # no channel was cut off: each stream was ended by both sides


def test_a_half_written_pair_keeps_the_old_channel(chain, connect, serve, authority, tmp_path):
    collector, pair = serve(), Pair(tmp_path, authority)
    access = pair.access()
    uplink = connect(collector.target, access)
    append(chain, 0, 1)
    settled(uplink, 1)
    pair.renew(half=True)
    until(uplink, lambda: "do not belong together" in access.trouble)
    append(chain, 1, 3)
    settled(uplink, 4)
    assert uplink.status.connects == 1
    pair.finish()
    until(uplink, lambda: uplink.status.connects == 2)
    assert access.trouble == ""
    append(chain, 4, 1)
    settled(uplink, 5)


@pytest.fixture
def pair(tmp_path, authority):
    return Pair(tmp_path, authority)


@pytest.mark.parametrize("what", ["gone", "empty", "huge", "fifo", "not-pem"])
def test_files_that_turn_bad_change_nothing_and_are_named(chain, connect, serve, pair, what):
    collector = serve()
    access = pair.access()
    uplink = connect(collector.target, access)
    append(chain, 0, 1)
    settled(uplink, 1)
    good = pair.certificate.read_bytes()
    pair.certificate.unlink()
    if what == "fifo":
        os.mkfifo(pair.certificate)
    elif what != "gone":
        pair.certificate.write_bytes({"empty": b"", "huge": b"x" * (2 << 20), "not-pem": b"hello\n"}[what])
    until(uplink, lambda: access.trouble != "")
    append(chain, 1, 1)
    settled(uplink, 2)
    assert uplink.status.connects == 1
    pair.certificate.unlink(missing_ok=True)
    pair.certificate.write_bytes(good)
    until(uplink, lambda: access.trouble == "")


def test_no_files_at_the_start_are_said_and_waited_for(chain, connect, serve, authority, tmp_path):
    collector, pair = serve(), Pair(tmp_path, authority)
    pair.key.unlink()
    uplink = connect(collector.target, pair.access())
    append(chain, 0, 1)
    assert uplink.wait_for(lambda: "tls.key" in uplink.status.last_error, WAIT_S), uplink.status
    pair.finish()
    settled(uplink, 1)


def test_a_collector_of_another_authority_or_name_gets_no_record(chain, connect, serve, authority, tmp_path):
    impostor = FakeCollector(0, Authority("impostor").server_credentials())
    named, pair = serve("collector.example"), Pair(tmp_path, authority)
    append(chain, 0, 1)
    try:
        uplink = connect(impostor.target, pair.access())
        assert uplink.wait_for(lambda: "certificate is not good" in uplink.status.last_error, WAIT_S), (
            uplink.status
        )
        uplink.stop()
        assert impostor.hellos == []
    finally:
        impostor.stop()
    uplink = connect(named.target, pair.access())
    assert uplink.wait_for(lambda: "certificate is not good" in uplink.status.last_error, WAIT_S), (
        uplink.status
    )
    uplink.stop()
    assert named.hellos == []
    access = pair.access()
    access.server_name = "collector.example"
    settled(connect(named.target, access), 1)


def test_a_certificate_that_the_collector_does_not_take_is_named(chain, connect, serve, authority, tmp_path):
    collector, pair = serve(), Pair(tmp_path, Authority("another"))
    pair.ca.write_bytes(authority.pem)
    append(chain, 0, 1)
    uplink = connect(collector.target, pair.access())
    assert uplink.wait_for(lambda: "TLS: " in uplink.status.last_error, WAIT_S), uplink.status
    assert chain.spool.pending == 1


def joined(state, server: EnrolmentServer, now: list[float], **more) -> Joined:
    more = {"look_s": 0.01, "retry_s": 0.01} | more
    return Joined(
        state,
        "node-a",
        ("127.0.0.1", server.port),
        lambda: server.token,
        rng=Random(1),
        unix_s=lambda: now[-1],
        **more,
    )


@pytest.fixture
def server(authority, tmp_path):
    made = EnrolmentServer(authority, tmp_path)
    yield made
    made.stop()


def test_it_joins_ships_and_renews_at_half_life_over_its_channel(chain, connect, serve, server, tmp_path):
    collector, now, state = serve(handlers=(server.renew_handler(),)), [0.0], tmp_path / "state"
    append(chain, 0, 3)
    uplink = connect(collector.target, joined(state, server, now))
    settled(uplink, 3)
    for renewed in range(1, 4):
        server.lose_answers = renewed - 1  # the same request again
        identity = load_identity(state)
        now.append(identity.half_life_unix_s + 0.11 * 86_400)
        append(chain, 3 * renewed, 3)
        until(uplink, lambda renewed=renewed: uplink.status.connects == renewed + 1)
        now.append(0.0)
        assert load_identity(state).sequence == renewed + 1
        assert load_identity(state).key_pem != identity.key_pem
    settled(uplink, 12)
    in_books(collector, chain)
    assert len(collector.received) == 12
    asked = [body["sequence"] for path, body in server.asked if path == "Renew"]
    assert asked == [1, 2, 2, 3, 3, 3]
    assert server.paths.count("/enrol") == 1
    assert load_request(state) is None
    uris = load_identity(state).agent_id
    assert f"spiffe://{DOMAIN}/flopmeter/agent/{uris}"[-32:] == chain.key.agent_id.hex()


def test_a_renewal_that_is_refused_leaves_the_stream_as_it_is(chain, connect, serve, server, tmp_path):
    collector, now, state = serve(handlers=(server.renew_handler(),)), [0.0], tmp_path / "state"
    access = joined(state, server, now)
    uplink = connect(collector.target, access)
    append(chain, 0, 1)
    settled(uplink, 1)
    sequence, digest, certificate = server.given[chain.key.agent_id.hex()]
    server.given[chain.key.agent_id.hex()] = (sequence + 1, digest, certificate)  # somebody else renewed
    now.append(load_identity(state).not_after_unix_s - 10.0)
    until(uplink, lambda: "PERMISSION_DENIED" in access.trouble)
    append(chain, 1, 2)
    settled(uplink, 3)
    assert uplink.status.connects == 1


def test_a_token_that_is_refused_stops_no_metering(chain, connect, serve, server, tmp_path):
    collector = serve()
    server.refuse = 403, "token-expired"
    append(chain, 0, 2)
    uplink = connect(collector.target, joined(tmp_path / "state", server, [0.0]))
    assert uplink.wait_for(lambda: "token-expired" in uplink.status.last_error, WAIT_S)
    append(chain, 2, 2)
    assert uplink.status.fatal is None
    assert chain.spool.pending == 4


def test_plain_text_meets_a_collector_that_wants_certificates(chain, connect, serve):
    collector = serve()
    append(chain, 0, 1)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: bool(uplink.status.last_error), WAIT_S)
    assert collector.hellos == []
