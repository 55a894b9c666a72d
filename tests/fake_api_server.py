"""An API server: TLS, a bearer token, objects by path; slow, broken and refusing on order."""

import contextlib
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: A self-signed certificate for 127.0.0.1 that nobody but these tests trusts, without key identifiers, as
#: clusters of kubeadm have them.
TLS = Path(__file__).parent / "tls"


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for what is being answered

    def finish_request(self, request: Any, client_address: Any) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(TLS / "server.crt", TLS / "server.key")
        with contextlib.suppress(OSError), context.wrap_socket(request, server_side=True) as tls:
            self.RequestHandlerClass(tls, client_address, self)


class FakeApiServer:
    """Attributes without an underscore are orders, and what was seen."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, Any] = {}  # path without query -> object, bytes, or status
        self.asked: list[str] = []
        self.accepts: list[str] = []
        self.hold = threading.Event()  # cleared: answers wait for it
        self.hold.set()
        self.account = folder
        (folder / "ca.crt").write_bytes((TLS / "server.crt").read_bytes())
        self.token = "first"
        self.write_token("first")
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def environ(self) -> dict[str, str]:
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def write_token(self, token: str) -> None:
        (self.account / "token").write_text(token + "\n")

    def pod(self, namespace: str, name: str, uid: str, **metadata: Any) -> None:
        whole = {"namespace": namespace, "name": name, "uid": uid, **metadata}
        self.objects[f"/api/v1/namespaces/{namespace}/pods/{name}"] = {
            "kind": "PartialObjectMetadata",
            "metadata": whole,
        }

    def close(self) -> None:
        self.hold.set()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                api.asked.append(self.path)
                api.accepts.append(self.headers["Accept"])
                api.hold.wait()
                found = api.objects.get(path, 404)
                if self.headers["Authorization"] != f"Bearer {api.token}":
                    found = 401
                body = b"{}"
                if isinstance(found, bytes):
                    status, body = 200, found
                elif isinstance(found, int):
                    status = found
                else:
                    status, body = 200, json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the client may have had enough
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        return Handler
