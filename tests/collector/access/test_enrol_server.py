"""The enrolment port, over real TLS: the contract of docs/identity.md, and what strangers do to it."""

import hashlib
import logging
import socket
import ssl
from contextlib import ExitStack

import pytest
from access_rig import Enrolment443, Node, join_token, kinds, said
from builders import Chain
from cryptography import x509
from processes import wait_for
from serving import settings_for
from wire_client import WireClient

from flopmeter.collector.access.ca import spki_sha256
from flopmeter.collector.access.enrol_server import MAX_CONNECTIONS, MAX_OF_ONE, EnrolServer
from flopmeter.collector.access.errors import AccessRefused
from flopmeter.collector.access.nonces import LIFE_S, Nonces
from flopmeter.collector.access.rates import MAX_ADDRESSES, PER_S, REFUSALS, Rates
from flopmeter.collector.access.tls import Embedded, ServerTls
from flopmeter.collector.running import run_collector


def serving(desk, clock, **more):
    tls = ServerTls(Embedded(desk.ca, ("127.0.0.1", "localhost"), clock), clock)
    return EnrolServer("127.0.0.1", 0, desk=desk, tls=tls, unix_ns=clock, **more)


@pytest.fixture
def server(desk, clock):
    server = serving(desk, clock)
    yield server
    server.stop()


@pytest.fixture
def hasty(desk, clock):
    """One that gives a request three seconds."""
    server = serving(desk, clock, request_s=3.0)
    yield server
    server.stop()


@pytest.fixture
def ask(server, desk):
    return Enrolment443(f"127.0.0.1:{server.port}", desk.ca.pem)


def test_a_node_joins_by_the_contract_and_ships(tmp_path, clock, node):
    settings = settings_for(
        tmp_path, admit_new=False, tls_name="localhost,127.0.0.1", enrol="127.0.0.1:0", http=""
    )
    with run_collector(settings, clock) as running:
        token = join_token(running._collector._front.desk)
        status, _, first = Enrolment443(running.enrol_address, None)("GET", "/ca")
        assert status == 200
        ca = x509.load_pem_x509_certificate(first["ca_pem"].encode())
        assert spki_sha256(ca.public_key()) == token.ca_spki_sha256
        ask = Enrolment443(running.enrol_address, first["ca_pem"].encode())
        csr = node.csr(first["trust_domain"])
        status, headers, given = ask("POST", "/enrol", said(node.asks(token, csr, nonce=ask.nonce())))
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert set(given) == {"certificate_pem", "ca_pem", "trust_domain", "sequence", "not_after_unix_s"}
        node.certificate, node.ca = given["certificate_pem"].encode(), given["ca_pem"].encode()
        with WireClient(running.address, node.chain, node.channel(running.address)) as client:
            client.hello()
            client.records(node.chain.next())
            client.ack(1)
        assert kinds(running.store_path) == ["token-made", "token-used", "enrolled"]


def test_the_server_shows_a_certificate_of_the_pinned_authority_for_its_own_names(server, desk):
    with pytest.raises(ssl.SSLCertVerificationError):
        Enrolment443(f"127.0.0.1:{server.port}", Node(Chain("x")).ca or other_ca())("GET", "/ca")
    context = ssl.create_default_context(cadata=desk.ca.pem.decode())
    with (
        socket.create_connection(("127.0.0.1", server.port)) as raw,
        pytest.raises(ssl.SSLCertVerificationError, match="mismatch"),
    ):
        context.wrap_socket(raw, server_hostname="elsewhere.example")


def other_ca() -> bytes:
    from access_rig import Authority

    return Authority().pem


def test_a_replayed_enrolment(ask, desk, node, store):
    token = join_token(desk, uses=9)
    asked = said(node.asks(token, node.csr(desk.ca.trust_domain), nonce=ask.nonce()))
    assert ask("POST", "/enrol", asked)[0] == 200
    status, _, answer = ask("POST", "/enrol", asked)
    assert (status, answer["error"]) == (409, "nonce")
    assert kinds(store).count("enrolled") == 1


def test_a_nonce_of_elsewhere_and_an_old_one(ask, desk, node, clock):
    token, csr = join_token(desk, uses=9), node.csr(desk.ca.trust_domain)
    for nonce in (bytes(32), Nonces().new(clock() // 10**9)):
        assert ask("POST", "/enrol", said(node.asks(token, csr, nonce=nonce)))[2]["error"] == "nonce"
    old = ask.nonce()
    clock.move(seconds=LIFE_S + 1)
    assert ask("POST", "/enrol", said(node.asks(token, csr, nonce=old)))[2]["error"] == "nonce"


def test_a_guesser_is_stopped_and_named_and_fills_no_log(ask, desk, node, store, caplog):
    token, csr = join_token(desk), node.csr(desk.ca.trust_domain)
    with caplog.at_level(logging.WARNING):
        nonces = [ask.nonce() for _ in range(REFUSALS)]
        for number, nonce in enumerate(nonces):
            asked = node.asks(token, csr, nonce=nonce)._replace(
                secret=hashlib.sha256(bytes([number])).digest()
            )
            status, _, answer = ask("POST", "/enrol", said(asked))
            assert (status, answer["error"]) == (401, "unknown-token")
        status, headers, answer = ask("GET", "/nonce")
    assert (status, answer["error"]) == (429, "too-many")
    assert 0 < int(headers["Retry-After"]) <= PER_S
    assert "an enrolment from 127.0.0.1" in caplog.text
    assert "unknown token" in caplog.text.replace("-", " ")
    assert token.secret.hex() not in caplog.text
    assert kinds(store) == ["token-made"]


def test_what_was_said_wrong_is_said_back(ask, desk, node):
    token, csr = join_token(desk), node.csr(desk.ca.trust_domain)
    said(node.asks(token, csr))
    for body in (b"", b"[]", b"{", b'{"a":1}', b"\xff", b"[" * 9_000):
        assert ask("POST", "/enrol", body)[2]["error"] == "malformed", body[:20]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("public_key", "zz" * 32),
        ("public_key", "AB" * 32),
        ("secret", ""),
        ("signature", "00"),
        ("nonce", "0" * 66),
        ("csr", "é"),
        ("extra", "x"),
        ("node", None),
    ],
)
def test_a_field_that_is_none(ask, desk, node, field, value):
    good = said(node.asks(join_token(desk), node.csr(desk.ca.trust_domain)))
    status, _, answer = ask("POST", "/enrol", {**good, field: value})
    assert (status, answer["error"]) == (400, "malformed")


def test_paths_and_methods_that_are_not_there(ask):
    for method, path in (("GET", "/"), ("PUT", "/enrol"), ("GET", "/enrol"), ("POST", "/ca")):
        assert ask(method, path)[2]["error"] == "not-found"


def test_a_body_and_a_head_that_are_too_large(ask):
    assert ask("POST", "/enrol", b"x" * 20_000)[0] == 413
    status, _, answer = ask("GET", "/" + "x" * 9_000)
    assert (status, answer["error"]) == (413, "too-large")


def test_an_expired_certificate_is_renewed_here(ask, desk, node, clock, store):
    node.joined(desk)
    clock.move(hours=30)
    csr, nonce = node.new_key().csr(desk.ca.trust_domain), ask.nonce()
    asked = {
        "agent_id": node.agent_id.hex(),
        "csr": csr.decode(),
        "sequence": "1",
        "nonce": nonce.hex(),
        "signature": node.proof(csr, nonce=nonce).hex(),
    }
    status, _, given = ask("POST", "/renew", asked)
    assert (status, given["sequence"]) == (200, "2")
    assert kinds(store)[-1] == "renewed"
    for sequence in ("-1", "01", "x", str(1 << 63)):
        assert ask("POST", "/renew", {**asked, "sequence": sequence})[0] == 400


def hung_up(raw: socket.socket) -> bool:
    try:
        return raw.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def patient(desk, clock):
    """One that gives a request more time than any test takes."""
    server = serving(desk, clock, request_s=120.0)
    yield server
    server.stop()


def test_slow_clients_do_not_hold_up_others(patient, desk, node):
    """Some say nothing, some a letter; one address gets only so many places, and whoever comes beyond is hung up on."""
    server, ask = patient, Enrolment443(f"127.0.0.1:{patient.port}", desk.ca.pem)
    with ExitStack() as stack:

        def slow(number: int) -> socket.socket:
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
            if number % 2:
                raw.sendall(b"\x16")
            return raw

        for number in range(MAX_OF_ONE - 3):  # room for two requests, of which one may still be closing
            slow(number)
        wait_for("they are looked at", lambda: server._open.get("127.0.0.1") == MAX_OF_ONE - 3)
        asked = said(node.asks(join_token(desk), node.csr(desk.ca.trust_domain), nonce=ask.nonce()))
        assert ask("POST", "/enrol", asked)[0] == 200
        wait_for("their places are free again", lambda: server._open.get("127.0.0.1") == MAX_OF_ONE - 3)
        for number in range(3):
            slow(number)
        wait_for("no place is left", lambda: server._open.get("127.0.0.1") == MAX_OF_ONE)
        beyond = slow(0)
        beyond.settimeout(60.0)  # half of what a slow one is given
        assert hung_up(beyond)
    assert MAX_OF_ONE < MAX_CONNECTIONS


def test_silent_clients_are_cut_off_and_named(hasty, caplog):
    with (
        caplog.at_level(logging.WARNING),
        socket.create_connection(("127.0.0.1", hasty.port), timeout=60) as raw,
    ):
        assert hung_up(raw)
        wait_for("named", lambda: "too-slow" in caplog.text)


def test_a_client_that_drips_is_cut_off_at_the_end_of_its_time(hasty, desk, caplog):
    """Each letter comes in time; all of them do not."""
    context = ssl.create_default_context(cadata=desk.ca.pem.decode())
    with (
        caplog.at_level(logging.WARNING),
        socket.create_connection(("127.0.0.1", hasty.port), timeout=60) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.settimeout(0.05)

        def drip() -> bool:
            try:
                tls.sendall(b"G")
                return tls.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_for("cut off", drip)
    wait_for("named", lambda: "too-slow" in caplog.text)


def test_plain_http_and_garbage_on_the_port_are_refused_and_named(server, caplog):
    with caplog.at_level(logging.WARNING):
        for data in (b"GET /ca HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + bytes(400)):
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
                raw.sendall(data)
                try:
                    while raw.recv(4_096):
                        pass
                except OSError:
                    pass
        wait_for("named", lambda: "expected TLS" in caplog.text)


# --- the parts ---


def test_rates_count_refusals_of_a_network_and_forget():
    rates = Rates()
    for number in range(REFUSALS):
        assert rates.wait_s("2001:db8::1", 1.0) == 0
        rates.refused(f"2001:db8::{number:x}", 1.0)
    assert rates.wait_s("2001:db8::ffff", 2.0) == PER_S - 1
    assert rates.wait_s("2001:db8:0:1::1", 2.0) == 0
    assert rates.wait_s("192.0.2.1", 2.0) == 0
    assert rates.wait_s("2001:db8::1", 1.0 + PER_S) == 0
    rates.refused("2001:db8::1", 1.0 + PER_S)
    assert rates.wait_s("2001:db8::1", 1.0 + PER_S) == 0
    for number in range(MAX_ADDRESSES + 10):
        rates.refused(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 100.0)
    assert len(rates._refused) == MAX_ADDRESSES


def test_nonces_are_good_once():
    nonces = Nonces()
    one = nonces.new(1_000)
    nonces.use(one, 1_010)
    for nonce, now in ((one, 1_010), (nonces.new(1_000), 1_000 + LIFE_S), (b"", 1_000), (one[:31], 1_000)):
        with pytest.raises(AccessRefused):
            nonces.use(nonce, now)
    end = nonces.new(1_000)
    later = end[:8] + (9_999).to_bytes(8, "big") + end[16:]
    with pytest.raises(AccessRefused):
        nonces.use(later, 1_000)
