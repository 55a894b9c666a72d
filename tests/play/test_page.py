"""Whether a demo opens a browser, and where it serves its page."""

import socket

import pytest

from flopmeter.play import page
from flopmeter.play.page import opener

DESKTOP = {"DISPLAY": ":0"}


def which(name: str) -> str:
    return f"/usr/bin/{name}"


@pytest.mark.parametrize("environ", [DESKTOP, {"WAYLAND_DISPLAY": "wayland-0"}])
def test_on_a_desktop_in_front_of_a_terminal(environ) -> None:
    assert opener(environ, on_terminal=True, platform="linux", which=which) == "/usr/bin/xdg-open"
    assert opener({}, on_terminal=True, platform="darwin", which=which) == "/usr/bin/open"


@pytest.mark.parametrize(
    ("environ", "on_terminal"),
    [
        (DESKTOP, False),
        ({}, True),
        ({"DISPLAY": ""}, True),
        *[({**DESKTOP, name: "x"}, True) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "CI")],
    ],
)
def test_nowhere_else(environ, on_terminal) -> None:
    assert opener(environ, on_terminal=on_terminal, platform="linux", which=which) is None
    if not on_terminal or len(environ) > 1:
        assert opener(environ, on_terminal=on_terminal, platform="darwin", which=which) is None


def test_a_desktop_without_the_program_is_none() -> None:
    assert opener(DESKTOP, on_terminal=True, platform="linux", which=lambda _: None) is None


def test_a_program_that_does_not_start_is_no_fault(monkeypatch) -> None:
    monkeypatch.setattr(page, "opener", lambda *_, **__: "/no/such/program")
    assert page.show("http://127.0.0.1:1/") is False


def test_it_takes_another_port_where_the_usual_one_is_taken(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(page, "PORT", taken.getsockname()[1])
        assert page.address() == "127.0.0.1:0"
    assert page.address() == f"127.0.0.1:{page.PORT}"
