"""`agent top` on a real terminal (a pty): keys, a new size, Ctrl-Z under a shell, and what is left behind at the end."""

import os
import re
import shutil
import signal
import sys

import pytest
from terminals import Terminal

from flopmeter.cli.keyboard import ENTER, LEAVE, keys_of

PROGRAM = "from flopmeter.cli.main import main; main()"
TOP = ("agent", "top", "--source", "sim", "--tick", "0.25", "--state", "/nonexistent")


@pytest.fixture
def on_terminal():
    opened = []

    def start(*argv, **options):
        opened.append(Terminal(list(argv), **options))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


@pytest.mark.e2e
def test_keys_a_new_size_and_the_end(on_terminal):
    t = on_terminal(sys.executable, "-c", PROGRAM, *TOP)
    lines = t.shows("q quit").split("\r\n")
    assert t.seen.startswith(ENTER)
    assert len(lines) == 24
    assert max(map(len, lines)) <= 80
    assert "\x1b[32m" in t.raw or "\x1b[2m" in t.raw
    assert t.modes() == (False, False)
    t.press("s")
    t.shows("sort: tensor")
    t.press("?")
    t.shows("how good the figures are")
    t.press("j")  # any key closes it
    t.until(lambda t: "how good" not in t.screen, "the help closed")
    t.press("p")
    paused = t.shows("PAUSED")
    t.press("p")
    t.until(lambda t: t.screen and "PAUSED" not in t.screen, "going on")
    assert "paused" in paused
    t.resize(200, 8)
    t.until(lambda t: "fp64" in t.screen and "1-5 of 8" in t.screen, "the wide screen")
    assert len(t.screen.split("\r\n")) == 8
    t.press("\x1b[B")
    t.shows("2-6 of 8")
    t.press("G")
    t.shows("4-8 of 8")
    t.resize(80, 3)
    t.until(lambda t: len(t.screen.split("\r\n")) == 3, "a very small one")
    t.press("q")
    assert t.ended() == 0
    assert t.seen.endswith(LEAVE)
    assert t.modes() == (True, True)


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["interrupt", "terminate"])
def test_the_terminal_is_given_back_when_it_is_stopped(on_terminal, how):
    t = on_terminal(sys.executable, "-c", PROGRAM, *TOP)
    t.shows("q quit")
    if how == "interrupt":
        t.press("\x03")
    else:
        os.kill(t.pid, signal.SIGTERM)
    assert t.ended() == 0
    assert t.seen.endswith(LEAVE)
    assert t.modes() == (True, True)


@pytest.mark.e2e
def test_ctrl_z_gives_the_shell_its_terminal_and_fg_takes_it_again(on_terminal):
    bash = shutil.which("bash")
    assert bash is not None
    t = on_terminal(bash, "--norc", "--noprofile", "--noediting", "-i", PS1="$ ")
    t.until(lambda t: "$ " in t.seen, "the prompt")
    t.press(f"{sys.executable} -c '{PROGRAM}' {' '.join(TOP)}\n")
    t.shows("q quit")
    t.press("\x1a")
    t.until(lambda t: "Stopped" in t.seen, "that it is stopped")
    assert t.seen.rfind(LEAVE) > t.seen.rfind(ENTER)
    assert t.modes()[0]
    before = len(t.seen)
    t.press("fg\n")
    t.until(lambda t: ENTER in t.seen[before:] and "q quit" in t.screen, "that it goes on")
    t.until(lambda t: t.modes() == (False, False), "single keys again")
    t.press("q")
    t.until(lambda t: t.seen.rfind(LEAVE) > before, "the end")
    t.press("exit\n")
    assert t.ended() == 0


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("environ", "colour", "ascii_only"),
    [
        ({"NO_COLOR": "1"}, False, False),
        ({"LC_ALL": "C"}, True, True),
        ({"NO_COLOR": "1", "LC_ALL": "C"}, False, True),
    ],
)
def test_no_color_and_a_plain_locale(on_terminal, environ, colour, ascii_only):
    t = on_terminal(sys.executable, "-c", PROGRAM, *TOP, **environ)
    t.until(lambda t: t.screen.count("sim-pretrain") == 8 and "A2" in t.screen, "a row of figures")
    assert bool(re.search(r"\x1b\[[0-9;]+m", t.raw)) == colour
    assert t.raw.isascii() == ascii_only
    t.press("q")
    assert t.ended() == 0


@pytest.mark.e2e
def test_a_dumb_terminal_gets_lines_and_no_escapes(on_terminal):
    t = on_terminal(sys.executable, "-c", PROGRAM, *TOP, TERM="dumb")
    t.until(lambda t: t.seen.count("TFLOP/s (range)") == 2, "two rounds")
    os.kill(t.pid, signal.SIGTERM)
    assert t.ended() == 0
    assert "\x1b" not in t.seen


def test_keys_by_what_terminals_send():
    assert keys_of(b"jq") == ["j", "q"]
    assert keys_of(b"\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[H\x1b[4~") == [
        "up", "down", "page-up", "page-down", "first", "last",
    ]  # fmt: skip
    assert keys_of(b"\x1b[200~q\x1b[1;5Cs") == ["q", "s"]  # pasted, and Ctrl with an arrow: no keys of ours
    assert keys_of("äq".encode()) == ["q"]
    assert keys_of(b"\x1b") == ["escape"]
