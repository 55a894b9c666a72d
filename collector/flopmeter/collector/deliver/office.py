"""All sinks of one collector: started, woken and stopped together; asked by metrics."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .answer import SECOND_NS
from .sender import sender_for
from .settings import Jsonl, SinkSettings
from .worker import Worker

if TYPE_CHECKING:
    from flopmeter.collector.law.events import NewEvent

#: The sink of --event-log.
EVENT_LOG = "event-log"
#: All sinks together get this long to end what they are at; the rest is delivered at the next start.
STOP_TIMEOUT_S = 5.0


def event_log_sink(path: Path) -> SinkSettings:
    return SinkSettings(EVENT_LOG, Jsonl(path))


def recipients(sinks: Sequence[SinkSettings]) -> "Callable[[NewEvent], list[str]]":
    """Which sinks get an event, decided in the transaction that raises it."""
    from flopmeter.collector.duty.severity import severity_of

    def of(event: "NewEvent") -> list[str]:
        severity = severity_of(event.type, event.data).value
        return [s.name for s in sinks if s.wanted.wants(event.type, severity, event.data)]

    return of


class Office:
    """The workers of `sinks`, on the store at `path`."""

    def __init__(
        self, path: Path, sinks: Sequence[SinkSettings], unix_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._unix_ns = unix_ns
        self.workers = [Worker(path, s, sender_for(s, unix_ns), unix_ns=unix_ns) for s in sinks]

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def wake(self) -> None:
        """There may be new events. Never blocks."""
        for worker in self.workers:
            worker.wake()

    def stop(self) -> None:
        """Deliver what goes at once, and end. One that hangs is left behind: its thread ends with the process."""
        for worker in self.workers:
            worker.ask_to_stop()
        until = time.monotonic() + STOP_TIMEOUT_S
        for worker in self.workers:
            worker.join(max(0.0, until - time.monotonic()))

    def age_seconds(self, worker: Worker) -> float:
        """How long ago the oldest event happened that this sink has not got; 0: it has all."""
        oldest = worker.counters.standing.oldest_unix_ns
        return 0.0 if oldest is None else max(0, self._unix_ns() - oldest) / SECOND_NS
