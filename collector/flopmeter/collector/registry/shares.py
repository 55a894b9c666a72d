"""A run's work cut by what people said of it: purpose, recomputed fraction, and the entries that say so. Pure.

Every row of the books goes to exactly one share, so that shares add up to the run. A run without tagged spans needs
its totals only; one with spans is cut by hours, and then its hourly sums are what is asked for. What bridges several
hours cannot be cut.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple, TypeVar

from flopmeter.collector.books import GroupKey, Slot
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.countable import Share
from flopmeter.contract.w_table import WTable

from .entries import Entry, JobKey, Purpose
from .state import Registry

_Word = TypeVar("_Word", Purpose, Fraction)


class Told(NamedTuple):
    """What people said of a piece of work. What spans several hours is what they said of every one of them."""

    purpose: Purpose | None  # None: nobody said, and it counts
    recomputation: Fraction | None
    entries: tuple[int, ...]  # that say so, by number
    across: tuple[int, ...] = ()  # that say several things of its hours, so that none holds


class Row(NamedTuple):
    """Sums of one workload of the run, in one slot (any, where the run has no spans)."""

    job: JobKey
    slot: Slot
    dtype: str
    key: GroupKey
    sums: Iterable[int]


def told(registry: Registry, run: str, job: JobKey, slot: Slot) -> Told:
    """What the registry says of a job's work in a slot.

    In a bridge nobody knows which part is of which hour. Where its hours are told apart it is nobody's word's: it
    counts, so that no tag takes more out of a total than the hours that it names.
    """
    hours = [slot.first, *registry.edges(run, slot.first, slot.hour)] if slot.back else [slot.hour]
    purpose, by, one = _agreed([registry.purpose_by(run, job, hour) for hour in hours])
    again, by_again, one_again = _agreed([registry.recomputation_by(run, job, hour) for hour in hours])
    entries = (by if one else set()) | (by_again if one_again else set())
    across = (set() if one else by) | (set() if one_again else by_again)
    return Told(purpose, again, tuple(sorted(entries)), tuple(sorted(across)))


def _agreed(said: Sequence[tuple[Entry, _Word] | None]) -> tuple[_Word | None, set[int], bool]:
    """What is said of all hours alike, if anything; by which entries; and whether it is."""
    words = {None if found is None else found[1] for found in said}
    numbers = {found[0].number for found in said if found is not None}
    return (words.pop(), numbers, True) if len(words) == 1 else (None, numbers, False)


def tallies(registry: Registry, run: str, rows: Iterable[Row]) -> dict[Told, Tally]:
    """The run's rows by what was said of them."""
    said: dict[tuple[JobKey, Slot], Told] = {}
    found: dict[Told, Tally] = {}
    for row in rows:
        place = (row.job, row.slot)
        what = said.get(place)
        if what is None:
            what = said[place] = told(registry, run, row.job, row.slot)
        tally = found.get(what)
        if tally is None:
            tally = found[what] = Tally()
        tally.add(row.key, row.dtype, row.sums)
    return found


def shares(found: Mapping[Told, Tally], models: Mapping[int, Model], table: WTable) -> list[Share]:
    """Each tally priced, as law.countable asks for it."""
    result = []
    for what, tally in found.items():
        flop, integer_ops = tally.figures(models, table)
        result.append(Share(what.purpose, flop, integer_ops, what.recomputation, what.entries, what.across))
    return result
