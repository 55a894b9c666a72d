"""One page over HTTP, whatever the server does: within its time, within its size, and whole, or an error."""

import contextlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Self

from flopmeter.agent.errors import SourceError


class _Deadline:
    """Cuts the connections of one GET when its time is over: whoever waits for the next byte waits no longer.

    A socket's own timeout is of one byte, so that a server which drips its headers could hold a GET for ever.
    """

    def __init__(self, timeout_s: float) -> None:
        self.over = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, connected: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connected)
        if self.over:
            self._cut()

    def _cut(self) -> None:
        self.over = True
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):  # closed meanwhile
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # of TLS too: not its own, which waits

    def opener(self) -> urllib.request.OpenerDirector:
        """Without a proxy: it is the node's own exporter."""
        watch = self.watch

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                watch(self.sock)

        class Tls(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                watch(self.sock)

        class PlainHandler(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, req)

        class TlsHandler(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Tls, req)

        return urllib.request.build_opener(urllib.request.ProxyHandler({}), PlainHandler, TlsHandler)


def fetch_page(url: str, timeout_s: float, limit: int) -> bytes:
    """GET `url`, within `timeout_s` in all and never holding more than `limit` bytes. Raises SourceError."""
    with _Deadline(timeout_s) as deadline:
        try:
            page = _fetch(url, timeout_s, limit, deadline)
        except SourceError as e:
            if not deadline.over:
                raise
            raise SourceError(f"timed out after {timeout_s} s: {e}") from e
    if deadline.over:  # what was cut may look like a page that ended
        raise SourceError(f"timed out after {timeout_s} s, {len(page)} bytes came")
    if page and not page.endswith(b"\n"):  # the format asks for it: half a number would be another number
        raise SourceError("cut off: the last line of the page has no end")
    return page


def _fetch(url: str, timeout_s: float, limit: int, deadline: _Deadline) -> bytes:
    opener = deadline.opener()
    chunks: list[bytes] = []
    size = 0
    try:
        request = urllib.request.Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310
        with opener.open(request, timeout=timeout_s) as response:
            if response.status != HTTPStatus.OK:
                raise SourceError(f"expected a page, got status {response.status}")
            while chunk := response.read1(1 << 16):
                size += len(chunk)
                if size > limit:
                    raise SourceError(f"expected a page of at most {limit} bytes, got more")
                chunks.append(chunk)
            if response.length:  # bytes promised that did not come: half a page would look like lost GPUs
                raise SourceError(f"cut off: {response.length} bytes of the page are missing")
    except urllib.error.URLError as e:
        raise SourceError(str(getattr(e, "reason", e) or e)) from e
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise SourceError(str(e) or type(e).__name__) from e
    return b"".join(chunks)
