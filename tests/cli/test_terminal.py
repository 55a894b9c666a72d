"""What the output can show: decided in one place, and held to by every command that prints for people."""

import json
import os
import subprocess
import sys

import pytest

from flopmeter.cli.terminal import Terminal

RUN = [sys.executable, "-c", "from flopmeter.cli.main import main; main()"]
#: Prints what pages are made of, through click as every command does.
SAY = "from flopmeter.cli.terminal import fall_back; fall_back(); import click; click.echo({!r})"
PIECES = "● running ─━◆━┃ ▁▄█ 3 × 10^25 ± 30 % … −5 ≤ 7"


def said(code: str, **environ: str) -> bytes:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environ, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("environ", [{}, {"LANG": "C.UTF-8"}, {"LC_ALL": "C.UTF-8"}, {"LANG": "C"}])
def test_what_can_be_shown_is(environ):
    assert said(SAY.format(PIECES), **environ).decode() == PIECES + "\n"


@pytest.mark.parametrize("environ", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}])
def test_what_cannot_be_shown_has_a_lookalike_of_its_width(environ):
    shown = said(SAY.format(PIECES), **environ).decode("ascii")
    assert shown == "* running -=#=| _-# 3 x 10^25 +- 30 % . -5 <= 7\n"


def test_what_has_no_lookalike_is_shown_by_its_code_point_and_never_kills():
    assert said(SAY.format("run-漢-😀"), LC_ALL="C") == b"run-\\u6f22-\\U0001f600\n"
    assert said(SAY.format("Zürich ●"), PYTHONIOENCODING="latin-1") == "Zürich *\n".encode("latin-1")


def test_json_stays_json_where_the_encoding_is_poor():
    code = "from flopmeter.cli.terminal import fall_back; fall_back()\nfrom flopmeter.cli.output import emit_json\nemit_json({})"
    text = said(code.format({"run": "漢 … ●"}), LC_ALL="C")
    assert text.isascii()
    assert json.loads(text) == {"run": "漢 … ●"}


def test_the_command_line_falls_back():
    """`main` is where it is switched on."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIO"))}
    words = [*RUN, "estimate", "hardware", "--units", "512", "--hours", "300", "--sku", "H100 SXM"]
    for environ, ascii_only in (({"LC_ALL": "C"}, True), ({"LC_ALL": "C.UTF-8"}, False)):
        done = subprocess.run(
            [*words, "--utilisation", "0.4"],
            env=kept | environ,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii() == ascii_only


@pytest.mark.parametrize(
    ("isatty", "environ", "live", "color"),
    [
        (True, {"TERM": "xterm"}, True, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (True, {"TERM": "dumb"}, False, False),
        (True, {}, False, False),
        (False, {"TERM": "xterm"}, False, False),
    ],
)
def test_colour_only_on_a_terminal_that_wants_it(isatty, environ, live, color):
    terminal = Terminal.of(isatty=isatty, encoding="utf-8", environ=environ)
    assert (terminal.live, terminal.color) == (live, color)
