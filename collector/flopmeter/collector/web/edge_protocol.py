"""uvicorn's HTTP/1.1 connection, with an end to everything that a client can draw out.

uvicorn cuts connections that are idle between requests, and nothing else: here a head that drips in, a body that does, and an
answer that is not read end too, and what h11 refuses to parse is answered in our words and hung up on.
"""

import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .says import PROBLEM, problem, security_headers

log = logging.getLogger(__name__)
#: First line and headers; a run's name of 512 characters of UTF-8 is 6 kB when it is percent-encoded.
MAX_HEAD_BYTES = 32 << 10
_HEAD_ENDS = b"\r\n\r\n"
#: Allowed to servers by RFC 9112 (sections 2.2 and 5.2), and read in two ways by two of them: no browser or proxy sends either.
_LOOSE = re.compile(rb"(?<!\r)\n|\n[ \t]")


class StrictConnection(h11.Connection):
    """h11, but a head has lines that end in CR LF and are not continued, and a size also when it comes in one piece."""

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            head = self.trailing_data[0].partition(_HEAD_ENDS)[0]
            if len(head) > MAX_HEAD_BYTES:
                raise h11.RemoteProtocolError("a head that is too large", error_status_hint=431)
            if _LOOSE.search(head):
                raise h11.RemoteProtocolError("a head with a bare or continued line")
        return super().next_event()


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client may take, in seconds."""

    head_s: float = 10.0
    body_s: float = 150.0  # app.py is stricter with small bodies, and says so; this is what ends them all
    idle_s: int = 15  # between two requests
    unread_s: float = 30.0  # without 64 KiB of an answer being taken


class EdgeProtocol(H11Protocol):
    """One connection. `watch` is asked every second."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        *,
        limits: Limits,
        closed: Callable[[], None],
        secure: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(config, state, {})
        self.conn = StrictConnection(h11.SERVER, MAX_HEAD_BYTES)
        self._limits, self._closed, self._secure, self._monotonic = limits, closed, secure, monotonic
        self._requests = 0
        self._stage: tuple[int, str] = (0, "head")
        self._since = monotonic()
        self._unread_since: float | None = None

    def watch(self) -> None:
        """Cut the connection if its client takes too long."""
        now = self._monotonic()
        self._note()
        limit_s = {"head": self._limits.head_s, "body": self._limits.body_s}.get(self._stage[1])
        if limit_s is not None and now - self._since >= limit_s:
            self._cut(f"a request whose {self._stage[1]} took more than {limit_s:.0f} s")
            return
        if self.transport.get_write_buffer_size() == 0:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since >= self._limits.unread_s:
            self._cut(f"an answer that was not read for {self._limits.unread_s:.0f} s")

    def _note(self) -> None:
        their = self.conn.their_state
        if their is h11.SEND_BODY:
            name = "body"
        elif their is h11.IDLE:
            # Between two requests uvicorn's own limit holds; from the first byte of the next one ours.
            name = "head" if self._requests == 0 or self.conn.trailing_data[0] else "idle"
        else:
            name = "answer"
        stage = (self._requests, name)
        if stage != self._stage:
            self._stage, self._since = stage, self._monotonic()

    def _cut(self, why: str) -> None:
        log.debug("http: cut off %s: %s", self.client and self.client[0], why)
        if self.cycle is not None:
            self.cycle.disconnected = True
        self.transport.abort()

    # --- asyncio.Protocol ---

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._closed()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._note()

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    # --- uvicorn's ---

    def on_response_complete(self) -> None:
        self._requests += 1
        super().on_response_complete()
        self._note()

    def send_400_response(self, msg: str) -> None:
        """What h11 cannot parse: smuggling shapes, garbage, a head that is too large. Hung up on."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # an app still works on it: nothing of what it says is sent
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            status = status if status in (400, 413, 414, 431, 501) else 400
            said = "expected a request of HTTP 1.1, got what is none" + (
                " (it is too large)" if status in (413, 414, 431) else ""
            )
            body = problem(status, said)
            headers: list[tuple[bytes, bytes]] = [
                (b"content-type", PROBLEM.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"connection", b"close"),
                *security_headers(secure=self._secure),
            ]
            response = h11.Response(status_code=status, headers=headers, reason=b"Refused")
            parts: list[Any] = [response, h11.Data(data=body), h11.EndOfMessage()]
            for part in parts:
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()
