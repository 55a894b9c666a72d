"""All sinks of one collector: started, woken and stopped together; asked by metrics."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flopmeter.collector.errors import CollectorError, SettingsError, SinkError

from .answer import SECOND_NS
from .redeliver import served
from .sender import sender_for
from .settings import EVENT_LOG, Jsonl, SinkSettings
from .worker import Worker

if TYPE_CHECKING:
    from flopmeter.collector.law.events import NewEvent


log = logging.getLogger(__name__)

#: All sinks together get this long to end what they are at; the rest is delivered at the next start.
STOP_TIMEOUT_S = 5.0


def configured(
    event_log: Path | None, sinks_file: Path | None, regimes: Collection[str] | None = None
) -> tuple[SinkSettings, ...]:
    """The sinks of both settings, each checked as far as it can be without talking to anybody.

    Raises SettingsError for what is written wrongly, SinkError for what cannot be read or used.
    """
    found: list[SinkSettings] = []
    if event_log is not None:
        found.append(SinkSettings(EVENT_LOG, Jsonl(event_log)))
    if sinks_file is not None:
        from .sink_file import read_sinks

        found += read_sinks(sinks_file, regimes)
    files: set[Path] = set()
    for sink in found:
        if isinstance(sink.target, Jsonl):
            path = sink.target.path.resolve()
            if path in files:  # each would cut the other's last line as torn
                raise SettingsError(
                    f"sink {sink.name}: expected a file of its own, got that of another: {path}",
                    "name another path",
                )
            files.add(path)
        try:
            sender_for(sink, time.time_ns).check()
        except SinkError as e:
            named = (
                f"--event-log {event_log}"
                if sink.name == EVENT_LOG
                else f"--sinks {sinks_file}: sink {sink.name}"
            )
            raise SinkError(f"{named}: {e}", e.hint) from e
    return tuple(found)


def recipients(sinks: Sequence[SinkSettings]) -> "Callable[[NewEvent], list[str]]":
    """Which sinks get an event, decided in the transaction that raises it."""
    from flopmeter.collector.law.severity import severity_of

    def of(event: "NewEvent") -> list[str]:
        severity = severity_of(event.type, event.data).value
        return [s.name for s in sinks if s.wanted.wants(event.type, severity, event.data)]

    return of


class Office:
    """The workers of `sinks`, on the store at `path`."""

    def __init__(
        self, path: Path, sinks: Sequence[SinkSettings], unix_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._path, self._unix_ns = path, unix_ns
        self.workers = [Worker(path, s, sender_for(s, unix_ns), unix_ns=unix_ns) for s in sinks]

    def start(self) -> None:
        """Every sink in its thread."""
        for worker in self.workers:
            worker.start()
        threading.Thread(target=self._tell_of_others, name="flopmeter-sinks", daemon=True).start()

    def _tell_of_others(self) -> None:
        """What waits for a sink that is configured no more is said: nobody will deliver it. Reads the whole outbox."""
        names = {worker.settings.name for worker in self.workers}
        try:
            others = [s for s in served(self._path) if s.waiting and s.sink not in names]
        except CollectorError as e:
            log.warning("%s; %s", e, e.hint)
            return
        for stands in others:
            log.warning("sink %s is configured no more; kept for it: %d", stands.sink, stands.waiting)

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
        for worker in self.workers:
            worker.leave_behind()

    def age_seconds(self, worker: Worker) -> float:
        """How long ago the oldest event happened that this sink has not got; 0: it has all."""
        oldest = worker.counters.standing.oldest_unix_ns
        return 0.0 if oldest is None else max(0, self._unix_ns() - oldest) / SECOND_NS
