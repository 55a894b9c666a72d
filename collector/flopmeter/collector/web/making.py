"""The HTTP port of a collector, put together from its settings."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flopmeter.collector.metrics_books import BooksMetrics
from flopmeter.collector.settings import CollectorSettings, split_address

from .commands import Commands
from .places import MAX_CONNECTIONS, RESERVED, Places
from .server import Edge, EdgeServer

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from flopmeter.collector.access.tls import ServerTls


def edge_server(
    settings: CollectorSettings,
    store: Path,
    unix_ns: Callable[[], int],
    *,
    metrics: "Collector",
    books: BooksMetrics,
    alive: Callable[[], bool],
    ready: Callable[[], bool],
    tls: "ServerTls | None",
    books_unix_ns: Callable[[], int] | None = None,
) -> EdgeServer:
    """Serving from here on. Raises OSError. `tls`: what agents are served with; `books_unix_ns`: as of
    when the books are answered; None: this machine's clock.
    """
    host, port = split_address("--http", settings.http)
    # All of a proxy's connections come from one address.
    places = Places(of_one=MAX_CONNECTIONS - RESERVED) if settings.http_proxied else Places()
    edge = Edge(
        metrics=metrics,
        alive=alive,
        ready=ready,
        store=store,
        unix_ns=unix_ns,
        books_unix_ns=books_unix_ns,
        worker=worker_command(settings, store),
        commands=commands_of(settings, store),
        tls=tls if settings.http_tls else None,
        proxied=settings.http_proxied,
        background=books.follow,
        places=places,
    )
    try:
        return EdgeServer(host, port, edge)
    except OSError as e:
        raise OSError(f"--http {settings.http}: cannot listen: {e.strerror or e}") from e


def page_address(settings: CollectorSettings, port: int) -> str:
    """Where the page is, as somebody types it on this machine."""
    host, _ = split_address("--http", settings.http)
    if host in ("0.0.0.0", "::"):  # all of them, this machine's among them  # noqa: S104 - a comparison
        host = "localhost"
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.http_tls else 'http'}://{shown}:{port}"


def worker_command(settings: CollectorSettings, store: Path) -> tuple[str, ...]:
    """Of the process that answers. -P: what lies in the working directory is not imported."""
    flags = {
        "--store": store,
        "--regimes": settings.regimes,
        "--regime-key": settings.regime_key,
        "--expect": settings.expect,
        "--sites": settings.sites,
        "--keys": settings.keys,
    }
    return (sys.executable, "-P", "-m", "flopmeter.collector.api.worker", *_said(flags))


def commands_of(settings: CollectorSettings, store: Path) -> Commands:
    """What the commands that make files have to be told."""
    attest = {
        "--keys": settings.keys,
        "--regimes": settings.regimes,
        "--witness-policy": settings.witness_policy,
        "--tsa-ca": settings.tsa_ca,
        "--estimates": settings.estimates,
    }
    urls = tuple(f"--tsa={url}" for url in settings.tsa)
    return Commands(store, (*_said(attest), *urls), _said({"--regimes": settings.regimes}))


def _said(flags: dict[str, Path | None]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in flags.items() if value is not None)
