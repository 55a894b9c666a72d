"""The pass lines of reference/metering.md section 8, as pure functions of numbers. Each says what it expected."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One line of an experiment: ok None = noted, nothing to pass."""

    name: str
    measured: float | str | None
    expected: str
    ok: bool | None

    def data(self) -> dict[str, Any]:
        return asdict(self)


def ratio(measured: float, true: float) -> float:
    """measured / true; NaN where there is nothing to compare with."""
    return measured / true if true else math.nan


def within(name: str, measured: float, expected: float, percent: float) -> Check:
    """|measured / expected - 1| <= percent. NaN never passes."""
    ok = bool(expected) and abs(measured / expected - 1) * 100 <= percent
    return Check(name, measured, f"{expected:g} within {percent:g} %", ok)


def at_most(name: str, measured: float, limit: float) -> Check:
    return Check(name, measured, f"at most {limit:g}", measured <= limit)


def at_least(name: str, measured: float, limit: float) -> Check:
    return Check(name, measured, f"at least {limit:g}", measured >= limit)


def between(name: str, measured: float, low: float, high: float) -> Check:
    return Check(name, measured, f"{low:g} to {high:g}", low <= measured <= high)


def equal(name: str, measured: object, expected: object) -> Check:
    return Check(name, str(measured), str(expected), measured == expected)


def noted(name: str, measured: float | str | None, about: str = "noted") -> Check:
    return Check(name, measured, about, None)


def bounds_hold(name: str, lower: int, true: int, upper: int) -> Check:
    """The truth lies within the bounds, which is what flopmeter claims whatever ran."""
    text = f"{lower:.4g} to {upper:.4g}"
    return Check(name, f"{true:.4g}", f"within the stated bounds {text}", lower <= true <= upper)


def counted_over(counts_per_clock: float, sms: int) -> str:
    """Scale of id 248 (7.2, item 2): "average" near 1 count per clock, "sum" near one per SM, else ""."""
    for scale, expected in (("average", 1.0), ("sum", float(sms))):
        if abs(counts_per_clock - expected) <= 0.1 * expected:
            return scale
    return ""


def stable_constant(values: Sequence[float], percent: float = 1.0, least: int = 10) -> float | None:
    """k_p: the mean, if at least ten intervals lie within 1 % of it (7.2, item 2); else None."""
    if len(values) < least or not all(math.isfinite(v) for v in values):
        return None
    mean = math.fsum(values) / len(values)
    return mean if mean and all(abs(v / mean - 1) * 100 <= percent for v in values) else None


def nearest_rate(implied: float, rates: Mapping[str, int], percent: float = 3.0) -> str:
    """The W table's rate that lies within `percent` of the implied one, by name; "" if none does."""
    close = {name: abs(implied / rate - 1) * 100 for name, rate in rates.items()}
    best = min(close, key=lambda name: close[name], default="")
    return best if best and close[best] <= percent else ""


def moved(cycles: Mapping[str, int], least_share: float = 0.05) -> dict[str, float]:
    """Pipes that ran, with their share of the elapsed cycles: above 5 %, as in 7.2."""
    elapsed = cycles.get("elapsed", 0)
    pipes = {name: count / elapsed for name, count in cycles.items() if name != "elapsed"} if elapsed else {}
    return {name: share for name, share in pipes.items() if share > least_share}


def fp8_place(hmma: int, other: int) -> str:
    """Where FP8 work was counted (4.1): "hmma", "any" (only the any-tensor counter saw it), "both" or ""."""
    whole = hmma + other
    if whole <= 0:
        return ""
    share = hmma / whole
    return "hmma" if share >= 0.97 else "any" if share <= 0.03 else "both"


def agree(name: str, sums: Mapping[str, float], percent: float) -> Check:
    """All sums within `percent` of their mean."""
    values = list(sums.values())
    mean = math.fsum(values) / len(values) if values else 0.0
    worst = max((abs(v / mean - 1) * 100 for v in values), default=math.inf) if mean else math.inf
    shown = ", ".join(f"{key}: {value:.6g}" for key, value in sums.items())
    return Check(name, shown, f"within {percent:g} % of each other (worst {worst:.3g} %)", worst <= percent)


def smallest_honest_tick(ratios: Mapping[float, float], percent: float = 1.0) -> float | None:
    """The shortest tick from which on every longer one is right too; None if the longest is not."""
    honest: float | None = None
    for tick in sorted(ratios, reverse=True):
        if not math.isfinite(ratios[tick]) or abs(ratios[tick] - 1) * 100 > percent:
            break
        honest = tick
    return honest


def slope_mhz(samples: Sequence[tuple[int, int]]) -> float | None:
    """Mean clock from (time ns, cycles) at the ends of a stretch; None if it is not one."""
    if len(samples) < 2:
        return None
    (t1, c1), (t2, c2) = samples[0], samples[-1]
    return (c2 - c1) * 1_000 / (t2 - t1) if t2 > t1 and c2 > c1 else None


def energy_integral_mj(samples: Sequence[tuple[int, int]]) -> int:
    """Millijoules under (time ns, milliwatt) samples, by trapezoids."""
    total = 0
    for (t1, p1), (t2, p2) in pairwise(samples):
        total += (p1 + p2) * (t2 - t1)
    return total // 2_000_000_000
