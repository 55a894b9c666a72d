"""Training or inference, guessed from the books' hours, to hold beside what was declared. Pure.

Only what counters show from outside: how much tensor work, how busy, how steady, on how many GPUs, how long. No data,
no weights, no prompts (reference/regulations.md sections 12 and 13, item 22). A guess is never booked, tags nothing
and is no finding; where the books cannot tell, `unknown` is the answer.

What the books cannot show: they add GPUs up by the hour, so that GPUs which run in step look like GPUs that happen to
be busy alike, and the seconds of a training step are gone. All shares are in millionths, in integers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from flopmeter.collector.books import GroupKey, Slot
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.usage import Measured

from .entries import Purpose
from .suggestions import Confidence

_HOUR_NS = 3_600_000_000_000
_PPM = 1_000_000
_TENSOR = Measured.HMMA | Measured.TENSOR_OTHER
#: Whole hours before anything is said: fewer show neither steadiness nor its lack.
LEAST_HOURS = 4
#: Whole hours before a guess can be sure: one day, since load follows it.
SURE_HOURS = 24
#: Whole hours before the day's rhythm can be told: two days.
RHYTHM_HOURS = 48
#: Least part of the time that must have been observed with tensor counters.
LEAST_OBSERVED_PPM = 800_000

# Each signal has two edges; between them it says nothing. Of 216 published trainings (MosaicML's llm-foundry tables) all
# execute 17 to 80 % of the dense peak, and all but two above 20 %; decoding is bound by memory, and leaves the tensor
# pipes nearly idle. The other edges are ours, not measured: they are why a guess is only shown.
TENSOR = (80_000, 200_000)  # part of the elapsed cycles: at most … inference, at least … training
BUSY = (500_000, 800_000)  # part of the elapsed cycles with any warp
STEADY_WORK = (
    50_000,
    250_000,
)  # mean deviation of tensor work hour to hour: at most … training, at least … inference
STEADY_POWER = (30_000, 100_000)  # of mean power
RHYTHM = (20_000, 100_000)  # of the hours of the day among each other
MANY_DEVICES = 16
#: Less tensor work than this is none: neither kind of neural network does without.
NO_TENSOR_PPM = 5_000


class Kind(StrEnum):
    TRAINING = "training"
    INFERENCE = "inference"
    OTHER = "other"  # no tensor work to speak of: preprocessing, simulation, rendering
    UNKNOWN = "unknown"


class Signal(NamedTuple):
    """One thing seen, and what it speaks for; None: neither."""

    name: str
    seen: str
    speaks_for: Kind | None


@dataclass(frozen=True, slots=True)
class Guess:
    """`confidence` is None where nothing is guessed. `why_not` says what the books lacked for more."""

    kind: Kind
    confidence: Confidence | None
    signals: tuple[Signal, ...]
    why_not: str


@dataclass(slots=True)
class _Hour:
    duration_ns: int = 0
    gap_ns: int = 0  # and time without tensor counters
    elapsed: int = 0
    active: int = 0
    tensor: int = 0
    energy_mj: int = 0
    powered_ns: int = 0  # time whose energy was read


class Looks:
    """Hours of work as they come, added up, and what they look like."""

    def __init__(self) -> None:
        self._hours: dict[int, _Hour] = {}
        self.slots: set[Slot] = set()  # in which there was any

    def add(self, slot: Slot, key: GroupKey, sums: Iterable[int]) -> None:
        """Sums (books.SUM_FIELDS order) of one group in one slot. What bridges hours shows how none of them was."""
        self.slots.add(slot)
        if slot.back <= 1:  # windows of an hour lie over the edge of one
            _add(self._hours, slot.hour, key, sums)

    def guess(self) -> Guess:
        """What they look like together."""
        return _guess(dict(self._hours))


def guess(hourly: Iterable[tuple[Slot, GroupKey, Iterable[int]]]) -> Guess:
    """Of (slot, group, sums in books.SUM_FIELDS order), all at once."""
    looks = Looks()
    for slot, key, sums in hourly:
        looks.add(slot, key, sums)
    return looks.guess()


def _guess(hours: dict[int, _Hour]) -> Guess:
    for cut_off in (*sorted(hours)[:1], *sorted(hours)[1:][-1:]):  # by the run's own begin and end
        del hours[cut_off]
    inner = list(hours.values())
    known = [h for h in inner if h.elapsed]
    if len(known) < LEAST_HOURS:
        return _unknown(
            f"{len(known)} whole hour{'s' * (len(known) != 1)} with tensor counters: expected at least {LEAST_HOURS}"
        )
    observed = sum(h.duration_ns for h in inner) * _PPM // sum(h.duration_ns + h.gap_ns for h in inner)
    if observed < LEAST_OBSERVED_PPM:
        return _unknown(f"tensor counters for {_percent(observed)} of its time: expected at least 80 %")
    signals = tuple(_signals(hours, known))
    tensor_ppm = _share(sum(h.tensor for h in known), sum(h.elapsed for h in known))
    if tensor_ppm < NO_TENSOR_PPM:
        return Guess(
            Kind.OTHER,
            Confidence.LOW,
            signals,
            "decoding one request at a time without the tensor pipes looks like this, too",
        )
    return _decided(signals, len(known))


def _decided(signals: tuple[Signal, ...], whole_hours: int) -> Guess:
    votes = {k: sum(s.speaks_for is k for s in signals) for k in (Kind.TRAINING, Kind.INFERENCE)}
    kind = max(votes, key=lambda k: votes[k])
    against = votes[Kind.INFERENCE if kind is Kind.TRAINING else Kind.TRAINING]
    if votes[kind] < 2 or votes[kind] < against + 2:
        return Guess(Kind.UNKNOWN, None, signals, "the signals do not agree, or say too little")
    sure = Confidence.MEDIUM if not against and votes[kind] >= 3 else Confidence.LOW
    if sure is Confidence.MEDIUM and votes[kind] >= 4 and whole_hours >= SURE_HOURS:
        sure = Confidence.HIGH
    why_not = (
        ""
        if sure is Confidence.HIGH
        else f"{votes[kind]} signals for it, {against} against, {whole_hours} hours"
    )
    return Guess(kind, sure, signals, why_not)


def _add(hours: dict[int, _Hour], number: int, key: GroupKey, sums: Iterable[int]) -> None:
    measured = Measured(key.measured)
    if Measured.OTHERS in measured:
        return
    duration, elapsed, active, hmma, imma, dmma, other, _, _, _, _, energy = sums
    hour = hours.setdefault(number, _Hour())
    if Measured.ENERGY in measured:
        hour.energy_mj += energy
        hour.powered_ns += duration
    if EvidenceClass(key.evidence_class) in UPPER_ONLY or not measured & _TENSOR:
        hour.gap_ns += duration
        return
    hour.duration_ns += duration
    hour.elapsed += elapsed
    hour.active += active if Measured.SM_ACTIVE in measured else 0
    hour.tensor += hmma + imma + dmma + other


def _signals(hours: dict[int, _Hour], known: list[_Hour]) -> Iterable[Signal]:
    elapsed = sum(h.elapsed for h in known)
    tensor = _share(sum(h.tensor for h in known), elapsed)
    yield Signal("tensor share", f"{_percent(tensor)} of the cycles", _high_is_training(tensor, TENSOR))
    active = _share(sum(h.active for h in known), elapsed)
    if active:
        yield Signal("busy share", f"{_percent(active)} of the cycles", _high_is_training(active, BUSY))
    work = _deviation([_share(h.tensor, h.elapsed) for h in known])
    if work is not None:
        yield Signal(
            "steadiness of the work",
            f"{_percent(work)} mean deviation from hour to hour",
            _low_is_training(work, STEADY_WORK),
        )
    watts = [h.energy_mj * 1_000_000_000 // h.powered_ns for h in known if h.powered_ns]  # mW
    power = _deviation(watts) if len(watts) >= LEAST_HOURS else None
    if power is not None:
        yield Signal(
            "steadiness of the power",
            f"{_percent(power)} mean deviation from hour to hour",
            _low_is_training(power, STEADY_POWER),
        )
    devices = max(h.duration_ns + h.gap_ns for h in known) * 10 // _HOUR_NS
    yield Signal(
        "GPUs at once",
        f"up to {devices // 10}.{devices % 10} device-hours in an hour",
        Kind.TRAINING if devices >= 10 * MANY_DEVICES else None,
    )
    yield Signal("length", f"{len(known)} whole hours", None)
    rhythm = _rhythm(hours, known)
    if rhythm is not None:
        yield Signal(
            "rhythm of the day",
            f"{_percent(rhythm)} mean deviation among the hours of the day",
            _low_is_training(rhythm, RHYTHM),
        )


def _rhythm(hours: dict[int, _Hour], known: list[_Hour]) -> int | None:
    """How much the hours of the day differ in tensor work, of two days and more."""
    if len(known) < RHYTHM_HOURS:
        return None
    of_day: dict[int, tuple[int, int]] = {}
    for number, hour in hours.items():
        tensor, elapsed = of_day.get(number % 24, (0, 0))
        of_day[number % 24] = (tensor + hour.tensor, elapsed + hour.elapsed)
    shares = [_share(tensor, elapsed) for tensor, elapsed in of_day.values() if elapsed]
    return _deviation(shares) if len(shares) == 24 else None


def _deviation(values: list[int]) -> int | None:
    """Mean absolute deviation as a part of the mean; None: the mean is 0."""
    whole = sum(values)
    return (
        None
        if not whole
        else sum(abs(v * len(values) - whole) for v in values) * _PPM // (whole * len(values))
    )


def _high_is_training(value: int, edges: tuple[int, int]) -> Kind | None:
    low, high = edges
    return Kind.TRAINING if value >= high else Kind.INFERENCE if value <= low else None


def _low_is_training(value: int, edges: tuple[int, int]) -> Kind | None:
    low, high = edges
    return Kind.TRAINING if value <= low else Kind.INFERENCE if value >= high else None


def _share(part: int, whole: int) -> int:
    return part * _PPM // whole if whole else 0


def _percent(ppm: int) -> str:
    return f"{ppm // 10_000}.{ppm // 1_000 % 10} %"


def _unknown(why_not: str) -> Guess:
    return Guess(Kind.UNKNOWN, None, (), why_not)


# ---- beside what was declared ----------------------------------------------------------------------------

_EXPECTED = {
    Purpose.PRETRAINING: Kind.TRAINING,
    Purpose.FINETUNING: Kind.TRAINING,
    Purpose.TEACHER: Kind.TRAINING,
    Purpose.AUXILIARY: Kind.TRAINING,
    Purpose.RL_ROLLOUTS: Kind.INFERENCE,
    Purpose.SYNTHETIC_DATA: Kind.INFERENCE,
    Purpose.SYNTHETIC_DATA_PUBLIC: Kind.INFERENCE,
    Purpose.EVALUATION: Kind.INFERENCE,
    Purpose.INFERENCE: Kind.INFERENCE,
}


def disagrees(declared: Purpose | None, guessed: Guess) -> bool:
    """Whether the counters look like the other kind than declared. Purposes that can be either disagree with nothing."""
    expected = None if declared is None else _EXPECTED.get(declared)
    return (
        expected is not None
        and guessed.kind in (Kind.TRAINING, Kind.INFERENCE)
        and guessed.kind is not expected
        and guessed.confidence is not Confidence.LOW
    )


def guess_json(guessed: Guess, declared: Purpose | None) -> dict[str, Any]:
    """As reports print it."""
    return {
        "guess": guessed.kind.value,
        "confidence": guessed.confidence.value if guessed.confidence else None,
        "declared_purpose": declared.value if declared else None,
        "disagrees": disagrees(declared, guessed),
        "signals": [
            {"name": s.name, "seen": s.seen, "speaks_for": s.speaks_for.value if s.speaks_for else None}
            for s in guessed.signals
        ],
        "why_not": guessed.why_not,
        "note": "Guessed from hourly counters alone; it tags nothing and is in no total.",
    }
