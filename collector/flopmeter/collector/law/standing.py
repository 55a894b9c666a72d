"""Where a run stands under each way of counting: what it executed, what counts of it, what it modifies. Pure.

The writer's judge, fsck and the reports all ask here, each with its own way to the sums (registry/counting.py).
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from flopmeter.collector.registry.counting import Counting
from flopmeter.contract.flop import Figure, total

from .countable import Countable
from .profiles import Profile
from .regimes import MODIFICATION, Regime


class Counted(NamedTuple):
    """A total in one way of counting, before the regime's unit is chosen (rules.counted)."""

    flop: Figure
    integer_ops: Figure
    countable: Countable | None  # None: all that was executed, by the run alone


class Modification(NamedTuple):
    """A run and one of the models that it fine-tunes, both as the regimes' counting profile counts them."""

    run: str
    original: str
    flop: Figure  # of the run and what it stands on but its originals (lineage.ancestors without lineage.originals)
    integer_ops: Figure
    original_flop: Figure | None  # of the original and its ancestors; None: unknown
    countable: Countable | None = None  # what `flop` is made of; None: all that was executed
    entries: int = 0  # of the registry, that this rests on


@dataclass(frozen=True, slots=True)
class Standing:
    """One run, at one state of the books and of the registry."""

    run: str
    executed: Counted
    by_counting: Mapping[str, Counted]  # by Regime.counting
    modifications: Mapping[str, tuple[Modification, ...]]  # what it fine-tunes, by Regime.counting
    entries: int = 0  # of the registry, that this rests on

    def of(self, regime: Regime) -> Counted:
        """What `regime` counts."""
        return self.by_counting[regime.counting]


def text_of(regime: Regime) -> str:
    """Which text a regime is judged by: its own, and that of the profile by which it counts (both SHA-256, hex)."""
    profile = regime.counted_by
    return regime.digest if profile is None else f"{regime.digest}+{profile.digest}"


def plain(run: str, flop: Figure, integer_ops: Figure, regimes: Iterable[Regime]) -> Standing:
    """Of a run of which nobody said anything, counted as executed whatever the regimes count."""
    whole = Counted(flop, integer_ops, None)
    countings = {r.counting for r in regimes}
    return Standing(run, whole, dict.fromkeys(countings, whole), dict.fromkeys(countings, ()))


def standing(
    counting: Counting, run: str, executed: tuple[Figure, Figure], regimes: Iterable[Regime]
) -> Standing:
    """`executed`: FLOP and integer operations of all of the run's work, priced whole."""
    whole = Counted(*executed, None)
    by_counting: dict[str, Counted] = {}
    modifications: dict[str, tuple[Modification, ...]] = {}
    for regime in regimes:
        name = regime.counting
        if name not in by_counting:
            profile = regime.counted_by
            by_counting[name] = whole if profile is None else _counted(counting, run, profile)
        if regime.scope == MODIFICATION and name not in modifications:
            modifications[name] = _modifications(counting, run, regime.counted_by)
    return Standing(run, whole, by_counting, modifications, len(counting.registry.entries))


def _counted(counting: Counting, run: str, profile: Profile | None, without: Collection[str] = ()) -> Counted:
    if profile is None:
        shares = counting.shares(run)
        return Counted(total(s.flop for s in shares), total(s.integer_ops for s in shares), None)
    found = counting.countable(run, profile, without=without)
    return Counted(found.flop, found.integer_ops, found)


def _modifications(counting: Counting, run: str, profile: Profile | None) -> tuple[Modification, ...]:
    originals = counting.lineage.originals(run)
    if not originals:
        return ()
    made = _counted(counting, run, profile, originals)
    return tuple(
        Modification(
            run,
            original,
            made.flop,
            made.integer_ops,
            _counted(counting, original, profile).flop if counting.shares(original) else None,
            made.countable,
            len(counting.registry.entries),
        )
        for original in originals
    )
