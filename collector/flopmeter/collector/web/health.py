"""/healthz, /readyz and /metrics: answered on threads of their own, by nobody else's leave. Each question is asked once at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from .exchange import Said

METRICS = "/metrics"
_TEXT = "text/plain; charset=utf-8"
_FRESH = (("cache-control", "no-store"),)


class Health:
    """On the HTTP port's event loop only."""

    def __init__(self, metrics: Collector, alive: Callable[[], bool], ready: Callable[[], bool]) -> None:
        registry = CollectorRegistry()
        registry.register(metrics)
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=registry)
        # A scrape that hangs does not hold up a probe.
        self._threads = {
            path: ThreadPoolExecutor(1, f"flopmeter-http-{path[1:]}")
            for path in ("/healthz", "/readyz", "/metrics")
        }
        self._make: dict[str, Callable[[], Said]] = {
            "/healthz": lambda: _yes(alive(), b"the event loop or the writer is stuck\n"),
            "/readyz": lambda: _yes(ready(), b"records are not being committed\n"),
            METRICS: lambda: Said(200, CONTENT_TYPE_LATEST, generate_latest(registry), _FRESH),
        }
        self._asked: dict[str, asyncio.Future[Said]] = {}

    def knows(self, path: str) -> bool:
        return path in self._make

    async def answer(self, path: str) -> Said:
        """Whoever asks while it is being found out gets the same answer."""
        asked = self._asked.get(path)
        if asked is None or asked.done():
            loop = asyncio.get_running_loop()
            asked = self._asked[path] = loop.run_in_executor(self._threads[path], self._make[path])
        return await asyncio.shield(asked)

    def close(self) -> None:
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)


def _yes(good: bool, else_: bytes) -> Said:
    return Said(200 if good else 503, _TEXT, b"ok\n" if good else else_, _FRESH)
