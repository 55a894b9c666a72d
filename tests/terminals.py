"""A program on a pty, as a person sees it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from contextlib import suppress

DEADLINE_S = 60
_ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_OURS = ("NO_COLOR", "COLUMNS", "LINES", "TERM", "LC_ALL", "PYTHONUTF8", "PYTHONIOENCODING")


class Terminal:
    """A program on a pty. `screen` is what it drew last."""

    def __init__(self, argv, columns=80, lines=24, **environ):
        kept = {k: v for k, v in os.environ.items() if k not in _OURS}
        environ = {**kept, "TERM": "xterm", **environ}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.execve(argv[0], argv, environ)
            finally:
                os._exit(127)
        self.resize(columns, lines)
        self.seen = ""

    def resize(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def until(self, wanted, what=""):
        """Read on until `wanted(self)`."""
        end = time.monotonic() + DEADLINE_S
        while not wanted(self):
            left = end - time.monotonic()
            assert left > 0, f"never saw {what or wanted}; the end was {self.seen[-2000:]!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 65_536)
                except OSError:
                    data = b""
                assert data or wanted(self), f"ended before {what}: {self.seen[-2000:]!r}"
                self.seen += data.decode(errors="replace")

    def shows(self, text):
        self.until(lambda t: text in t.screen, text)
        return self.screen

    @property
    def raw(self):
        """The last whole frame as it was written."""
        end = self.seen.rfind("\x1b[K\x1b[J")
        whole = self.seen[: max(end, 0)]  # of half a first frame nothing
        return whole[whole.rfind("\x1b[H") :] if "\x1b[H" in whole else ""

    @property
    def screen(self):
        return _ANSI.sub("", self.raw)

    def modes(self):
        """(echo, line by line) of the terminal."""
        flags = termios.tcgetattr(self.fd)[3]
        return bool(flags & termios.ECHO), bool(flags & termios.ICANON)

    def ended(self):
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                with suppress(OSError):
                    self.seen += os.read(self.fd, 65_536).decode(errors="replace")
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("it did not end")

    def close(self):
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
