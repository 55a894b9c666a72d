"""Running a collector: as this process, or in a thread of it."""

import asyncio
import logging
import resource
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from flopmeter.cli.systemd import Notifier

from .assembly import Collector
from .errors import CollectorError
from .ingest.listening import MAX_STREAMS
from .ingest.server import REVIEW_S
from .metrics import Counters
from .settings import CollectorSettings
from .store_path import store_file

if TYPE_CHECKING:
    from .log.checkpoint import Checkpoint

log = logging.getLogger(__name__)
START_TIMEOUT_S = 30.0
#: Descriptors that are not agent streams: store, logs, and the HTTP port's connections (web.places) with what they have made.
OTHER_DESCRIPTORS = 700
#: Below this many, a cluster of ordinary size cannot connect; said at start.
WANTED_DESCRIPTORS = 16_384
#: gRPC hands the last events to whichever event loop of the process wakes first: let them arrive.
DRAIN_S = 0.05


class RunningCollector:
    """A collector in a thread of this process: for replay, the demo and tests."""

    def __init__(
        self,
        settings: CollectorSettings,
        unix_ns: Callable[[], int] = time.time_ns,
        review_s: float | None = REVIEW_S,
        books_unix_ns: Callable[[], int] | None = None,
    ) -> None:
        """Returns when it serves. Raises CollectorError if it cannot."""
        self._collector = Collector(settings, unix_ns, review_s, books_unix_ns)
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._stop_asked: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="flopmeter-collector", daemon=True)
        self._thread.start()
        if not self._started.wait(START_TIMEOUT_S):
            raise CollectorError(f"the collector did not start within {START_TIMEOUT_S:.0f} s")
        self._raise_failure()
        self.store_path = store_file(settings.store)
        self.address = self._collector.address
        self.http_address = self._collector.http_address
        self.enrol_address = self._collector.enrol_address

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as e:  # noqa: BLE001 - handed to the thread that started us
            self._failed = e
            self._started.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked = asyncio.Event()
        await self._collector.start()
        self._started.set()
        await self._stop_asked.wait()
        await self._collector.stop()
        await asyncio.sleep(DRAIN_S)

    @property
    def counters(self) -> Counters:
        return self._collector.server.counters

    def seal(self) -> "Checkpoint | None":
        """A head of the evidence log over all that is committed, now. None where none can be made."""
        return asyncio.run_coroutine_threadsafe(self._collector.seal(), self._loop).result(START_TIMEOUT_S)

    def review(self) -> None:
        """Look at the law files, for silent agents and for a new day, now. Back when what came of it is committed."""
        asyncio.run_coroutine_threadsafe(self._collector.review(), self._loop).result(START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop gracefully: what was taken is committed and acknowledged. Raises what went wrong meanwhile."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop_asked.set)
            self._thread.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failed is not None:
            self._thread.join()
            raise self._failed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_collector(
    settings: CollectorSettings,
    unix_ns: Callable[[], int] = time.time_ns,
    *,
    review_s: float | None = REVIEW_S,
    books_unix_ns: Callable[[], int] | None = None,
) -> RunningCollector:
    """Start a collector in a thread; use as a context manager. Raises CollectorError.

    `review_s` None: whoever moves `unix_ns` calls `review`, when all that came until then is in the books.
    `books_unix_ns`: as of when the page is answered, for whoever lets agents catch up one after the other; None: now.
    """
    return RunningCollector(settings, unix_ns, review_s, books_unix_ns)


def serve_forever(settings: CollectorSettings) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully. Raises CollectorError if it cannot start."""
    for line in settings.shown():
        log.info("setting: %s", line)
    _raise_descriptor_limit()
    asyncio.run(_serve(settings))


async def _serve(settings: CollectorSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    collector = Collector(settings)
    await collector.start()
    loop.add_signal_handler(signal.SIGHUP, collector.look_now)
    log.info("listening on %s, store %s", collector.address, store_file(settings.store))
    if collector.http_address:
        log.info("health and metrics on %s", collector.page)
        log.info("page on %s/ (a token to sign in with: flopmeter collector token create)", collector.page)
    if collector.enrol_address:
        log.info("nodes join by token at https://%s", collector.enrol_address)
    notifier = Notifier()
    notifier.ready(f"listening on {collector.address}")
    beating = loop.create_task(keep_beating(notifier, lambda: collector.server.writer_lives))
    await stop.wait()
    log.info("stopping: committing what was taken")
    notifier.stopping("committing what was taken")
    await collector.stop()
    beating.cancel()
    log.info("stopped")


async def keep_beating(notifier: Notifier, lives: Callable[[], bool]) -> None:
    """Tell systemd's watchdog, if there is one, that the event loop (this) and the writer (`lives`) are alive."""
    while notifier.beat_s:
        if lives():
            notifier.beat()
        await asyncio.sleep(notifier.beat_s / 2)


def _raise_descriptor_limit() -> None:
    """Each agent is a descriptor: take what the hard limit allows, and say when that is little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_STREAMS + OTHER_DESCRIPTORS
    reachable = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < reachable:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
            soft = reachable
        except (ValueError, OSError) as e:
            log.warning("cannot raise the descriptor limit from %d: %s", soft, e)
    if soft != resource.RLIM_INFINITY and soft < WANTED_DESCRIPTORS:
        log.warning(
            "descriptor limit is %d: at most about %d agents can connect; set LimitNOFILE=%d",
            soft,
            max(0, soft - OTHER_DESCRIPTORS),
            wanted,
        )
