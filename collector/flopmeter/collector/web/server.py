"""The HTTP port of a collector: a thread with an event loop of its own, so that nothing asked here waits for, or delays, an ack.

What answers is imported in that thread: agents are listened for by then.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.registry import Collector

from .places import Places

if TYPE_CHECKING:
    from flopmeter.collector.access.tls import ServerTls
    from flopmeter.collector.api.question import Answer, Question

    from .commands import Commands
    from .connections import Connections
    from .edge_protocol import Limits

    Ask = Callable[["Question"], Awaitable["Answer"]]

log = logging.getLogger(__name__)
BACKLOG = 256
STOP_S = 10.0
#: How long nothing is accepted when there are no descriptors.
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Edge:
    """What the port is served with."""

    metrics: Collector
    alive: Callable[[], bool]  # asked on threads of the port's own, like `ready` and `metrics`
    ready: Callable[[], bool]
    store: Path
    unix_ns: Callable[[], int]
    worker: tuple[str, ...]  # command of the process that answers
    commands: "Commands"
    tls: "ServerTls | None" = None
    proxied: bool = False
    #: Runs beside it, and may ask the process that answers.
    background: "Callable[[Ask], Coroutine[Any, Any, None]] | None" = None
    limits: "Limits | None" = None
    places: Places = field(default_factory=Places)
    books_unix_ns: Callable[[], int] | None = None  # as of when the books are answered; None: now
    # Others than the usual ones, in tests:
    program: tuple[str, ...] | None = None  # of flopmeter
    ask_s: float | None = None  # for one answer
    monotonic: Callable[[], float] | None = None  # of sessions and rates


class EdgeServer:
    """Serves in a daemon thread of its own until `stop`."""

    def __init__(self, host: str, port: int, edge: Edge) -> None:
        """Bind and serve. Raises OSError."""
        self._edge = edge
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=host == "::"
        )
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flopmeter-http", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hang up on everybody, and end the processes that answer."""
        self._up.wait()
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # it ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            log.error("http: its thread did not end within %.0f s", STOP_S)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # the collector goes on; a probe sees that nobody answers
            log.exception("the HTTP port is not served any more")
        finally:
            self._up.set()

    async def _serve(self) -> None:
        # Imported only now, in this thread: a start is a sixth faster.
        from .api import Api
        from .app import App
        from .connections import Connections
        from .door import Door
        from .downloads import PROGRAM, Downloads, sweep
        from .files import read_pages
        from .health import Health
        from .keyring import Keyring
        from .office import ASK_S, Office
        from .stream import Stream

        e = self._edge
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        keyring = Keyring(e.store, e.unix_ns)
        door = Door(keyring, self.port, e.monotonic or time.monotonic)
        office = Office(e.worker, ask_s=e.ask_s or ASK_S, unix_ns=e.books_unix_ns or time.time_ns)
        apart = Office((*e.worker, "--apart"), ask_s=e.ask_s or ASK_S)
        stream = Stream(office.ask)
        health = Health(e.metrics, e.alive, e.ready)
        sweep(e.store)
        downloads = Downloads(e.program or PROGRAM)
        api = Api(door, office, apart=apart, stream=stream, downloads=downloads, commands=e.commands)
        app = App(health, read_pages(), api, tls=e.tls is not None, proxied=e.proxied)
        connections = Connections(app, e.places, e.tls, limits=e.limits)
        self._up.set()
        accepting: asyncio.Task[None] = self._loop.create_task(self._accept(connections))
        beside = [accepting, self._loop.create_task(connections.watch())]
        if e.background is not None:
            beside.append(self._loop.create_task(e.background(office.ask)))
        stopping = self._loop.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([stopping, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # it ends by a fault only
        finally:
            stopping.cancel()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await stream.stop()
            await connections.close()
            await office.stop()
            await apart.stop()
            keyring.close()
            health.close()

    async def _accept(self, connections: "Connections") -> None:
        assert self._loop is not None
        while True:
            try:
                raw, address = await self._loop.sock_accept(self._socket)
            except (OSError, ssl.SSLError) as e:  # no descriptor left, or gone before it was looked at
                log.warning("http: a connection cannot be accepted: %s", e)
                await asyncio.sleep(_PAUSE_S)
                continue
            connections.take(raw, address[0])
