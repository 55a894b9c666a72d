"""One HTTP POST: verified, bounded in time and size, no redirect followed, no proxy, no cookie, nothing kept.

The address comes from the admin's settings alone, never from an event or an answer. A redirect is an error: following
it would let the receiver choose where the events go.
"""

import contextlib
import email.utils
import http.client
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from flopmeter.cli.addresses import is_loopback
from flopmeter.collector.errors import SinkError

from .answer import SECOND_NS, Answer, delivered, failed, gone, refused
from .deadline import Bounded, Deadline

#: Read of an answer, for what is said of it; the rest is left.
MAX_BODY_BYTES = 4_096
#: Parts of a URL that are shorter are no secrets.
LEAST_SECRET_CHARS = 6
#: Statuses that mean "not now" (RFC 9110, 6585, 8470).
_LATER = frozenset({408, 425, 429})
_USER_AGENT = "flopmeter"


@dataclass(frozen=True, slots=True)
class Address:
    """A checked URL. `shown` is all of it that may be logged: the path and the query may be a secret."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def shown(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def address_of(what: str, url: str, *, allow_http: bool) -> Address:
    """The parts of a URL. Raises SinkError, which shows none of it."""

    def fault(expected: str, hint: str = "") -> SinkError:
        return SinkError(f"{what}: expected {expected}", hint or "write https://HOST[:PORT]/PATH")

    try:
        parts: SplitResult = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise fault("an http or https URL, got something else") from e
    if any(c <= " " or c >= "\x7f" for c in url):
        raise fault("a URL of printable ASCII without blanks; encode others as %XX")
    if parts.scheme not in ("http", "https") or not host:
        raise fault("an http or https URL, got something else")
    if parts.username is not None or parts.password is not None:
        raise fault("a URL without user and password", "name them by keys of their own (docs/delivery.md)")
    if parts.fragment:
        raise fault("a URL without a fragment (#…)")
    if parts.scheme == "http" and not (allow_http or is_loopback(host)):
        raise fault("https://", "http:// goes to this machine alone; allow_http = true allows it to others")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies the other side by the system's authorities, or by those in `ca_file` alone. Raises SinkError."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except (OSError, ssl.SSLError) as e:
        said = e.strerror if isinstance(e, FileNotFoundError | PermissionError) else e
        raise SinkError(
            f"ca_file {ca_file}: expected certificates (PEM): {said}", "name a readable PEM file"
        ) from e


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: a status and the beginning of the body."""

    status: int
    reason: str
    body: bytes
    retry_after: str


def post(
    address: Address,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    ca_file: Path | None = None,
) -> Reply | Answer:
    """Send it and read what comes back; an Answer where nothing that can be understood does. Never raises for these."""
    where = address.shown
    deadline = Deadline(timeout_s)
    with contextlib.ExitStack() as stack:
        try:
            return _exchange(address, connected(address, deadline, ca_file, stack), body, headers)
        except SinkError as e:
            return failed(str(e))
        except TimeoutError:
            return failed(f"{where}: no answer within {timeout_s:g} s")
        except ssl.SSLCertVerificationError as e:
            return failed(f"{where}: its certificate is not trusted: {e.verify_message}")
        except (OSError, http.client.HTTPException, ValueError) as e:
            return failed(f"{where}: {_text(e)}")


def connected(
    address: Address, deadline: Deadline, ca_file: Path | None, stack: contextlib.ExitStack
) -> Bounded:
    """A connection that `stack` closes, its certificate checked. Raises OSError, and SinkError for `ca_file`."""
    context = trust(ca_file) if address.scheme == "https" else None
    connection = socket.create_connection((address.host, address.port), timeout=deadline.left_s())
    stack.callback(connection.close)
    if context is not None:
        connection.settimeout(deadline.left_s())
        connection = context.wrap_socket(connection, server_hostname=address.host)
        stack.callback(connection.close)
    return Bounded(connection, deadline)


def _exchange(address: Address, wire: Bounded, body: bytes, headers: Mapping[str, str]) -> Reply:
    call = http.client.HTTPConnection(address.host, address.port)
    call.sock = wire
    sent = {"User-Agent": _USER_AGENT, "Connection": "close", "Accept": "*/*", **headers}
    default = 443 if address.scheme == "https" else 80
    host = f"[{address.host}]" if ":" in address.host else address.host
    sent["Host"] = host if address.port == default else f"{host}:{address.port}"
    call.request("POST", address.path, body, sent)
    response = call.getresponse()
    text = b""
    if not 200 <= response.status < 300:
        # What a refusal says is for people; one that breaks off has still refused.
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            text = response.read(MAX_BODY_BYTES)
    return Reply(response.status, response.reason, text, response.getheader("Retry-After", ""))


def judge(address: Address, reply: Reply, now_unix_ns: int, secrets: Iterable[str] = ()) -> Answer:
    """What a status means for a delivery: RFC 9110, and the operational part of Standard Webhooks.

    `secrets`: what was sent along; like the parts of the URL that may be one, they are not told where it repeats them.
    """
    text = reply.body.decode(errors="replace").strip()
    told = f"{reply.status} {reply.reason}" + (f": {text}" if text else "")
    said = f"{address.shown} answered {_without(told, (*_parts(address.path), *secrets))}"
    if 200 <= reply.status < 300:
        return delivered(said)
    if reply.status == http.HTTPStatus.GONE:
        return gone(said)
    if 300 <= reply.status < 400:
        return refused(f"{said} (a redirect is not followed: write the new address into the sinks file)")
    if reply.status in _LATER or not 400 <= reply.status < 500:
        return failed(said, retry_after_ns(reply.retry_after, now_unix_ns))
    return refused(said)


def _parts(path: str) -> Iterator[str]:
    """Of a path and a query, as a server may repeat them: "Cannot POST /hooks/T0KEN"."""
    for part in re.split(r"[/?&=]", path):
        if len(part) >= LEAST_SECRET_CHARS:
            yield from (part, unquote(part))


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted({*secrets}, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def retry_after_ns(text: str, now_unix_ns: int) -> int | None:
    """Of a Retry-After header: seconds, or an HTTP date. None where it says nothing that can be understood."""
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) <= 9:
        return int(text) * SECOND_NS
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    seconds = (at - datetime.fromtimestamp(now_unix_ns // SECOND_NS, UTC)).total_seconds()
    return max(0, int(seconds)) * SECOND_NS


def _text(e: Exception) -> str:
    if isinstance(e, ConnectionRefusedError | socket.gaierror):
        return f"cannot connect: {e.strerror}"
    if isinstance(e, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(e, http.client.HTTPException):
        return f"it answered something that is not HTTP ({type(e).__name__})"
    if isinstance(e, ssl.SSLError):
        return f"TLS failed: {e.reason or e}"
    return str(getattr(e, "strerror", None) or e)
