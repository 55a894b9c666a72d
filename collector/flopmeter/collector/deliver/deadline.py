"""Bounds on a whole conversation, in time and in bytes: one of a single read is no bound on a peer that drips, or floods."""

import io
import socket
import time
from typing import Any

#: What a peer may say in one conversation: headers, replies, and what is read of a reason.
MAX_BYTES = 1 << 18


class Deadline:
    """Counts down from when it is made."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._until

    def left_s(self) -> float:
        """Raises TimeoutError when nothing is left."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class Bounded(io.RawIOBase):
    """A connection, as http.client and smtplib use one: each wait is what is left of the deadline.

    It closes nothing: whoever opened the connection closes it.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._connection, self._deadline = connection, deadline
        self._heard = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._deadline.left_s())
        count = self._connection.recv_into(buffer)
        self._heard += count
        if self._heard > MAX_BYTES:
            raise OSError(f"it said more than {MAX_BYTES} bytes")
        return count

    def sendall(self, data: Any) -> None:
        self._connection.settimeout(self._deadline.left_s())  # of all of it, not of each part
        self._connection.sendall(data)

    def close(self) -> None:
        """http.client closes what it reads, and what it reads that by, in either order."""

    def makefile(self, _mode: str = "rb") -> io.BufferedReader:
        return io.BufferedReader(self)
