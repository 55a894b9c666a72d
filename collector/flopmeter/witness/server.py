"""The witness's HTTP edge: POST /add-checkpoint, GET /<origin hash>/checkpoint, GET /healthz. TLS, and bounds on everybody.

Each connection has a thread, of which there are few; each request has a deadline that a peer who drips cannot move.
"""

import contextlib
import io
import logging
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .errors import UsageError
from .request import MAX_BODY_BYTES
from .witness import Answer, Witness

log = logging.getLogger(__name__)

#: A request, and a TLS handshake, must have arrived within this time, and an answer must have been taken.
REQUEST_S = 10.0
#: How long a connection may stand idle between two requests (keep-alive).
IDLE_S = 30.0
#: Of one request, its headers included; what the standard library reads of these by itself is 6.5 MB.
MAX_REQUEST_BYTES = MAX_BODY_BYTES + 65_536
#: Connections at once; one more is closed unanswered. A log asks once a minute.
MAX_CONNECTIONS = 64
#: How long `stop` waits for requests that run.
STOP_S = 5.0


class WitnessServer:
    """Listens from when it is made; serves from `start` in a thread of its own, until `stop`."""

    def __init__(
        self,
        witness: Witness,
        host: str,
        port: int,
        *,
        tls: "Certificate | None" = None,
        request_s: float = REQUEST_S,
        idle_s: float = IDLE_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """Raises OSError if it cannot listen there."""
        handler = type(
            "Handler", (_Handler,), {"witness": witness, "tls": tls, "request_s": request_s, "idle_s": idle_s}
        )
        self._server = _Server((host, port), handler, max_connections)
        self.port: int = self._server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="flopmeter-witness",
            daemon=True,
        )

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more, let what runs end (a few seconds at most), close."""
        if self._thread.ident is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.drain(STOP_S)


class Certificate:
    """A TLS certificate and its key, read again when the file has changed (certificates are renewed on disk)."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises UsageError."""
        self._cert, self._key, self._lock = cert, key, threading.Lock()
        try:
            self._seen, self._context = self._stamp(), self._read()
        except (OSError, ssl.SSLError) as e:
            raise UsageError(
                f"--tls-cert {cert}, --tls-key {key}: expected a certificate chain and its key (PEM): {e}",
                "name two readable PEM files that belong together",
            ) from e

    def context(self) -> ssl.SSLContext:
        """For the next connection. What cannot be read leaves the last good one in use, and is said."""
        with self._lock:
            try:
                if (stamp := self._stamp()) != self._seen:
                    self._seen = stamp
                    self._context = self._read()
                    log.info("TLS certificate %s: read again", self._cert)
            except (OSError, ssl.SSLError) as e:
                log.error(  # noqa: TRY400 - what is wrong is said, and nothing of ours broke
                    "TLS certificate %s: cannot be read again, the last one stays in use: %s", self._cert, e
                )
            return self._context

    def _read(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._cert, self._key)
        return context

    def _stamp(self) -> tuple[int, ...]:
        found = [path.stat() for path in (self._cert, self._key)]
        return tuple(n for f in found for n in (f.st_mtime_ns, f.st_ino, f.st_size))


class _Bounded(io.RawIOBase):
    """Reads of a connection: its waits together are no longer than what is left of `until`, its bytes no more than `left`."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection
        self.until, self.left = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        count = self._connection.recv_into(buffer)
        self.left -= count
        if self.left < 0:
            raise ConnectionAbortedError("a request of too many bytes")
        return count


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    witness: Witness
    tls: Certificate | None
    request_s: float
    idle_s: float
    protocol_version = "HTTP/1.1"  # keep-alive, which C2SP tlog-witness asks for
    server_version = "flopmeter-witness"
    sys_version = ""

    def setup(self) -> None:
        self.request.settimeout(self.request_s)
        if self.tls is not None:  # in this thread: a peer that never shakes hands holds up nobody else
            plain = self.request
            self.request = self.tls.context().wrap_socket(plain, server_side=True)
            self.server.replace(plain, self.request)
        super().setup()
        self._wire = _Bounded(self.request)
        self.rfile: io.BufferedReader = io.BufferedReader(self._wire)

    def handle_one_request(self) -> None:
        self._wire.until, self._wire.left = time.monotonic() + self.idle_s, MAX_REQUEST_BYTES
        try:
            if not self.rfile.peek(1):
                self.close_connection = True
                return
        except OSError:  # idle for too long, or gone
            self.close_connection = True
            return
        self._wire.until = time.monotonic() + self.request_s
        super().handle_one_request()  # closes on TimeoutError

    def do_POST(self) -> None:
        if self.path != "/add-checkpoint":
            self._refuse(404, b"expected POST /add-checkpoint\n")
            return
        if "Transfer-Encoding" in self.headers:
            self._refuse(411, b"expected a body with Content-Length\n")
            return
        lengths = self.headers.get_all("Content-Length", [])
        length = lengths[0].strip() if len(lengths) == 1 else ""
        if not (length.isascii() and length.isdecimal() and len(length) < 10):
            self._refuse(411, b"expected one Content-Length\n")
            return
        if int(length) > MAX_BODY_BYTES:
            self._refuse(413, b"expected at most %d bytes\n" % MAX_BODY_BYTES)
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):  # it hung up
            self.close_connection = True
            return
        self._answer(self.witness.add_checkpoint(body))

    def do_GET(self) -> None:
        if self.path == "/healthz":
            good = self.witness.healthy()
            self._answer(Answer(200, b"ok\n") if good else Answer(503, b"the state cannot be read\n"))
            return
        origin_hash = self.path.removeprefix("/").removesuffix("/checkpoint")
        self._answer(
            self.witness.checkpoint(origin_hash)
            if self.path == f"/{origin_hash}/checkpoint"
            else Answer(404, b"expected /add-checkpoint, /<origin hash>/checkpoint or /healthz\n")
        )

    def _refuse(self, status: int, text: bytes) -> None:
        """Without having read the body: what follows on this connection is not a request."""
        self.close_connection = True
        self._answer(Answer(status, text))

    def _answer(self, answer: Answer) -> None:
        self.request.settimeout(self.request_s)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        log.debug("%s: %s", self.client_address[0], format % args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # `drain` waits, but not for ever
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: Any, max_connections: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._free = threading.BoundedSemaphore(max_connections)
        self._open: dict[int, socket.socket] = {}  # by the id of the socket that was accepted
        self._changed = threading.Condition()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            log.warning("too many connections: one from %s is closed unanswered", client_address[0])
            self.shutdown_request(request)
            return
        with self._changed:
            self._open[id(request)] = request
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._ended(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._ended(request)

    def replace(self, plain: socket.socket, wrapped: socket.socket) -> None:
        """TLS took over a connection's descriptor."""
        with self._changed:
            self._open[id(plain)] = wrapped

    def _ended(self, request: socket.socket) -> None:
        with self._changed:
            if (last := self._open.pop(id(request), None)) is not None:
                last.close()
            self._changed.notify_all()
        self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, OSError):  # the peer's connection, or its TLS: nothing of ours
            log.debug("%s: %s", client_address[0], error)
        else:
            log.error("a request from %s failed", client_address[0], exc_info=error)

    def drain(self, seconds: float) -> None:
        """Wait for requests that run; connections that stand idle are cut."""
        with self._changed:
            for (
                connection
            ) in self._open.values():  # no more to read: an idle keep-alive ends, an answer still leaves
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._open, seconds)
