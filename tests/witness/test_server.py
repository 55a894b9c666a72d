"""The witness's HTTP edge: what it takes, what it cuts off, how it ends."""

import contextlib
import hashlib
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import wait_for
from receivers import authority
from witness_rig import Log, a_witness, post, served

from flopmeter.witness.errors import UsageError
from flopmeter.witness.request import MAX_BODY_BYTES
from flopmeter.witness.server import Certificate, WitnessServer

LOG = Log().grow(8)


@contextlib.contextmanager
def serving(state: Path, **limits: object) -> Iterator[WitnessServer]:
    witness, heads = a_witness(state, LOG)
    with contextlib.closing(heads), served(witness, **limits) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WitnessServer]:
    with serving(tmp_path / "w.db", request_s=5.0) as found:
        yield found


def get(port: int, path: str) -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as call:
        call.request("GET", path)
        answer = call.getresponse()
        return answer.status, answer.read()


def is_healthy(port: int) -> bool:
    """Also where the server gives so little time that a busy machine may not have said by then what it asks."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return get(port, "/healthz")[0] == 200
    return False


def raw(port: int, sent: bytes) -> bytes:
    """All that comes back until the other side closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
        s.sendall(sent)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while more := s.recv(65_536):
                found += more
        return found


def test_a_checkpoint_comes_back_cosigned_and_can_be_fetched(server: WitnessServer) -> None:
    name = hashlib.sha256(LOG.origin.encode()).hexdigest()
    assert get(server.port, f"/{name}/checkpoint")[0] == 404
    answer = post(server.port, LOG.ask(0))
    assert (answer.status, answer.body[:4]) == (200, "— ".encode())
    assert get(server.port, f"/{name}/checkpoint") == (200, LOG.sign(LOG.text()) + answer.body)
    assert post(server.port, LOG.ask(0)).content_type == "text/x.tlog.size"


def test_health(server: WitnessServer) -> None:
    assert get(server.port, "/healthz") == (200, b"ok\n")


@pytest.mark.parametrize(
    "path", ["/", "/add-checkpoint", "/checkpoint", f"/{'0' * 64}/checkpoint", "/../healthz"]
)
def test_404_elsewhere(server: WitnessServer, path: str) -> None:
    assert get(server.port, path)[0] == 404
    assert post(server.port, b"x" * 10_000, path + "x").status == 404


def test_keep_alive_many_requests_on_one_connection(server: WitnessServer) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as call:
        for old, size in ((0, 1), (1, 2), (2, 8)):
            call.request("POST", "/add-checkpoint", LOG.ask(old, size))
            answer = call.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
            assert call.sock is not None


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("", b"411"),
        ("Transfer-Encoding: chunked\r\n", b"411"),
        ("Content-Length: 3\r\nContent-Length: 4\r\n", b"411"),
        ("Content-Length: -1\r\n", b"411"),
        ("Content-Length: x\r\n", b"411"),
        (f"Content-Length: {MAX_BODY_BYTES + 1}\r\n", b"413"),
        ("Content-Length: 999999999999999999999\r\n", b"411"),
    ],
)
def test_a_body_of_unknown_or_great_length_is_not_read(
    server: WitnessServer, head: str, status: bytes
) -> None:
    answer = raw(server.port, f"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
    assert answer.split(b" ", 2)[1] == status
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"\0" * 9 + b"\r\n",
    ],
)
def test_what_is_not_http_is_answered_or_closed(server: WitnessServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        s.sendall(sent)
        s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            s.recv(65_536)
    assert get(server.port, "/healthz")[0] == 200


@pytest.mark.parametrize(
    "sent", [b"POST /add-checkpoint HT", b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 9\r\n\r\nold"]
)
def test_a_peer_that_drips_is_cut_off(tmp_path: Path, sent: bytes) -> None:
    """Each byte comes in time; the whole does not."""
    with serving(tmp_path / "w.db", request_s=0.3) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
            over = threading.Event()

            def drip() -> None:
                with contextlib.suppress(OSError):
                    s.sendall(sent)
                    while not over.wait(0.05):
                        s.sendall(b"x" if sent.endswith(b"HT") else b"")

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                with contextlib.suppress(ConnectionResetError):
                    assert not s.recv(1_000)
            finally:
                over.set()
                thread.join(60)
        wait_for("it serves others", lambda: is_healthy(server.port))


def test_headers_without_end_are_cut_off(server: WitnessServer) -> None:
    line = b"X-More: " + b"x" * 60_000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        sent = 0
        with contextlib.suppress(OSError):
            s.sendall(b"GET /healthz HTTP/1.1\r\n")
            for _ in range(90):  # fewer than the standard library's limit of a hundred
                s.sendall(line)
                sent += len(line)
            s.sendall(b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert s.recv(100) == b""
    assert get(server.port, "/healthz")[0] == 200


def test_a_client_that_asks_first_whether_to_send(server: WitnessServer) -> None:
    """curl does, with bodies past a kilobyte: one 100 Continue, then the answer."""
    body = LOG.ask(0)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
        head = f"POST /add-checkpoint HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        s.sendall(head.encode())
        found = s.recv(100)
        assert found == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        while more := s.recv(65_536):
            found += more
    assert found.count(b"HTTP/1.1") == 2
    assert b"HTTP/1.1 200" in found


def test_one_connection_too_many_is_closed_and_the_others_are_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(tmp_path / "w.db", max_connections=2) as server, contextlib.ExitStack() as stack:
        calls = [
            stack.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60))
            )
            for _ in range(2)
        ]
        for call in calls:
            call.request("GET", "/healthz")
            assert call.getresponse().read() == b"ok\n"
        assert raw(server.port, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
        assert "too many connections" in caplog.text
        calls[0].request("GET", "/healthz")
        assert calls[0].getresponse().read() == b"ok\n"


def test_stop_cuts_idle_connections_and_ends(tmp_path: Path) -> None:
    witness, heads = a_witness(tmp_path / "w.db", LOG)
    with contextlib.closing(heads):
        server = WitnessServer(witness, "127.0.0.1", 0)
        server.start()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as s:
            s.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            found = b""
            while not found.endswith(b"ok\n"):
                found += s.recv(1_000)
            server.stop()  # far sooner than the connection's idle time
            assert s.recv(1_000) == b""
            assert not [t for t in threading.enumerate() if "process_request" in t.name]


def test_tls_and_a_certificate_that_is_renewed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ca, cert, key = authority(tmp_path)
    client = ssl.create_default_context(cafile=str(ca))

    def presented(port: int) -> bytes:
        with contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", port, context=client, timeout=60)
        ) as call:
            call.request("POST", "/add-checkpoint", LOG.ask(0))
            assert call.getresponse().status in (200, 409)
            assert isinstance(call.sock, ssl.SSLSocket)
            return call.sock.getpeercert(binary_form=True) or b""

    with serving(tmp_path / "w.db", tls=Certificate(cert, key), request_s=5.0) as server:
        first = presented(server.port)
        raw(server.port, b"GET /healthz HTTP/1.1\r\n\r\n")  # plain text to a TLS port
        cert.write_text("half a cert")
        assert presented(server.port) == first
        assert "the last one stays in use" in caplog.text
        other = tmp_path / "renewed"
        other.mkdir()
        ca, renewed, new_key = authority(other)
        client.load_verify_locations(str(ca))
        key.write_bytes(new_key.read_bytes())
        cert.write_bytes(renewed.read_bytes())
        assert presented(server.port) != first


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    for path in (tmp_path / "x.pem", tmp_path / "absent.pem"):
        with pytest.raises(UsageError, match="tls-cert"):
            Certificate(path, path)
