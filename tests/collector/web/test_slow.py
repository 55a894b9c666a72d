"""Clients that are slow, and too many of them: cut off, and nobody else waits for them."""

import socket
import struct

import pytest
from edge_rig import edge, request, until_end
from processes import wait_for

from flopmeter.collector.web.edge_protocol import Limits
from flopmeter.collector.web.places import MAX_CONNECTIONS, MAX_OF_ONE, RESERVED, Places


@pytest.fixture
def hasty(tmp_path, request):
    """One that gives a client a second for what the test is about, so that a busy machine is not slow with the rest."""
    with edge(tmp_path, limits=Limits(**request.param)) as rig:
        yield rig


def a_second_for(**limit):
    return pytest.mark.parametrize("hasty", [limit], indirect=True, ids=limit)


# --- too slow ---


@a_second_for(head_s=1.0)
def test_a_client_that_says_nothing_is_hung_up_on(hasty):
    assert hasty.raw(b"") == b""


@a_second_for(head_s=1.0)
def test_a_head_that_drips_is_cut_off(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=60) as raw:
        raw.settimeout(0.1)
        wait_for("cut off", lambda: not dripped(raw, b"G"))


@a_second_for(head_s=1.0)
def test_a_second_head_that_drips_is_cut_off_too(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=60) as raw:
        raw.sendall(request("GET", "/healthz"))
        assert raw.recv(65_536).startswith(b"HTTP/1.1 200 ")
        raw.settimeout(0.1)
        wait_for("cut off", lambda: not dripped(raw, b"G"))


@a_second_for(body_s=1.0)
def test_a_body_that_drips_is_cut_off(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=60) as raw:
        raw.sendall(
            request("POST", "/api/v1/session", "Content-Type: application/json", "Content-Length: 60000")
        )
        raw.settimeout(0.1)
        wait_for("cut off", lambda: not dripped(raw, b"x"))


def dripped(raw, letter):
    """Send a letter; whether the connection still stands."""
    try:
        raw.sendall(letter)
        return raw.recv(65_536) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


@a_second_for(unread_s=1.0)
def test_a_client_that_does_not_read_its_answer_is_cut_off(hasty):
    """… and the places, and the command that makes the file, are free again."""
    token = f"Authorization: Bearer {hasty.token()}"
    for path in ("/api/v1/runs/large", "/api/v1/exports/usage?run=endless"):
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            raw.settimeout(60)
            raw.connect(("127.0.0.1", hasty.server.port))
            raw.sendall(request("GET", path, token))
            assert raw.recv(1) == b"H"
            wait_for("its place is free", lambda: hasty.server._edge.places.taken == 0)
    assert hasty.get("/healthz").status == 200


def test_a_client_that_goes_in_the_middle_is_no_news(tmp_path, caplog):
    with edge(tmp_path) as rig:
        in_the_middle(rig)
    assert [r.getMessage() for r in caplog.records] == []


def in_the_middle(rig):
    token = f"Authorization: Bearer {rig.token()}"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", rig.server.port), timeout=60) as raw:
            raw.sendall(request("GET", "/api/v1/runs/large", token))
            assert raw.recv(1) == b"H"
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, at once
    wait_for("their places are free", lambda: rig.server._edge.places.taken == 0)


@a_second_for(idle_s=1)
def test_an_idle_connection_is_hung_up_on(hasty):
    with socket.create_connection(("127.0.0.1", hasty.server.port), timeout=60) as raw:
        raw.sendall(request("GET", "/healthz"))
        assert until_end(raw).startswith(b"HTTP/1.1 200 ")  # to the end, which comes by itself


# --- too many ---


def test_one_address_has_so_many_connections_and_a_probe_finds_a_place(tmp_path):
    places = Places(total=8, of_one=6)
    with edge(tmp_path, places=places) as rig:
        held = [socket.create_connection(("127.0.0.1", rig.server.port), timeout=60) for _ in range(6)]
        try:
            wait_for("they are taken", lambda: places.taken >= 4)
            assert until_end(held[-1]) == b""  # hung up on at once
        finally:
            for connection in held:
                connection.close()
        wait_for("they are free again", lambda: places.taken == 0)
        assert rig.get("/healthz").status == 200


def test_places():
    places = Places()
    assert sum(places.take("a") for _ in range(MAX_CONNECTIONS)) == MAX_OF_ONE
    for address in "bcde":
        while places.take(address):
            pass
    assert places.taken <= MAX_CONNECTIONS - RESERVED + 5 * 4
    assert places.take("probe")
    for address, held in list(places._open.items()):
        for _ in range(held):
            places.leave(address)
    assert (places.taken, places._open) == (0, {})
