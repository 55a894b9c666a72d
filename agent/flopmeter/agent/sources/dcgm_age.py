"""How old what an exporter says is: when it collects, and whether it still does. Pure.

A page has no timestamps, and an exporter goes on serving what it has when its host engine is gone
(reference/metering.md 2.1, 2.2). What a GPU cannot keep still tells a new collection: its energy counter rises
even in idleness, and its power, clock and utilisation are samples.
"""

from collections import deque
from dataclasses import dataclass, field

from . import dcgm_fields as fields
from .dcgm_page import Rows, Scrape

#: Pages are fetched this often where the exporter collects every 30 s (its default): none of its averages is
#: missed. Once it was seen to collect as often as that, or has cycle totals, every second.
SLOW_NS = 5_000_000_000
FAST_NS = 1_000_000_000
#: An energy counter that stands still for this long (four default collect intervals), or for four times as long
#: as it was ever seen to, is no reading of a GPU: the page is stale.
STILL_NS = 120_000_000_000
_TIMES_USUAL = 4
#: So many collections in a row that moved the energy and left every ratio the same to its last digit: the
#: profiling module has stopped. Ratios are printed with six digits, and steady work jitters in the third; one
#: below 1 % has too few digits for that (an idle T4 was recorded with DRAM at 0.000001), and 100 % none.
FROZEN_AFTER = 5
_JITTERS_PCT = (1.0, 99.5)
_LOOK_BACK = 12


@dataclass(slots=True)
class _Gpu:
    energy: int | float | None = None
    energy_ns: int = -1  # when it was first seen so
    usual_ns: int = 0  # the longest that it stood still and then went on
    sampled: tuple[int | float | None, ...] = ()
    ratios: tuple[float, ...] = ()
    same: int = 0  # collections in a row with these ratios


@dataclass(slots=True)
class Freshness:
    """Told of every page. Judges GPUs; a MIG instance is as fresh as its GPU."""

    gpus: dict[str, _Gpu] = field(default_factory=dict)
    news: deque[bool] = field(default_factory=lambda: deque(maxlen=_LOOK_BACK))
    fast: bool = False

    def took(self, scrape: Scrape, now_ns: int) -> None:
        new = False
        for uuid, rows in scrape.rows.items():
            if not rows.device.mig:
                gpu = self.gpus.setdefault(uuid, _Gpu())
                ratios = [*_ratios(rows)]
                for other in scrape.rows.values():
                    if other.device.parent == uuid:
                        ratios += _ratios(other)
                new |= _took(gpu, rows, tuple(ratios), now_ns)
        self.news.append(new)
        totals = any(rows.cycles for rows in scrape.rows.values())
        if totals or (not self.fast and len(self.news) >= 4 and all([*self.news][-3:])):
            self.fast = True
        elif self.fast and len(self.news) == _LOOK_BACK and sum(self.news) <= 1:
            self.fast = False

    @property
    def refresh_ns(self) -> int:
        return FAST_NS if self.fast else SLOW_NS

    @property
    def outrun(self) -> bool:
        """Every page of the last dozen seconds was new: averages may be over less time than lies between them."""
        return self.fast and len(self.news) == _LOOK_BACK and all(self.news)

    def stale(self, uuid: str, now_ns: int) -> bool:
        gpu = self.gpus.get(uuid)
        if gpu is None or gpu.energy is None:
            return False
        return now_ns - gpu.energy_ns > max(STILL_NS, _TIMES_USUAL * gpu.usual_ns)

    def frozen(self, uuid: str) -> bool:
        gpu = self.gpus.get(uuid)
        low, high = _JITTERS_PCT
        return gpu is not None and gpu.same >= FROZEN_AFTER and any(low < r < high for r in gpu.ratios)


def _ratios(rows: Rows) -> list[float]:
    return [value for _, value in sorted(rows.percents.items())]


def _took(gpu: _Gpu, rows: Rows, ratios: tuple[float, ...], now_ns: int) -> bool:
    """Whether the page holds a collection later than the last one's."""
    get = rows.quantities.get
    energy = get(fields.ENERGY)
    sampled = (get(fields.POWER), get(fields.CLOCK), get(fields.UTILIZATION))
    moved = energy is not None and energy != gpu.energy
    new = moved or sampled != gpu.sampled or ratios != gpu.ratios
    gpu.same = 0 if ratios != gpu.ratios else gpu.same + moved
    if moved:
        if gpu.energy is not None:
            gpu.usual_ns = max(gpu.usual_ns, now_ns - gpu.energy_ns)
        gpu.energy_ns = now_ns
    gpu.energy, gpu.sampled, gpu.ratios = energy, sampled, ratios
    return new
