"""The live loop: once a tick read every entity, meter, and tell the time, until told to stop."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flopmeter.contract.clock import Clock
from flopmeter.contract.limits import DEFAULT_TICK_NS, MIN_TICK_NS
from flopmeter.contract.usage import NoticeKind

from .errors import SettingsError, SourceError
from .pipeline import Pipeline
from .reader import Reader
from .reading import NodeFacts, Reading
from .sources.base import gone

log = logging.getLogger(__name__)

DEFAULT_STOP_TIMEOUT_S = 20.0
#: The device list is asked for this often, and soon after a device was lost.
FACTS_PERIOD_NS = 60_000_000_000
FACTS_AFTER_LOSS_NS = 5_000_000_000
#: A tick that would come too soon by more than this is left out.
_LATE_NS = MIN_TICK_NS // 2
#: A wait is so long at a time, so that a watchdog (WatchdogSec=30 in the unit) hears of the loop meanwhile.
_PIECE_NS = 5_000_000_000


class SystemClock:
    """The node's two clocks, and a wait that `stop` cuts short, also from a signal handler."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def unix_ns(self) -> int:
        return time.time_ns()

    def wait(self, seconds: float) -> bool:
        return self._stop.wait(seconds)

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()


@dataclass(frozen=True, slots=True)
class LoopSettings:
    tick_ns: int = DEFAULT_TICK_NS
    stop_timeout_s: float = DEFAULT_STOP_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.tick_ns < MIN_TICK_NS:
            raise SettingsError(
                f"tick: expected at least {MIN_TICK_NS / 1e9:g} s, got {self.tick_ns / 1e9:g} s",
                "shorter ticks disturb the driver and gain nothing: cycle counters are exact at any tick",
            )


@dataclass(slots=True)
class Ticks:
    """What the loop did since its start."""

    done: int = 0
    missed: int = 0  # due while a tick before was still under way
    last_boot_ns: int = 0
    last_s: float = 0.0  # how long the last one took


class Loop:
    """Reads through `reader`, feeds `pipeline`. `run` returns when the clock's wait says stop."""

    def __init__(
        self,
        reader: Reader,
        pipeline: Pipeline,
        clock: Clock,
        settings: LoopSettings,
        *,
        on_tick: Callable[[list[Reading]], None] | None = None,
        beat: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.ticks = Ticks()
        self._reader = reader
        self._pipeline = pipeline
        self._clock = clock
        self._settings = settings
        self._on_tick = on_tick
        self._beat = beat
        self._on_stop = on_stop
        self._facts: NodeFacts = pipeline.facts
        self._facts_due_ns = clock.boot_ns() + FACTS_PERIOD_NS
        self._start_ns = 0
        self._due = 0  # the tick to do, counted from the start: the schedule does not drift
        self._began: tuple[float, int] | None = None  # of the tick under way: monotonic seconds, boot time

    def run(self) -> bool:
        """Tick until stopped; then a last reading, a last batch, and time to ship it. True: all was taken."""
        self._pipeline.note(NoticeKind.AGENT_STARTED, f"{self._facts.source} on {self._facts.node}")
        self._start_ns = self._clock.boot_ns()
        try:
            self._reader.guarded(self._until_stopped)
            self._on_stop()
            log.info("stopping: last reading, last batch, then %g s to ship", self._settings.stop_timeout_s)
            if self._clock.boot_ns() - self.ticks.last_boot_ns >= MIN_TICK_NS:
                try:
                    self._reader.guarded(self.tick)
                except RuntimeError as e:  # no thread may be started, as where many are left in a hung driver
                    log.error("no last reading: %s; what was read before is sealed", e)  # noqa: TRY400
            self._pipeline.note(NoticeKind.AGENT_STOPPED, "asked to stop")
            return self._pipeline.stop(self._settings.stop_timeout_s)
        finally:
            self._pipeline.close()
            self._reader.close()

    def _until_stopped(self) -> None:
        """Begun again, on another thread, where a call to the driver hung: then `tick` goes on with its round."""
        tick_ns = self._settings.tick_ns
        while True:
            self.tick()
            now_ns = self._clock.boot_ns()
            free_ns = self.ticks.last_boot_ns + MIN_TICK_NS  # not too soon behind a tick that began late …
            after_ns = max(now_ns, free_ns - _LATE_NS) - self._start_ns
            next_due = max(self._due + 1, -(-after_ns // tick_ns))
            self.ticks.missed += next_due - self._due - 1
            self._due = next_due
            # … which of the shortest ticks every one does, a little: the next is then as late, and not left out.
            if self._wait_until(max(self._start_ns + self._due * tick_ns, free_ns)):
                return

    def _wait_until(self, due_ns: int) -> bool:
        """True: stop. The wait of a long tick is no silence to who watches the loop."""
        while (left_ns := due_ns - self._clock.boot_ns()) > _PIECE_NS:
            if self._clock.wait(_PIECE_NS / 1e9):
                return True
            self._beat()
        return self._clock.wait(max(0, left_ns) / 1e9)

    def tick(self) -> None:
        """Read all entities once and meter what came. Called again, it goes on with a tick that hung."""
        self._beat()
        if self._began is None:
            self._began = time.monotonic(), self._clock.boot_ns()
        began_s, now_ns = self._began
        if now_ns >= self._facts_due_ns:
            self._ask_facts(now_ns)
        readings = self._reader.read([d.entity for d in self._facts.devices])
        self._began = None  # nothing behind it hangs in the driver
        for reading in readings:
            self._pipeline.observe(reading)
            if reading.error is not None and gone(reading.error):
                self._facts_due_ns = min(self._facts_due_ns, now_ns + FACTS_AFTER_LOSS_NS)
        self._pipeline.advance(self._clock.boot_ns(), self._clock.unix_ns())
        self.ticks.done += 1
        self.ticks.last_boot_ns = now_ns
        self.ticks.last_s = time.monotonic() - began_s
        if self._on_tick is not None:
            self._on_tick(readings)

    def _ask_facts(self, now_ns: int) -> None:
        self._facts_due_ns = now_ns + FACTS_PERIOD_NS
        try:
            facts = self._reader.facts()
        except SourceError as e:
            log.warning("cannot list devices, keeping those known: %s", e)
            return
        if facts != self._facts:
            log.info(
                "the node's devices changed: %d before, %d now", len(self._facts.devices), len(facts.devices)
            )
            self._facts = facts
            self._pipeline.refacts(facts)


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop`; a second one kills, as it would without us."""

    def handle(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
