"""The web page of a demo: where it is served, the token that opens it, and whether a browser is there to show it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from flopmeter.collector.access.desk import Desk
from flopmeter.collector.access.tokens import ADMIN

HOST, PORT = "127.0.0.1", 9841  # as of `flopmeter collector serve`
#: What says that the terminal is on another machine than the person, or that there is no person.
_ELSEWHERE = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "CI")


def address() -> str:
    """The usual address, or one with any free port if something has that."""
    try:
        with socket.create_server((HOST, PORT)):
            return f"{HOST}:{PORT}"
    except OSError:
        return f"{HOST}:0"


def link(http_address: str, store: Path, unix_ns: Callable[[], int]) -> str:
    """Where the page opens without a question: it takes the token behind # and removes it from the address bar.

    What stands behind # is sent to nobody. The token is the store's, and good for as long as that is there.
    """
    text, _ = Desk(store, None, unix_ns).make_api_token(
        role=ADMIN, name="demo", lasts_s=0, who="flopmeter demo"
    )
    return f"http://{http_address}/#token={text}"


def opener(
    environ: Mapping[str, str],
    *,
    on_terminal: bool,
    platform: str = sys.platform,
    which: Callable[[str], str | None] = shutil.which,
) -> str | None:
    """The program that shows a link to the person in front of this terminal; None: there is no desktop, or nobody."""
    if not on_terminal or any(environ.get(name) for name in _ELSEWHERE):
        return None
    if platform == "darwin":
        return which("open")
    if not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
        return None
    return which("xdg-open")


def show(url: str) -> bool:
    """Whether a browser was asked to show it: on a desktop, in front of a terminal, and nowhere else."""
    program = opener(os.environ, on_terminal=sys.stdout.isatty())
    if program is None:
        return False
    with contextlib.suppress(OSError):
        subprocess.Popen(  # noqa: S603 - a program of the desktop, and our own link
            [program, url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return True
    return False
