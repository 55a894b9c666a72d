"""The SM clock between two readings (reference/metering.md 3.1): the driver's own buffer, else what was polled.

Percentages are turned into cycles by the mean of these samples, so they must be those of the interval: each is
taken with its time, and one that lies after the reading stays for the next. Where the driver has no buffer, or
one that is shorter than the time between readings, a Poller collects in between.
"""

import logging
import threading
import time
from collections.abc import Callable
from operator import itemgetter

from flopmeter.contract.clock import Clock
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ

from . import nvml_calls as nvml
from .nvml_calls import Handle, NvmlError, Ring
from .values import clock_mhz

log = logging.getLogger(__name__)

#: 10 Hz: NVIDIA's own benchmark polls faster, to see single kernels; a second's mean needs no more
#: (reference/metering.md 3.1: "10-20 Hz").
POLL_S = 0.1
#: So long may one round of polling take; a GPU that hangs in it must not cost the others their clocks.
HUNG_PERIODS = 10
#: A reading carries at most so many samples and both extremes; of more, neighbours become their mean.
MAX_SAMPLES = 512
#: The driver stamps samples with the wall clock in us; stamps further from it than this are another clock's.
_SAME_CLOCK_US = 10_000_000
#: Readings in a row for which the buffer had nothing; then it is not used any more.
_EMPTY_READINGS = 3

Sample = tuple[int, float]  # wall clock in us, MHz
_MHZ = itemgetter(1)


class Clocks:
    """The SM clock of one entity. `take` by its reader; `collect` by the poller; neither waits for the other."""

    __slots__ = (
        "_clock",
        "_empty",
        "_foreign",
        "_kept",
        "_last_us",
        "_lock",
        "_now",
        "_ring",
        "_seen_us",
        "short",
    )

    def __init__(self, handle: Handle, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._now = nvml.sm_clock(handle)
        self._kept = Kept()
        self._seen_us = 0
        self._last_us = 0  # wall clock of the reading before
        self._empty = 0
        self._foreign = False  # the buffer's stamps are not of the wall clock
        self.short = True  # the buffer does not reach from one reading to the next, or there is none
        self._ring: Ring | None = None
        try:
            ring = Ring(handle)
            past = ring.since(0)
        except NvmlError as e:
            if e.code in nvml.FATAL:
                raise
            log.info("nvml: no clock samples: %s", e.name)
            return
        if ring.room:
            self._ring, self.short = ring, False
            self._start_at(past)

    def _start_at(self, past: list[Sample]) -> None:
        """The buffer's past belongs to no interval of ours."""
        now_us = self._clock.unix_ns() // 1_000
        newest = past[-1][0] if past else now_us
        self._foreign = abs(newest - now_us) > _SAME_CLOCK_US
        self._seen_us = newest

    def take(self, t_unix_ns: int, *, history: bool) -> tuple[float, ...]:
        """MHz of the samples since the reading before up to `t_unix_ns`; without any, the clock of this moment.

        `history` False: the moment is enough (cycles were counted). Raises NvmlError if it is fatal.
        """
        samples: list[Sample] = []
        until_us = t_unix_ns // 1_000
        if history and self._lock.acquire(blocking=False):  # else the poller hangs in the driver
            try:
                self._drain()
                samples = self._kept.take(None if self._foreign else until_us)
                self._empty = 0 if samples else self._empty + 1
                if self._ring is not None and self._empty >= _EMPTY_READINGS:
                    log.info("nvml: the buffer of clock samples stays empty: clocks are polled")
                    self._ring, self.short = None, True
            finally:
                self._lock.release()
        self._last_us = until_us
        clocks = list(map(float, map(_MHZ, samples)))
        # A NaN makes the sum NaN, whatever is least and most.
        if clocks and not (sum(clocks) > 0 and min(clocks) > 0 and max(clocks) <= MAX_SM_CLOCK_MHZ):
            clocks = [mhz for mhz in clocks if 0 < mhz <= MAX_SM_CLOCK_MHZ]
        if not clocks or self._ring is None:
            now = clock_mhz(self._now.ask())
            if now is not None:
                clocks.append(now)
        return tuple(clocks)

    def collect(self) -> None:
        """Between readings: empty the buffer before it wraps, or ask for the clock of this moment."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._ring is not None:
                self._drain()
            elif (mhz := self._now.ask()) and mhz <= MAX_SM_CLOCK_MHZ:
                self._kept.add([(self._clock.unix_ns() // 1_000, mhz)])
        finally:
            self._lock.release()

    def _drain(self) -> None:
        if self._ring is None:
            return
        now_us = self._clock.unix_ns() // 1_000
        if not self._foreign and self._seen_us > now_us + 1_000_000:
            self._seen_us = self._last_us = now_us  # the wall clock went back, and the stamps with it
        if not self._foreign:  # what lies before the reading before was left there
            self._seen_us = max(self._seen_us, self._last_us)
        try:
            fresh = self._ring.since(self._seen_us)
        except NvmlError as e:
            if e.code in nvml.FATAL:
                raise
            if e.code in nvml.NEVER:
                self._ring, self.short = None, True
            return
        if fresh:
            self._seen_us = fresh[-1][0]
            self.short = self.short or len(fresh) >= self._ring.room
            self._kept.add(fresh)


class Kept:
    """Samples of one interval, in order: all, or means of neighbours, and both extremes, which are the bounds.

    Means, because a clock that swings in step with what is left out has another mean than what is kept.
    """

    __slots__ = ("_extremes", "_group", "_samples", "_stride")

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._extremes: dict[bool, Sample] = {}  # highest?
        self._stride = 1  # so many become one
        self._group: list[Sample] = []  # of the next one, so far

    def add(self, samples: list[Sample]) -> None:
        if self._stride == 1 and len(self._samples) + len(samples) <= MAX_SAMPLES:
            self._samples += samples
            return
        for highest, choose in ((False, min), (True, max)):
            known = [self._extremes[highest]] if highest in self._extremes else self._samples
            self._extremes[highest] = choose([*known, *samples], key=lambda s: s[1])
        for sample in samples:
            if not self._group and len(self._samples) >= MAX_SAMPLES:
                self._samples = [_mean(self._samples[i : i + 2]) for i in range(0, len(self._samples), 2)]
                self._stride *= 2
            self._group.append(sample)
            if len(self._group) >= self._stride:
                self._samples.append(_mean(self._group))
                self._group = []

    def take(self, until_us: int | None) -> list[Sample]:
        """Those up to `until_us`, or all; the others stay for the next interval."""
        if self._group:
            self._samples.append(_mean(self._group))
        taken, left = self._samples, []
        if until_us is not None and taken and taken[-1][0] > until_us:
            # What lies far ahead was stamped before the wall clock went back: it is nobody's.
            left = [s for s in taken if until_us < s[0] <= until_us + _SAME_CLOCK_US]
            taken = [s for s in taken if s[0] <= until_us]
        if self._extremes:
            taken = [*taken, *(s for s in self._extremes.values() if until_us is None or s[0] <= until_us)]
        self._samples = left
        self._extremes = {}
        self._stride, self._group = 1, []
        return taken


def _mean(samples: list[Sample]) -> Sample:
    """At the time of the last."""
    return samples[-1][0], sum(mhz for _, mhz in samples) / len(samples)


class Poller:
    """Calls `collect` every `period_s` on a daemon thread of its own, from `need` until `stop`.

    A call that outlives HUNG_PERIODS is left behind, and another thread goes on: `collect` passes over what hangs.
    """

    def __init__(self, collect: Callable[[], None], period_s: float = POLL_S) -> None:
        self._collect = collect
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._began_s = 0.0  # of the call under way

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def need(self) -> None:
        """Asked at each reading that needs it."""
        if self._stop.is_set() or self._period_s <= 0:
            return
        if self._thread is not None:
            began_s = self._began_s
            if not began_s or time.monotonic() - began_s < HUNG_PERIODS * self._period_s:
                return
        self._began_s = 0.0
        self._thread = threading.Thread(target=self._run, name="clocks", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        me = threading.current_thread()
        while not self._stop.wait(self._period_s) and self._thread is me:
            self._began_s = time.monotonic()
            try:
                self._collect()
            except Exception:
                # The source reads on: clocks are then those of the readings.
                log.exception("nvml: the clock poller ends")
                self._began_s = 0.0
                return
            if self._thread is me:
                self._began_s = 0.0

    def stop(self) -> None:
        """Not waited for: a call that hangs in the driver is left to the process's end."""
        self._stop.set()
