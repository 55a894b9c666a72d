"""HTTPS for nodes that have no certificate yet: GET /ca, GET /nonce, POST /enrol, POST /renew (docs/identity.md).

Strangers talk to it, so it has an event loop and a thread of its own, away from ingest, and limits on everything: how many
connections are looked at together, how long one may take in all, how much it may say, how often it may be refused.
"""

import asyncio
import contextlib
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.refusal_log import RefusalLog
from flopmeter.contract.enrolment import MAX_ENROL_BYTES

from .desk import Certificate, Desk
from .errors import AccessRefused
from .nonces import Nonces
from .rates import Rates
from .requests import certificate_json, enrolment_of, malformed, read_object, refusal_json, renewal_of
from .tls import Served, ServerTls, context

#: Connections looked at together, of all and of one address; more wait in the kernel, or are closed.
MAX_CONNECTIONS, MAX_OF_ONE = 64, 16
#: From the first byte of the handshake to the last one of the answer.
REQUEST_S = 10.0
MAX_HEAD_BYTES = 8_192
BACKLOG = 1_024
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
_JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = {}


class EnrolServer:
    """Serves in a daemon thread of its own until `stop`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        desk: Desk,
        tls: ServerTls,
        unix_ns: Callable[[], int] = time.time_ns,
        request_s: float = REQUEST_S,
    ) -> None:
        """Bind and serve. Raises OSError. `request_s` is a test's, or REQUEST_S."""
        self._desk, self._tls, self._unix_ns, self._request_s = desk, tls, unix_ns, request_s
        self._nonces, self._rates, self._refusals = Nonces(), Rates(), RefusalLog()
        self._context: tuple[Served, ssl.SSLContext] | None = None
        self._open: dict[str, int] = {}
        self.refused = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="flopmeter-enrol", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._task = self._loop.create_task(self._accept())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._listener.close()

    async def _accept(self) -> None:
        places = asyncio.Semaphore(MAX_CONNECTIONS)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await places.acquire()
                try:
                    connection, address = await self._loop.sock_accept(self._listener)
                except OSError as e:  # no descriptor left
                    log.warning("enrolment: cannot accept: %s", e.strerror or e)
                    places.release()
                    await asyncio.sleep(1)
                    continue
                tasks.create_task(self._serve(connection, str(address[0]), places))

    async def _serve(self, connection: socket.socket, address: str, places: asyncio.Semaphore) -> None:
        writer: asyncio.StreamWriter | None = None
        count = self._open[address] = self._open.get(address, 0) + 1
        try:
            if count > MAX_OF_ONE:
                connection.close()
                return
            async with asyncio.timeout(self._request_s):
                reader, writer = await self._handshake(connection)
                await self._talk(reader, writer, address)
                writer.close()
                await writer.wait_closed()
        except TimeoutError:
            self._say(address, "too-slow", f"expected a request within {self._request_s:g} s")
        except (OSError, EOFError, ssl.SSLError) as e:
            self._say(address, "tls", f"expected TLS and HTTP/1.1, got {e}")
        except Exception:
            log.exception("enrolment: a request from %s failed", address)
        finally:
            if writer is not None:
                writer.transport.abort()
            connection.close()
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]
            places.release()

    async def _handshake(
        self, connection: socket.socket
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        served = self._tls.now()
        if self._context is None or self._context[0] is not served:
            self._context = (served, context(served))
        connection.setblocking(False)
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES, loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        transport, _ = await self._loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=self._context[1],
            ssl_handshake_timeout=self._request_s,
            ssl_shutdown_timeout=1.0,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, self._loop)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        try:
            wait_s = self._rates.wait_s(address, time.monotonic())
            if wait_s:
                raise AccessRefused(
                    429, "too-many", "too many refusals from this address", f"try again in {wait_s} s"
                )
            method, path, body = await _request(reader)
            answer = await self._answer(method, path, body, address)
        except AccessRefused as e:
            wait_s = self._rates.wait_s(address, time.monotonic())
            headers = {"Retry-After": str(wait_s)} if e.status == 429 else {}
            answer = Answer(e.status, refusal_json(e), headers)
            if e.status not in (429, 503):
                self._rates.refused(address, time.monotonic())
            self._say(address, e.code, str(e))
        except StoreError as e:
            log.error("enrolment: %s (%s)", e, e.hint)  # noqa: TRY400
            answer = Answer(
                503, {"error": "not-now", "message": "the store cannot commit", "todo": "try again"}
            )
        body = json.dumps(answer.body).encode()
        head = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Refused')}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in {**_JSON, **answer.headers}.items()]
        writer.write("\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        await writer.drain()

    async def _answer(self, method: str, path: str, body: bytes, address: str) -> Answer:
        now_s = self._unix_ns() // 1_000_000_000
        ca = self._desk.ca
        match method, path:
            case "GET", "/ca":
                return Answer(200, {"ca_pem": ca.pem.decode(), "trust_domain": ca.trust_domain})
            case "GET", "/nonce":
                return Answer(200, {"nonce": self._nonces.new(now_s).hex()})
            case "POST", "/enrol":
                asked = enrolment_of(read_object(body))
                self._nonces.use(asked.nonce, now_s)
                given = await asyncio.to_thread(self._desk.enrol, asked)
                who = f"agent {asked.agent_id.hex()} of node {asked.node}, token {asked.token_id}"
            case "POST", "/renew":
                agent_id, csr, sequence, nonce, signature = renewal_of(read_object(body))
                self._nonces.use(nonce, now_s)
                given = await asyncio.to_thread(
                    self._desk.renew_expired, agent_id, csr, sequence, nonce, signature
                )
                who = f"agent {agent_id.hex()}, whose certificate had expired"
            case _:
                raise AccessRefused(
                    404,
                    "not-found",
                    f"expected one of the paths of docs/identity.md, got {method[:8]} {path[:40]!r}",
                )
        return self._given(given, who, address)

    @staticmethod
    def _given(given: Certificate, who: str, address: str) -> Answer:
        log.info("enrolled %r from %s: certificate %d", who, address, given.sequence)
        return Answer(200, certificate_json(given))

    def _say(self, address: str, code: str, message: str) -> None:
        self.refused += 1
        self._refusals.say(
            b"", f"an enrolment from {address}", code, message, time.monotonic(), address=address
        )


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    """(method, path, body). Raises AccessRefused, and EOFError if the client hangs up."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError as e:
        raise AccessRefused(
            413, "too-large", f"expected a head of at most {MAX_HEAD_BYTES} bytes, got more"
        ) from e
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise malformed("a request line of HTTP/1.1", repr(first[:40]))
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    if "transfer-encoding" in headers:
        raise malformed("a Content-Length", "Transfer-Encoding")
    text = headers.get("content-length", "0")
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise malformed("a Content-Length", repr(text[:40]))
    if int(text) > MAX_ENROL_BYTES:
        raise AccessRefused(
            413, "too-large", f"expected a body of at most {MAX_ENROL_BYTES} bytes, got {text}"
        )
    return words[0], words[1], await reader.readexactly(int(text))
