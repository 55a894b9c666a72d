"""Requests that two programs would read in two ways, that are none, or that are too large: refused, and hung up on."""

import contextlib
import re
import socket

import pytest
from edge_rig import first, request, until_end

from flopmeter.collector.web.edge_protocol import MAX_HEAD_BYTES

# --- requests that a proxy in front might read otherwise ---

ANSWER = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 3", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 3"),
        ("Content-Length: 3", "Content-Length: 5"),
        ("Content-Length: +3",),
        ("Content-Length: -1",),
        ("Content-Length: 0x3",),
        ("Content-Length: 3 3",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding: identity, chunked",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\x0bchunked",),
        (" Transfer-Encoding: chunked",),
        ("Content-Length\r: 3",),
        ("X: a\x00b",),
        ("Host: other.example",),
        ("X: a\n\tb",),
        ("X: a\nTransfer-Encoding: chunked",),
    ],
)
def test_request_smuggling(shared, headers):
    said = shared.raw(
        request(
            "POST",
            "/api/v1/session",
            "Content-Type: application/json",
            *headers,
            body=b"0\r\n\r\n" + SMUGGLED,
        )
    )
    assert first(said).split(b" ")[1] in (b"400", b"501"), first(said)
    assert len(ANSWER.findall(said)) == 1  # nothing behind it is answered
    assert b"connection: close" in said.lower()


def test_what_is_said_behind_a_refusal_is_not_heard(shared):
    """In a piece of its own, while the refusal is on its way."""
    with socket.create_connection(("127.0.0.1", shared.server.port), timeout=60) as raw:
        raw.sendall(b"nonsense\r\n\r\n")
        said = raw.recv(65_536)
        with contextlib.suppress(OSError):
            for _ in range(50):
                raw.sendall(SMUGGLED)
        said += until_end(raw)
    assert ANSWER.findall(said) == [b"400"]


def test_a_body_where_none_belongs(shared):
    for headers in (("Content-Length: 5",), ("Transfer-Encoding: chunked",)):
        said = shared.raw(request("GET", "/healthz", *headers, body=SMUGGLED))
        assert first(said).split(b" ")[1] == b"400"
        assert len(ANSWER.findall(said)) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01" + bytes(200),
        b"GET /healthz\r\n\r\n",
        b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /h\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_hung_up_on(shared, data):
    said = shared.raw(data)
    assert first(said).split(b" ")[1] in (b"400", b"404", b"405", b"505"), first(said)
    assert b"nosniff" in said


def test_an_upgrade_is_passed_over(shared):
    said = shared.raw(request("GET", "/healthz", "Connection: upgrade, close", "Upgrade: websocket"))
    assert first(said) == b"HTTP/1.1 200 OK"


def test_header_injection(shared):
    """Nothing that somebody sends comes back in a header, but for a file's name, of which only letters are left."""
    said = shared.get("/api/v1/exports/usage?run=a%22%3B%20b%3D%22c", role="auditor")
    assert said.headers["content-disposition"] == 'attachment; filename="flopmeter-usage-a-b-c.csv"'
    assert shared.get("/api/v1/exports/usage?run=a%0d%0ab", role="auditor").status == 400


# --- too large ---


def test_a_head_that_is_too_large(shared):
    said = shared.raw(request("GET", "/healthz", f"X: {'a' * (MAX_HEAD_BYTES + 70_000)}"))
    assert first(said).split(b" ")[1] == b"431"
    many = shared.raw(request("GET", "/healthz", *(f"X-{n}: 1" for n in range(20_000))))
    assert first(many).split(b" ")[1] == b"431"


def test_a_body_that_is_too_large_is_refused_before_it_is_read(shared):
    for path, size in (("/api/v1/session", 1 << 20), ("/api/v1/events/e/answers", 1 << 30)):
        headers = (
            f"Content-Length: {size}",
            "Content-Type: application/json",
            f"Authorization: Bearer {shared.token('operator')}",
        )
        said = shared.raw(request("POST", path, *headers, "Expect: 100-continue"))
        assert first(said).split(b" ")[1] == b"413", path
        assert b"connection: close" in said.lower()
    verify = (
        f"Content-Length: {33 << 20}",
        "Content-Type: application/octet-stream",
        f"Authorization: Bearer {shared.token()}",
    )
    assert (
        first(shared.raw(request("POST", "/api/v1/verify", *verify, "Expect: 100-continue"))).split(b" ")[1]
        == b"413"
    )


def test_a_body_that_grows_too_large_while_it_is_read(shared):
    chunks = b"10000\r\n" + b"x" * 65_536 + b"\r\n" + b"10000\r\n" + b"x" * 65_536 + b"\r\n0\r\n\r\n"
    headers = ("Transfer-Encoding: chunked", "Content-Type: application/json")
    said = shared.raw(request("POST", "/api/v1/session", *headers, body=chunks))
    assert first(said).split(b" ")[1] == b"413"


def test_a_file_to_verify_arrives_whole(shared):
    said = shared.post(
        "/api/v1/verify", b"x" * (8 << 20), role="auditor", Content_Type="application/octet-stream"
    )
    assert said.json["body"] == 8 << 20


def test_a_body_that_does_not_come_is_408(shared, monkeypatch):
    monkeypatch.setattr("flopmeter.collector.web.api.JSON_S", 0.2)
    headers = ("Content-Type: application/json", "Content-Length: 100")
    said = shared.raw(request("POST", "/api/v1/session", *headers, body=b'{"tok'))
    assert first(said).split(b" ")[1] == b"408"
    assert b"connection: close" in said.lower()


def test_half_a_body_is_no_question(shared):
    with socket.create_connection(("127.0.0.1", shared.server.port), timeout=60) as raw:
        raw.sendall(
            request(
                "POST",
                "/api/v1/session",
                "Content-Length: 100",
                "Content-Type: application/json",
                body=b'{"tok',
            )
        )
        raw.shutdown(socket.SHUT_WR)
        until_end(raw)
    assert shared.get("/healthz").status == 200


def test_pipelined_requests_are_answered_in_order(shared):
    said = shared.raw(
        request("GET", "/healthz") + request("GET", "/readyz") + request("GET", "/none", "Connection: close")
    )
    assert ANSWER.findall(said) == [b"200", b"200", b"404"]
