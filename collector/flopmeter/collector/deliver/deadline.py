"""A bound on a whole conversation: a peer that sends a byte now and then keeps no timeout of a single read from passing."""

import contextlib
import os
import socket
import threading
from types import TracebackType
from typing import Self


class Deadline:
    """Cuts a connection when its time is over; whoever reads or writes then gets an error, and `passed` says why.

    It holds a descriptor of its own, so that a TLS layer may take the socket over.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.passed = False
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def _cut(self) -> None:
        self.passed = True
        with contextlib.suppress(OSError):  # it ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._timer.join()
        self._socket.close()
