"""The collector's HTTP edge: /healthz, /readyz, /metrics on the standard library's threading server."""

import logging
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .metrics_page import CollectorMetrics

if TYPE_CHECKING:
    from .access.api import Api

log = logging.getLogger(__name__)
#: A request that takes longer to arrive is cut off.
REQUEST_TIMEOUT_S = 10


class HttpServer:
    """Serves in a daemon thread of its own until `stop`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        metrics: CollectorMetrics,
        alive: Callable[[], bool],
        ready: Callable[[], bool],
        api: "Api | None" = None,
    ) -> None:
        """Bind and serve. Raises OSError. All of them are asked in the request's own thread."""
        registry = CollectorRegistry()
        registry.register(metrics)
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=registry)

        def answer(path: str) -> tuple[int, str, bytes]:
            if path == "/healthz":
                good = alive()
                return (
                    (200 if good else 503),
                    "text/plain",
                    b"ok\n" if good else b"the event loop or the writer is stuck\n",
                )
            if path == "/readyz":
                good = ready()
                return (
                    (200 if good else 503),
                    "text/plain",
                    b"ok\n" if good else b"records are not being committed\n",
                )
            if path == "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
            return 404, "text/plain", b"expected /healthz, /readyz or /metrics\n"

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S
            server_version = "flopmeter"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                headers: Mapping[str, str] = {}
                if api is not None and path.startswith("/api/"):
                    said = api.answer(path, self.headers.get("Authorization"), self.client_address[0])
                    status, kind, body, headers = said.status, said.kind, said.body, said.headers
                else:
                    status, kind, body = answer(path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                log.debug(format, *args)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="flopmeter-http",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
