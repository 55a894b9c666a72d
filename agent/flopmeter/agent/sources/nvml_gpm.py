"""GPM of one entity: since-boot cycle counters, and percentages and rates since the sample before."""

import logging
from collections.abc import Mapping
from typing import NamedTuple

from flopmeter.agent.reading import CYCLE_IDS, DRAM_BW_UTIL, PERCENT_IDS, RATE_IDS
from flopmeter.contract.clock import Clock

from . import nvml_calls as nvml
from .nvml_calls import GpmPair, NvmlError
from .values import amounts, counters, percents

log = logging.getLogger(__name__)

#: Two GPM samples closer than this give invalid values (reference/metering.md 0.3, 1.2), with room.
MIN_APART_NS = 120_000_000
#: A sample takes tens of microseconds. One that took less than this is as good as taken at once: it is a fifth of the
#: 2 % of the shortest tick that an interval may be off anyway (metering/interval.ELAPSED_TOLERANCE_PERCENT).
LATE_FROM_NS = 1_000_000
_PERCENTS = (*PERCENT_IDS, DRAM_BW_UTIL)
#: Asked for in this order: percentages, rates, cycles.
ALL_IDS = (*_PERCENTS, *RATE_IDS, *CYCLE_IDS)
#: A metric that fails so is never asked for again. INVALID_ARGUMENT: an id that the driver does not know.
_NEVER = nvml.NEVER | {2}
_KINDS = frozenset(_PERCENTS), frozenset(RATE_IDS), frozenset(CYCLE_IDS)


class GpmValues(NamedTuple):
    """One sample, and the averages since the one before, `since_ns`."""

    t_ns: int  # boot time right after the sample
    late_ns: int  # the sample may be older than that by up to this; 0: by less than LATE_FROM_NS
    since_ns: int
    cycles: Mapping[int, int]
    percent: Mapping[int, float]
    rates_mib_s: Mapping[int, float]


class Gpm:
    """Reads one entity; by one thread at a time."""

    __slots__ = ("_clock", "_cycles_at", "_kinds", "_pair", "_probed", "_rates_at", "taken_ns")

    def __init__(self, pair: GpmPair, clock: Clock) -> None:
        """Takes the first sample. Raises NvmlError."""
        self._pair = pair
        self._clock = clock
        self._probed = False
        try:
            pair.take()
        except NvmlError:
            pair.free()
            raise
        self.taken_ns = clock.boot_ns()

    def read(self) -> GpmValues:
        """Raises NvmlError."""
        since_ns = self.taken_ns
        asked_ns = self._clock.boot_ns()
        too_early_ns = since_ns + MIN_APART_NS - asked_ns
        if too_early_ns > 0:  # the first reading after the start
            self._clock.wait(too_early_ns / 1e9)
            asked_ns = self._clock.boot_ns()
        self._pair.take()
        self.taken_ns = t_ns = self._clock.boot_ns()
        late_ns = t_ns - asked_ns if t_ns - asked_ns >= LATE_FROM_NS else 0
        codes, values = self._pair.get() if self._probed else self._probe()
        if any(codes):  # some fail alone
            good = [(i, v) for i, code, v in zip(self._pair.ids, codes, values, strict=True) if not code]
            parts = [tuple(zip(*(p for p in good if p[0] in kind), strict=True)) for kind in _KINDS]
            some = [part or ((), ()) for part in parts]
            return GpmValues(
                t_ns, late_ns, since_ns, counters(*some[2]), percents(*some[0]), amounts(*some[1])
            )
        (shares, flows, counts), p, r = self._kinds, self._rates_at, self._cycles_at
        return GpmValues(
            t_ns,
            late_ns,
            since_ns,
            counters(counts, values[r:]),
            percents(shares, values[:p]),
            amounts(flows, values[p:r]),
        )

    @property
    def worked(self) -> bool:
        """It gave values before: whatever it says now, it may again."""
        return self._probed

    def _probe(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The first time all ids are tried; those that this driver can answer are kept."""
        pair = self._pair
        pair.ask_for(ALL_IDS)
        try:
            codes, values = pair.get()
        except NvmlError as error:
            if error.code in nvml.FATAL:
                raise
            # A driver that refuses the whole list for one id it does not know: one by one, once.
            alone = [self._one(metric) for metric in ALL_IDS]
            codes, values = tuple(c for c, _ in alone), tuple(v for _, v in alone)
        kept = [i for i, code in enumerate(codes) if code not in _NEVER]
        if len(kept) < len(ALL_IDS):
            log.info("nvml: GPM gives %d of %d metrics", len(kept), len(ALL_IDS))
        if not kept:
            raise NvmlError(nvml.NOT_SUPPORTED)
        pair.ask_for(tuple(ALL_IDS[i] for i in kept))
        self._kinds = shares, flows, _ = [tuple(i for i in pair.ids if i in kind) for kind in _KINDS]
        self._rates_at, self._cycles_at = len(shares), len(shares) + len(flows)
        self._probed = True
        return tuple(codes[i] for i in kept), tuple(values[i] for i in kept)

    def _one(self, metric: int) -> tuple[int, float]:
        self._pair.ask_for((metric,))
        try:
            (code,), (value,) = self._pair.get()
        except NvmlError as error:
            if error.code in nvml.FATAL:
                raise
            return error.code, 0.0
        return code, value

    def close(self) -> None:
        self._pair.free()
