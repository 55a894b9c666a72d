"""What is answered on the HTTP port: health and metrics, the page's files, and the API behind the door."""

import logging
from dataclasses import dataclass

from flopmeter.cli.addresses import is_loopback

from . import api as served
from .api import Api
from .channel import Channel, channel_of, check_name
from .exchange import Exchange, Message, Receive, Said, Send
from .files import INDEX, VIEWS, File, matches
from .health import METRICS, Health
from .paths import segments_of
from .says import Refused

log = logging.getLogger(__name__)
#: Kept by browsers and asked for again each time, so that a new version of the program is a new page at once.
_KEPT = ("cache-control", "no-cache")
_VARY = ("vary", "accept-encoding")


@dataclass(frozen=True, slots=True)
class App:
    """An ASGI application."""

    health: Health
    pages: dict[str, File]
    api: Api
    tls: bool
    proxied: bool

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        try:
            try:
                await self._answer(exchange)
            except Refused as e:
                if exchange.begun:
                    log.error("http: an answer breaks off: %s", e)  # noqa: TRY400
                    raise Broken from None
                await exchange.refuse(e)
        except Broken:
            raise
        except Exception:  # its words may hold what somebody sent; the trace is for the log
            path = exchange.raw_path[:200].decode("latin-1")
            log.exception("http: %s %r cannot be answered", exchange.method[:20], path)
            if exchange.begun:
                raise Broken from None
            await exchange.refuse(Refused(500, "the collector failed at this; its log says how"))

    async def _answer(self, exchange: Exchange) -> None:
        channel = channel_of(exchange.peer, exchange.headers, tls=self.tls, proxied=self.proxied)
        exchange.secure = channel.secure
        path = exchange.raw_path.decode("latin-1")
        if self.health.knows(path):
            _check_reads(exchange)
            exchange.check_framing()
            if path == METRICS and self._shared(exchange, channel):
                self.api.door.check_address(channel.address)
                await self.api.check_reader(exchange, channel)
            elif path == METRICS and not self.tls:
                check_name(exchange.peer, exchange.headers)
            await exchange.say(await self.health.answer(path))
            return
        self.api.door.check_address(channel.address)
        exchange.check_framing()
        segments = segments_of(exchange.raw_path)
        if segments[:2] == served.ROOT:
            await self.api.answer(exchange, channel, segments[2:])
            return
        _check_reads(exchange)
        await exchange.say(self._page(exchange, segments))

    def _shared(self, exchange: Exchange, channel: Channel) -> bool:
        """Whether others than who runs the collector come this way: metrics name runs, so a token is asked for.

        By TLS from elsewhere, or through a proxy. In plain text the port is for probes and scrapes alone, on loopback or
        as far as a network policy lets anybody reach it.
        """
        if self.tls:
            return not is_loopback(exchange.peer.partition("%")[0])
        return self.proxied and not channel.direct

    def _page(self, exchange: Exchange, segments: tuple[str, ...]) -> Said:
        """A file by its name; the index for whatever the page itself makes of the path. Nothing is looked up on a disk."""
        name, status = "/".join(segments), 200
        # A part that holds a slash was encoded: it is a name in one of the page's paths, and never one of a file.
        found = self.pages.get(name) if all("/" not in s for s in segments) else None
        if found is None:
            if segments[0] not in VIEWS or (segments[0] == "" and len(segments) > 1):
                status = 404
                if "text/html" not in exchange.header(b"accept"):
                    raise Refused(
                        404, "expected the page, /api/v1, /healthz, /readyz or /metrics, got another path"
                    )
            found = self.pages.get(INDEX)
            if found is None:
                raise Refused(404, "this installation has no page; the API is at /api/v1")
        small = found.zipped if "gzip" in exchange.header(b"accept-encoding") else None
        etag = found.zipped_etag if small is not None else found.etag
        headers = (_KEPT, _VARY, ("etag", etag))
        asked = exchange.header(b"if-none-match")
        if status == 200 and asked and matches(asked, etag):
            return Said(304, "", b"", headers)
        if small is not None:
            return Said(status, found.kind, small, (*headers, ("content-encoding", "gzip")))
        return Said(status, found.kind, found.body, headers)


class Broken(Exception):  # noqa: N818 - no error: how a connection is broken off
    """Half of an answer is sent: the connection is to break off, so that nobody takes it for a whole one."""


def _check_reads(exchange: Exchange) -> None:
    if exchange.method not in ("GET", "HEAD"):
        raise Refused(
            405, f"expected GET or HEAD, got {exchange.method[:20]}", headers={"Allow": "GET, HEAD"}
        )
