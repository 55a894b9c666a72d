"""C = N x L x H x U, added up over periods of constant N (reference/regulations.md section 4). Pure.

N units, L seconds, H dense peak FLOP/s (mixed hardware: weighted by unit count), U the average share of that
peak which was really computed. Fractions throughout; rounded once, at the end.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from flopmeter.collector.errors import EstimateError
from flopmeter.contract.w_table import WTable

from .fields import Entry, Fields
from .numbers import rounded
from .peaks import Peak, peak

#: The highest HFU of llm-foundry's 216 published training runs is 79.3 % (test_published.py).
IMPLAUSIBLE = Fraction(80, 100)
NOT_UTILISATION = (
    "U is the share of the dense peak that was computed (30-50 % in good training runs); GPU-Util of nvidia-smi and "
    "utilization.gpu of NVML say how long any kernel ran, stand near 100 % in any busy job, and are not U"
)
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Hardware:
    """So many units of one kind."""

    units: int
    peak: Peak


@dataclass(frozen=True, slots=True)
class Period:
    """A span in which nothing changed: `seconds` of each unit, at `utilisation` of the peak."""

    name: str
    seconds: Fraction
    utilisation: Fraction
    hardware: tuple[Hardware, ...]
    start_unix_ns: int | None = None
    end_unix_ns: int | None = None
    device_hours: bool = False  # said as device-hours: one unit stands for however many there were

    @property
    def units(self) -> int:
        return sum(h.units for h in self.hardware)

    @property
    def mean_peak(self) -> Fraction:
        """H, weighted by unit count."""
        return sum((h.units * h.peak.flop_per_s for h in self.hardware), Fraction(0)) / self.units

    @property
    def ceiling(self) -> Fraction:
        """What the hardware could have done at most: N x L x H."""
        return self.units * self.seconds * self.mean_peak

    @property
    def flop(self) -> Fraction:
        return self.ceiling * self.utilisation


def total(periods: Iterable[Period]) -> int:
    """The sum over all periods, in whole FLOP."""
    return rounded(sum((p.flop for p in periods), Fraction(0)))


def device_seconds(periods: Iterable[Period]) -> Fraction:
    return sum((p.units * p.seconds for p in periods), Fraction(0))


def remarks(periods: Sequence[Period]) -> list[str]:
    """What a reader must know that the figure does not say."""
    found = []
    high = [p for p in periods if p.utilisation > IMPLAUSIBLE]
    if high:
        most = max(p.utilisation for p in high)
        found.append(
            f"warning: U of {float(most):.1%} is above the 79 % of the best of 216 published training runs (llm-foundry). "
            f"{NOT_UTILISATION}."
        )
    for h in {h.peak: h for p in periods for h in p.hardware}.values():
        if not h.peak.confirmed:
            name = h.peak.device or "the given peak"
            why = (
                "the table's clock or SM count is fitted, not published"
                if "SMs" in h.peak.source
                else h.peak.source
            )
            found.append(f"the peak of {name} is not confirmed: {why}")
    spans = [
        (p.start_unix_ns, p.end_unix_ns)
        for p in periods
        if p.start_unix_ns is not None and p.end_unix_ns is not None
    ]
    spans.sort()
    if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
        found.append(
            "periods overlap in time: their units are taken to be different ones, and all are counted"
        )
    return found


def period(entry: Entry, where: Callable[[str], str], table: WTable) -> Period:
    """One period as it is written down. Raises EstimateError naming entry and key."""
    f = Fields(entry, where)
    name = f.optional("name")
    start = end = None
    by_device_hours = f.has("device_hours")
    if by_device_hours:
        for key in ("hours", "seconds", "start", "end", "units", "hardware"):
            if f.has(key):
                raise f.fault(key, "no such key beside device_hours, which is units x hours", entry[key])
        seconds = f.number("device_hours") * _HOUR_S
    else:
        seconds, start, end = _length(f)
    if not f.has("utilisation"):
        raise EstimateError(
            f"{f.name('utilisation')}: expected a share of the dense peak, got nothing", NOT_UTILISATION
        )
    utilisation = f.share("utilisation")
    if utilisation > 1:
        raise EstimateError(
            f"{f.name('utilisation')}: expected at most 1, got {entry['utilisation']!r}",
            f"write 0.4 or 40% for forty per cent. {NOT_UTILISATION}",
        )
    hardware = _hardware(f, where, table, by_device_hours=by_device_hours)
    f.done()
    found = Period(name, seconds, utilisation, hardware, start, end, by_device_hours)
    if found.flop < 1:
        key = next(k for k in ("device_hours", "hours", "seconds", "end") if f.has(k))
        raise f.fault(key, "time for at least one operation", entry[key])
    return found


def _length(f: Fields) -> tuple[Fraction, int | None, int | None]:
    ways = [key for key in ("hours", "seconds", "start") if f.has(key)]
    if len(ways) != 1:
        raise f.fault(
            "hours",
            "how long: hours, or start and end, or device_hours (units x hours)",
            ", ".join(ways) or None,
        )
    if ways == ["hours"]:
        return f.number("hours") * _HOUR_S, None, None
    if ways == ["seconds"]:
        return f.number("seconds"), None, None
    start, end = f.instant("start"), f.instant("end")
    if end <= start:
        raise f.fault("end", "a time after start", f.text("end"))
    return Fraction(end - start, 10**9), start, end


def _hardware(
    f: Fields, where: Callable[[str], str], table: WTable, *, by_device_hours: bool
) -> tuple[Hardware, ...]:
    if not f.has("hardware"):
        return (_one_kind(f, table, units=1 if by_device_hours else None),)
    for key in ("units", "sku", "peak", "dtype"):
        if f.has(key):
            raise f.fault(key, "no such key beside hardware, whose tables say it", f.text(key))

    def inside(_key: str) -> str:
        return f"{where('hardware')}hardware: "

    found = []
    for inner in f.entries("hardware"):
        fields = Fields(inner, inside)
        found.append(_one_kind(fields, table))
        fields.done()
    return tuple(found)


def _one_kind(f: Fields, table: WTable, units: int | None = None) -> Hardware:
    count = f.whole("units") if units is None else units
    device, dtype, given = f.optional("sku"), f.optional("dtype"), f.optional("peak")
    try:
        return Hardware(count, peak(device, dtype, given, table))
    except EstimateError as e:
        key = next((k for k in ("peak", "dtype") if str(e).startswith(k)), "sku")
        raise EstimateError(f"{f.name(key)}: {str(e).removeprefix(key + ': ')}", e.hint) from e
