"""The connections of the HTTP port: a place for each, TLS where it is served, and a look at all of them every second."""

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from flopmeter.collector.access.tls import Served, ServerTls, context

from .edge_protocol import EdgeProtocol, Limits
from .places import Places

if TYPE_CHECKING:
    from .app import App

log = logging.getLogger(__name__)
#: What strangers send is not worth a line each; what fails here is.
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
HANDSHAKE_S = 10.0
WATCH_S = 1.0
#: What is being answered when the collector stops gets so long.
_END_S = 1.0


class Connections:
    """On the HTTP port's event loop only."""

    def __init__(
        self, app: "App", places: Places, tls: ServerTls | None, *, limits: Limits | None = None
    ) -> None:
        self._places, self._tls, self._limits = places, tls, limits or Limits()
        self._config = Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._limits.idle_s,
        )
        self._config.load()
        self._state = ServerState()
        self._opening: set[asyncio.Task[None]] = set()
        self._context: ssl.SSLContext | None = None
        self._served: Served | None = None
        if tls is not None:
            self._renew(tls.now())

    def take(self, raw: socket.socket, address: str) -> None:
        """A connection that was accepted; without a place for it, it is hung up on."""
        if not self._places.take(address):
            log.debug("http: no place for another connection of %s", address)
            raw.close()
            return
        raw.setblocking(False)
        task = asyncio.create_task(self._open(raw, address))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, raw: socket.socket, address: str) -> None:
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self._places.leave(address)

        def protocol() -> EdgeProtocol:
            secure = self._context is not None
            return EdgeProtocol(self._config, self._state, limits=self._limits, closed=leave, secure=secure)

        more: dict[str, Any] = {}
        if self._context is not None:
            more = {
                "ssl": self._context,
                "ssl_handshake_timeout": HANDSHAKE_S,
                "ssl_shutdown_timeout": _END_S,
            }
        try:
            await asyncio.get_running_loop().connect_accepted_socket(protocol, raw, **more)
        except BaseException as e:
            leave()
            raw.close()
            if not isinstance(e, OSError | TimeoutError):  # a handshake that fails is an OSError
                raise

    async def watch(self) -> None:
        """Cut who takes too long; take a certificate that was renewed."""
        while True:
            await asyncio.sleep(WATCH_S)
            for connection in list(self._state.connections):
                if isinstance(connection, EdgeProtocol):
                    connection.watch()
            if self._tls is not None:
                # A directory on a network may hang: not on this loop.
                self._renew(await asyncio.to_thread(self._tls.now))

    def _renew(self, served: Served) -> None:
        if served is not self._served:
            self._served, self._context = served, context(served)
            self._context.set_alpn_protocols(["http/1.1"])

    async def close(self) -> None:
        """Hang up on everybody."""
        for task in self._opening:
            task.cancel()
        connections = [c for c in self._state.connections if isinstance(c, EdgeProtocol)]
        if self._state.tasks:  # cancelled, uvicorn writes a trace for each into the log
            await asyncio.wait(self._state.tasks, timeout=_END_S)
        for task in self._state.tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await asyncio.gather(*self._state.tasks, *self._opening, return_exceptions=True)
        for connection in connections:
            connection.transport.abort()
        await asyncio.sleep(0)  # so that they are told
