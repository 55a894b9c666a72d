"""k_p: what one count of a pipe's cycle counter is worth, told by the pipe's own percentage. Pure.

NVML says that a percentage is a share of the elapsed SM cycles, and does not say what its cycle counters are summed
or averaged over (reference/metering.md 1.3, 3.1). Where a reading has both, they are held against each other:

    k_p = percentage / 100 / (counter's difference / difference of id 248)

k_p is 1 until the readings say otherwise. An interval in which a pipe's counter, times its k_p, is not what its
percentage says is priced by the percentages. Ten such intervals in a row whose k_p is the same within 1 % make a
new k_p, for all devices of the model under this driver; others leave the pipe to the percentages.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flopmeter.agent.reading import (
    ANY_TENSOR_UTIL,
    CYCLE_IDS,
    DFMA_TENSOR_UTIL,
    DMMA_TENSOR_UTIL,
    FP16_UTIL,
    FP32_UTIL,
    FP64_UTIL,
    HMMA_TENSOR_UTIL,
    IMMA_TENSOR_UTIL,
    INTEGER_UTIL,
    MAX_PERCENT,
    PERCENT_IDS,
    SM_UTIL,
)

ONE = 1_000_000  # k_p is held in parts per million, as contract.usage.Anchor.k_ppm
PLACES = len(CYCLE_IDS)
EXACT = (ONE,) * PLACES
#: The percentage that speaks of the same thing as each counter, in CYCLE_IDS order (reference/metering.md 1.3,
#: 2.1: 1004 is 250, 1013-1015 are 253, 252 and 254). Id 248 is what all of them are shares of.
PERCENT_OF = (
    0,
    SM_UTIL,
    ANY_TENSOR_UTIL,
    DMMA_TENSOR_UTIL,
    HMMA_TENSOR_UTIL,
    IMMA_TENSOR_UTIL,
    DFMA_TENSOR_UTIL,
    INTEGER_UTIL,
    FP64_UTIL,
    FP32_UTIL,
    FP16_UTIL,
)
PAIRS = tuple(enumerate(PERCENT_OF))[1:]
NAMES = ("elapsed", "SM active", "tensor", "dmma", "hmma", "imma", "dfma", "int", "fp64", "fp32", "fp16")

#: A pipe may read this much above the elapsed cycles before it is refused: DCGM's own acceptance limit of
#: a ratio (reference/metering.md 2.2, "ratios outside [0, 1.005] are blanks or errors").
PIPE_TOLERANCE_PERMILLE = 1_005
PERCENT_UNITS = 1_000_000  # percentages are held in 10^-6 percent
HUNDRED_PERCENT = 100 * PERCENT_UNITS
#: Counter and percentage agree within 1 %, the stability that metering.md 7.2 item 2 asks of k_p, plus half of
#: a tenth of a percent, so that percentages written with one decimal do not look like another k_p.
TOLERANCE_PERMILLE = 10
SLACK_PERCENT = 0.05
_SLACK = round(SLACK_PERCENT * PERCENT_UNITS)
#: k_p is taken from pipes above 5 %, and accepted when ten in a row lie within 1 % (metering.md 7.2, item 2).
EVIDENCE = 5 * PERCENT_UNITS
ENOUGH = 10
#: A pipe above this that agrees has the k_p in use: ten times what agreement leaves open.
SHOWN = 10 * _SLACK
STABLE_PERMILLE = 10
#: Below this the six digits of parts per million are too coarse (0.05 %), above it the wire's 32 bits end. The
#: smallest to be expected is a sum over 4 quarters of each of 188 SMs, 1,330 ppm.
MIN_K_PPM = 1_000
MAX_K_PPM = (1 << 32) - 1
_PPB = 1_000_000_000
STOOD_STILL = "counter 248 stood still, and a pipe was active"

_AT_ODDS, _NO_CONSTANT = 1, 2  # what was said of a pipe


class Judged(NamedTuple):
    """One pipe of one interval: the k_p that its percentage asks for, in 10^-9 (0: the counter stood still)."""

    place: int  # in CYCLE_IDS
    k_ppb: int
    agrees: bool  # with the k_p in use
    part: int  # the percentage, in PERCENT_UNITS

    @property
    def evidence(self) -> bool:
        """The pipe was busy enough to tell its k_p."""
        return self.part > EVIDENCE


class Finding(NamedTuple):
    """Something about a pipe that should be said. `accepted`: its k_p is another one from now on."""

    about: str
    text: str
    accepted: bool


def clean(percent: Mapping[int, float]) -> tuple[dict[int, int], str]:
    """Usable percentages in units of 10^-6 percent, at most 100 %, and what was refused."""
    fractions: dict[int, int] = {}
    refused = ""
    for key in PERCENT_IDS:
        value = percent.get(key)
        if value is None:
            continue
        if 0 <= value <= MAX_PERCENT:  # false for NaN
            fractions[key] = min(round(value * PERCENT_UNITS), HUNDRED_PERCENT) if value else 0
        else:
            refused = refused or f"percentage {key}: expected 0 to {MAX_PERCENT}, got {value}"
    return fractions, refused


def agree(deltas: Sequence[int], percent: Mapping[int, float], k: Sequence[int]) -> bool:
    """Whether nothing is at odds, quickly and in floats; `judge` has the last word where this says no."""
    per_cycle = 1 / (deltas[0] * (ONE // 100))
    get = percent.get
    for place, key in PAIRS:
        said = get(key)
        if said is not None and (said or deltas[place]):  # most pipes stand still, by both
            counted = deltas[place] * k[place] * per_cycle
            if abs(said - counted) > SLACK_PERCENT + said * (TOLERANCE_PERMILLE / 1_000):
                return False
    return True


def judge(deltas: Sequence[int], fractions: Mapping[int, int], k: Sequence[int]) -> tuple[Judged, ...]:
    """Each pipe that has a counter's difference and a percentage. `deltas[0]` is id 248's and not 0."""
    elapsed = deltas[0]
    found = []
    for place, key in PAIRS:
        part = fractions.get(key)
        if part is None:
            continue
        said = part * elapsed
        counted = deltas[place] * k[place] * (HUNDRED_PERCENT // ONE)
        agrees = abs(said - counted) <= said * TOLERANCE_PERMILLE // 1_000 + _SLACK * elapsed
        k_ppb = said * _PPB // (deltas[place] * HUNDRED_PERCENT) if deltas[place] else 0
        found.append(Judged(place, k_ppb, agrees, part))
    return tuple(found)


@dataclass(slots=True)
class Ratios:
    """The k_p of one model under one driver, and what there is against them. All integers."""

    k: tuple[int, ...] = EXACT
    recent: dict[int, list[int]] = field(default_factory=dict)  # place -> the last k_ppb at odds, in a row
    said: dict[int, int] = field(default_factory=dict)

    @property
    def disputed(self) -> bool:
        """Some counter's worth is not known: without percentages its cycles would be a guess."""
        return bool(self.recent)

    def note(self, judged: Sequence[Judged], *, accept: bool = True) -> list[Finding]:
        """Learn from one interval; what came of it. A k_p that changed is in `k` already.

        `accept` False: not the time for another k_p yet; one interval's evidence less is kept than it takes.
        """
        found: list[Finding] = []
        for one in judged:
            place, k_ppb, agrees, part = one
            if agrees:
                if part > SHOWN:
                    self.recent.pop(place, None)
                continue
            if one.evidence:
                recent = self.recent.setdefault(place, [])
                recent.append(k_ppb)
                del recent[: -(ENOUGH if accept else ENOUGH - 1)]
                finding = self._verdict(place, recent)
            else:
                finding = self._at_odds(place, k_ppb)
            if finding is not None:
                found.append(finding)
        return found

    def _verdict(self, place: int, recent: list[int]) -> Finding | None:
        name = _name(place)
        low, high = min(recent), max(recent)
        mean = sum(recent) // len(recent)
        k_ppm = (mean + 500) // 1_000
        if len(recent) < ENOUGH:
            return self._at_odds(place, recent[-1])
        if (high - low) * 1_000 <= mean * STABLE_PERMILLE and MIN_K_PPM <= k_ppm <= MAX_K_PPM:
            if abs(k_ppm - ONE) * 1_000 <= ONE * STABLE_PERMILLE:
                k_ppm = ONE
            self.k = (*self.k[:place], k_ppm, *self.k[place + 1 :])
            if self.k == EXACT:
                self.k = EXACT
            del self.recent[place]
            self.said.pop(place, None)
            text = f"{_k(k_ppm)}, within 1 % over {ENOUGH} intervals against its percentage"
            return Finding(f"k of {name}", text, accepted=True)
        if self.said.get(place) == _NO_CONSTANT:
            return None
        self.said[place] = _NO_CONSTANT
        spread = f"{_k(low // 1_000)} to {_k(high // 1_000)} over {ENOUGH} intervals"
        text = f"{spread} against its percentage; percentages are used"
        return Finding(f"no constant k of {name}", text, accepted=False)

    def _at_odds(self, place: int, k_ppb: int) -> Finding | None:
        if place in self.said:
            return None
        self.said[place] = _AT_ODDS
        got = f"k {_k((k_ppb + 500) // 1_000)}" if k_ppb else "a counter that stood still"
        text = f"expected k {_k(self.k[place])}, got {got} against its percentage; percentages are used there"
        return Finding(_name(place), text, accepted=False)

    def dump(self) -> list[Any]:
        """As JSON holds it."""
        recent = [[place, *values] for place, values in sorted(self.recent.items())]
        return [list(self.k), recent, [[place, said] for place, said in sorted(self.said.items())]]


def load_ratios(data: list[Any]) -> Ratios:
    """What `dump` gave. Raises KeyError, TypeError or ValueError for anything else."""
    k, recent, said = data
    numbers = [*k, *(n for row in recent for n in row), *(n for row in said for n in row)]
    if len(k) != PLACES or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError(f"journal: expected k of {PLACES} counters, got {data!r:.80}")
    places = [row[0] for row in (*recent, *said)]
    if any(len(row) < 2 for row in recent) or any(not 0 < place < PLACES for place in places):
        raise ValueError(f"journal: expected the evidence of k, got {data!r:.80}")
    return Ratios(
        EXACT if tuple(k) == EXACT else tuple(k),
        {place: list(values) for place, *values in recent},
        dict(said),
    )


#: What holds where nothing was found.
PLAIN = Ratios()


def busy(percent: Mapping[int, float]) -> bool:
    """Whether some pipe was active at some time, by its percentage."""
    return any(part > _SLACK for part in clean(percent)[0].values())


def needs_settling(deltas: Sequence[int], ratios: Ratios) -> bool:
    """Whether counters alone leave a question: a pipe ran for longer than time, or a k_p is disputed."""
    limit = deltas[0] * PIPE_TOLERANCE_PERMILLE
    if ratios.k is EXACT:
        return max(deltas) * 1_000 > limit or bool(ratios.recent)
    most = max([d * p for d, p in zip(deltas, ratios.k, strict=True)])
    return most * 1_000 > limit * ONE or bool(ratios.recent)


def settle(
    deltas: Sequence[int], absent: Collection[int], percent: Mapping[int, float], ratios: Ratios
) -> tuple[tuple[Judged, ...], dict[int, int]] | str:
    """Counters or percentages? (what was judged, shares of the elapsed cycles that replace counters), or why neither.

    `absent`: places whose counter was not read. No shares: the counters stand as they are.
    """
    elapsed, k = deltas[0], ratios.k
    fractions = clean(percent)[0]
    if not elapsed:
        return STOOD_STILL if max(deltas) > 0 else ((), {})
    judged = tuple([j for j in judge(deltas, fractions, k) if j.place not in absent])
    told = [j.place for j in judged]
    for place in ratios.recent:
        seen = deltas[place] * k[place] * (HUNDRED_PERCENT // ONE) > _SLACK * elapsed
        if seen and place not in told and place not in absent:
            return f"{_name(place)}: its k is disputed, and no percentage was read beside it"
    shares = {place: fractions[key] for place, key in PAIRS if key in fractions}
    over = [
        place
        for place in range(PLACES)
        if deltas[place] * k[place] * 1_000 > elapsed * ONE * PIPE_TOLERANCE_PERMILLE
    ]
    if not over and all(j.agrees for j in judged) and shares.keys().isdisjoint(absent):
        return judged, {}
    for place in over:
        if place not in shares:
            return f"counter {CYCLE_IDS[place]}: {deltas[place]} active of {elapsed} elapsed cycles"
    return judged, shares


def _name(place: int) -> str:
    return f"counter {CYCLE_IDS[place]} ({NAMES[place]})"


def _k(k_ppm: int) -> str:
    return f"{k_ppm // ONE}.{k_ppm % ONE:06}"
