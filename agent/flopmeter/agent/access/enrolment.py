"""The client's end of enrolment: HTTPS and JSON, a connection per request (docs/identity.md)."""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from flopmeter.contract.enrolment import MAX_ENROL_BYTES
from flopmeter.contract.limits import MAX_TEXT_CHARS

from .state import IdentityError

TIMEOUT_S = 20.0
#: Refusals that pass by themselves (docs/identity.md); every other needs somebody.
_PASSING = frozenset({408, 429, 503})


def fetch_ca(host: str, port: int) -> tuple[str, str]:
    """(authority in PEM, trust domain) as whoever answers there says. Nothing is verified, so nothing is told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    data = _ask(_Connection((host, port), context, ""), "GET", "/ca")
    return _text(data, "ca_pem"), _text(data, "trust_domain")


class Enrolment:
    """Requests to a server whose certificate the pinned authority must have signed."""

    def __init__(self, host: str, port: int, ca_pem: str, server_name: str = "") -> None:
        """`server_name`: that of its certificate, if it is another than `host`."""
        self._address, self._name = (host, port), server_name or host
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_verify_locations(cadata=ca_pem)

    def nonce(self) -> bytes:
        """Good for one request."""
        text = _text(self._ask("GET", "/nonce"), "nonce")
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise IdentityError("enrolment: the collector's nonce is not hexadecimal") from None

    def post(self, path: str, request: Mapping[str, str]) -> dict[str, Any]:
        return self._ask("POST", path, json.dumps(request).encode())

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        return _ask(_Connection(self._address, self._context, self._name), method, path, body)


class _Connection(http.client.HTTPSConnection):
    """Verifies another name than it dials, where asked to."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, name: str) -> None:
        super().__init__(*address, timeout=TIMEOUT_S, context=context)
        self._tls, self.name = context, name

    def connect(self) -> None:
        raw = socket.create_connection((self.host, self.port), TIMEOUT_S)
        try:
            self.sock = self._tls.wrap_socket(raw, server_hostname=self.name or None)
        except BaseException:
            raw.close()
            raise


def _ask(connection: _Connection, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
    """The answer's object. Raises IdentityError: not reached, not verified, refused, or not an answer."""
    where = f"enrolment at {connection.host}:{connection.port}"
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        raw = response.read(MAX_ENROL_BYTES + 1)
        status = response.status
    except ssl.SSLCertVerificationError as e:
        raise IdentityError(
            f"{where}: its certificate is not one of the authority in the token, for the name {connection.name}: {e.verify_message}",
            "check --collector (or --server-name), this node's clock, and that nobody stands between",
        ) from e
    except (OSError, http.client.HTTPException) as e:
        raise IdentityError(
            f"{where}: {e or type(e).__name__}", "is the collector there, with --enrol?"
        ) from e
    finally:
        connection.close()
    try:
        if len(raw) > MAX_ENROL_BYTES:
            raise ValueError(f"more than {MAX_ENROL_BYTES} bytes")
        data = json.loads(raw)
        if not isinstance(data, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as e:
        raise IdentityError(
            f"{where}: answered {status} with what is no JSON ({e})", "is it a flopmeter collector?"
        ) from None
    if status != http.client.OK:
        raise _refused(where, status, data)
    return data


def _refused(where: str, status: int, data: Mapping[str, Any]) -> IdentityError:
    word, message, todo = (str(data.get(key, ""))[:MAX_TEXT_CHARS] for key in ("error", "message", "todo"))
    passing = (
        status in _PASSING or status >= http.client.INTERNAL_SERVER_ERROR or word == "nonce"
    )  # 409: ask again
    return IdentityError(
        f"{where}: refused ({status} {_plain(word)}): {_plain(message)}", _plain(todo), final=not passing
    )


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise IdentityError(
            f"enrolment: the answer has no {key}", "is it a flopmeter collector of this version?"
        )
    return value


def _plain(text: str) -> str:
    """Another's words in a line of ours: no control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)
