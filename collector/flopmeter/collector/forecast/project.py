"""From what a run did to what it will have done: rates of recent windows, their spread, and dates. Pure.

Whole numbers and fractions only, so that anybody who redoes it by hand (docs/forecast.md has the formulas and a worked
example) gets the same digits. The lower edge is made of lower bounds and the slowest window, the upper edge of upper
bounds and the fastest one, so that what nobody measured widens the interval and never moves it.

No record of a steady run shows the standstill that is still to come. So each edge is reckoned with one block more than
was seen: one of nothing for the lower, one of twice the fastest for the upper. Without them the interval held too
seldom in the back-test; with them about as often as it says (docs/forecast.md has both).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, isqrt
from typing import NamedTuple

from flopmeter.collector.law.lines import Target
from flopmeter.contract.flop import Figure

#: Version of the method: kept with every forecast, so that an old one is derived again as it was made.
METHOD = "flopmeter-forecast/1"
HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
#: Recent history is cut into at most so many blocks of equal length …
MAX_BLOCKS = 12
#: … of at most so many hours each: three days in all.
MAX_BLOCK_HOURS = 6
#: Fewer say nothing about their own spread: no forecast yet.
MIN_BLOCKS = 4
#: Windows that the edges look at, in blocks from the end: 6 h, 24 h and 72 h of a run that is older than three days.
WINDOWS = (1, 4, 12)
#: The lower edge counts on so many times as long as the run has lasted: what went on for a day is not known to go on for
#: a month. Without it one course in five was said to meet a line that it did not meet, with it one in fifty.
BELIEVED = 3
#: Dates further ahead are not told: no calendar and no law that is known today reaches there.
MAX_AHEAD_NS = 36_525 * DAY_NS
#: Student's t by degrees of freedom (blocks seen, since one more is reckoned with), in thousandths, of the two-sided
#: interval that holds that share in percent. NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2; a test
#: integrates the distribution again.
T_PERMILLE: Mapping[int, Mapping[int, int]] = {
    80: {4: 1533, 5: 1476, 6: 1440, 7: 1415, 8: 1397, 9: 1383, 10: 1372, 11: 1363, 12: 1356},
    90: {4: 2132, 5: 2015, 6: 1943, 7: 1895, 8: 1860, 9: 1833, 10: 1812, 11: 1796, 12: 1782},
    95: {4: 2776, 5: 2571, 6: 2447, 7: 2365, 8: 2306, 9: 2262, 10: 2228, 11: 2201, 12: 2179},
    99: {4: 4604, 5: 4032, 6: 3707, 7: 3499, 8: 3355, 9: 3250, 10: 3169, 11: 3106, 12: 3055},
}
CONFIDENCES = tuple(T_PERMILLE)


@dataclass(frozen=True, slots=True)
class History:
    """What was counted, in one way of counting, and when. All of one moment."""

    total: Figure  # counted by now, what the run stands on included
    own: Figure  # of that, the run's own work
    age_ns: int  # since the run's first usage
    block_ns: int  # length of a block
    blocks: tuple[Figure, ...]  # what each added to the total, oldest first; the last ends with a whole hour


class Rates(NamedTuple):
    """FLOP per nanosecond."""

    lower: Fraction
    point: Fraction
    upper: Fraction
    believed_ns: int  # for how long the lower one is counted on


class Crossing(NamedTuple):
    """When a line is met, in Unix ns; None: never at that rate, or not within a hundred years; of the latest: not within
    the time for which the lower rate is counted on.
    """

    earliest: int | None
    point: int | None
    latest: int | None


def block_hours(whole_hours: int) -> tuple[int, int]:
    """(hours of a block, number of blocks) for a run that has been going for that many whole hours."""
    hours = min(MAX_BLOCK_HOURS, max(1, -(-whole_hours // MAX_BLOCKS)))
    return hours, max(0, min(MAX_BLOCKS, whole_hours // hours))


def at_rest(history: History) -> bool:
    """Whether nothing was done in all of the recent history, gaps included: growth is not forecast from the dead."""
    return not any(b.upper for b in history.blocks)


def rates(history: History, confidence: int) -> Rates | None:
    """How fast the run goes; None: too young to tell. `confidence`: one of CONFIDENCES, in percent."""
    n = len(history.blocks)
    if n < MIN_BLOCKS:
        return None
    age = Fraction(1, history.age_ns) if history.age_ns > 0 else Fraction(0)
    believed_ns = BELIEVED * max(0, history.age_ns)
    if at_rest(
        history
    ):  # it may come back, and then as fast as it was on the whole: less, the longer it is silent
        return Rates(Fraction(0), Fraction(0), history.own.upper * age, believed_ns)
    lowers, points, uppers = zip(*((b.lower, b.point, b.upper) for b in history.blocks), strict=True)
    t = T_PERMILLE[confidence][n]
    standstill, burst = (*lowers, 0), (*uppers, 2 * max(uppers))
    slow = (Fraction(sum(standstill), n + 1) - margin(standstill, t)) / history.block_ns
    fast = (Fraction(sum(burst), n + 1) + margin(burst, t)) / history.block_ns
    return Rates(
        max(Fraction(0), min(slow, history.own.lower * age, *windows(lowers, history.block_ns).values())),
        Fraction(sum(points), n * history.block_ns),
        max(fast, history.own.upper * age, *windows(uppers, history.block_ns).values()),
        believed_ns,
    )


def windows(blocks: Sequence[int], block_ns: int) -> dict[int, Fraction]:
    """Mean rate of the last 1, 4, 12 blocks, and of all, by number of blocks: idle time counts as what it is."""
    n = len(blocks)
    return {k: Fraction(sum(blocks[n - k :]), k * block_ns) for k in sorted({*WINDOWS, n}) if k <= n}


def margin(blocks: Sequence[int], t_permille: int) -> Fraction:
    """How much, per block: t x s x sqrt(2/n), the root rounded up. So far the mean of a stretch to come, as long as
    this one, may lie from this one's mean; s is the standard deviation of the blocks.
    """
    n = len(blocks)
    q = n * sum(x * x for x in blocks) - sum(blocks) ** 2  # n (n-1) s^2
    # (t/1000)^2 x s^2 x 2/n = t^2 x 2q / (n-1) / (1000 n)^2
    return Fraction(_root_up(-(-t_permille * t_permille * 2 * q // (n - 1))), 1000 * n)


def _root_up(n: int) -> int:
    root = isqrt(n)
    return root if root * root == n else root + 1


def projected(total: Figure, rate: Rates, ahead_ns: int) -> Figure:
    """The total in `ahead_ns`: never below what is counted already."""
    ahead = max(0, ahead_ns)
    return Figure(
        total.lower + floor(rate.lower * min(ahead, rate.believed_ns)),
        total.point + floor(rate.point * ahead),
        total.upper + ceil(rate.upper * ahead),
    )


def crossing(total: Figure, rate: Rates, line: Target, now_unix_ns: int) -> Crossing:
    """When the line is met, if it goes on like that; the moment itself where it may have been already."""
    return Crossing(
        _when(total.upper, rate.upper, line.lower, now_unix_ns, MAX_AHEAD_NS),
        _when(total.point, rate.point, line.point, now_unix_ns, MAX_AHEAD_NS),
        _when(total.lower, rate.lower, line.upper, now_unix_ns, min(rate.believed_ns, MAX_AHEAD_NS)),
    )


def _when(done: int, rate: Fraction, goal: int, now_unix_ns: int, most_ns: int) -> int | None:
    if done >= goal:
        return now_unix_ns
    if rate <= 0:
        return None
    ahead = ceil((goal - done) / rate)
    return now_unix_ns + ahead if ahead <= most_ns else None
