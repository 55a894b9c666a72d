"""One request and its answer, on ASGI: the body is read within a limit and a time, the answer is sent as fast as it is read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from .says import PROBLEM, Refused, security_headers

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: So much is handed over at once; the next when the client took it.
CHUNK_BYTES = 64 << 10
#: Of a body that is refused: read to here and thrown away, so that the client gets to see the answer.
_DRAIN_BYTES, _DRAIN_S = 1 << 20, 1.0


@dataclass(frozen=True, slots=True)
class Said:
    """An answer that is in memory."""

    status: int
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Flowing:
    """An answer that is made while it is sent. `end` is awaited whatever happens."""

    kind: str
    parts: AsyncIterator[bytes]
    end: Callable[[], Awaitable[None]] | None = None
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200


class Exchange:
    """What one request says, and how it is answered."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.method: str = scope["method"]
        self._version: str = scope["http_version"]
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        client = scope["client"]
        self.peer: str = client[0] if client else ""
        self.secure = self.begun = False
        self._coded = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._length = int(self.header(b"content-length") or 0)
        self._unread = self._coded or self._length > 0

    def header(self, name: bytes) -> str:
        """The first value of that header; "" = none."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    def check_framing(self) -> None:
        """Raise Refused for what a proxy in front may have read otherwise (RFC 9112 section 6.3), and for bodies of a GET."""
        if self._version not in ("1.0", "1.1"):
            self._unread = True  # whatever comes behind it is not read
            raise Refused(505, f"expected HTTP 1.1, got {self._version}")
        if self._coded and any(name == b"content-length" for name, _ in self.headers):
            raise Refused(400, "expected Content-Length or Transfer-Encoding, got both")
        if self._unread and self.method in ("GET", "HEAD", "DELETE"):
            raise Refused(400, f"expected no body with {self.method[:20]}")

    async def body(self, limit: int, seconds: float) -> bytes:
        """All of it. Raises Refused: 408, 413."""
        too_large = Refused(413, f"expected a body of at most {limit} bytes, got more")
        if self._length > limit:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(seconds):
                while self._unread:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        raise Refused(400, "expected a whole body, got half of one")
                    parts.append(message["body"])
                    size += len(message["body"])
                    if size > limit:
                        raise too_large
                    self._unread = message["more_body"]
        except TimeoutError as e:
            raise Refused(408, f"expected the body within {seconds:.0f} s") from e
        return b"".join(parts)

    async def say(self, said: Said) -> None:
        """Send it."""
        body = b"" if said.status in (204, 304) else said.body
        headers = [(b"content-type", said.kind.encode())] if said.kind else []
        if said.status not in (204, 304):
            headers.append((b"content-length", str(len(body)).encode()))
        await self._begin(said.status, headers, said.headers)
        if len(body) <= CHUNK_BYTES:
            await self._send({"type": "http.response.body", "body": body})
            return
        for at in range(0, len(body), CHUNK_BYTES):
            part = body[at : at + CHUNK_BYTES]
            more = at + CHUNK_BYTES < len(body)
            await self._send({"type": "http.response.body", "body": part, "more_body": more})
            await asyncio.sleep(0)  # to hear that the client is gone, and to let others on

    async def refuse(self, refused: Refused) -> None:
        await self.say(
            Said(
                refused.status,
                PROBLEM,
                refused.body(),
                (("cache-control", "no-store"), *refused.headers.items()),
            )
        )

    async def flow(self, flowing: Flowing) -> None:
        """Send it while the client is there."""
        try:
            await self._begin(flowing.status, [(b"content-type", flowing.kind.encode())], flowing.headers)
            if self.method != "HEAD":
                await self._while_connected(self._pour(flowing.parts))
            await self._send({"type": "http.response.body", "body": b""})
        finally:
            if flowing.end is not None:
                await flowing.end()

    async def _pour(self, parts: AsyncIterator[bytes]) -> None:
        async for part in parts:
            for at in range(0, len(part), CHUNK_BYTES):
                chunk = part[at : at + CHUNK_BYTES]
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
                await asyncio.sleep(0)

    async def _while_connected(self, work: Coroutine[Any, Any, None]) -> None:
        working, gone = asyncio.create_task(work), asyncio.create_task(self._gone())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            for task in (working, gone):
                task.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _begin(
        self, status: int, headers: list[tuple[bytes, bytes]], more: tuple[tuple[str, str], ...]
    ) -> None:
        if self._unread:
            headers.append((b"connection", b"close"))
            await self._drain()
        headers.append((b"date", formatdate(usegmt=True).encode()))
        headers += [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in more]
        headers += security_headers(secure=self.secure)
        self.begun = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _drain(self) -> None:
        if self._coded or self._length > _DRAIN_BYTES or self.header(b"expect"):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                more = True
                while more:
                    message = await self._receive()
                    more = message["type"] == "http.request" and message["more_body"]
