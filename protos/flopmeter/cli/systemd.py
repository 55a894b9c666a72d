"""Telling systemd how we are (sd_notify(3)): a datagram to the socket it names. Nothing where there is none.

For agent and collector alike: what a unit of Type=notify asks of either is the same.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """READY, WATCHDOG and STOPPING for a unit of Type=notify."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        usec = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Half the time that systemd allows, as sd_watchdog_enabled(3) asks.
        self.beat_s = int(usec) / 2e6 if usec.isdigit() and ours else 0.0  # 0 = nobody asks
        self._beaten_s = 0.0

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={status}")

    def beat(self) -> None:
        """The loop turns. Cheap: sends only when half of the watchdog's time has passed."""
        now = time.monotonic()
        if self.beat_s and now - self._beaten_s >= self.beat_s / 2:
            self._beaten_s = now
            self._send("WATCHDOG=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # systemd gone or its socket full: nothing depends on it but its own view of us.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s,
        ):
            s.setblocking(False)
            s.sendto(text.encode(), self._address)
