"""A run's work cut by what people said of it: purpose, recomputed fraction, and the entries that say so. Pure.

Every row of the books goes to exactly one share, so that shares add up to the run. A run without tagged spans needs
its totals only; one with spans is cut by hours, and then its hourly sums are what is asked for.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from flopmeter.collector.books import GroupKey
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.countable import Share
from flopmeter.contract.w_table import WTable

from .entries import JobKey, Purpose
from .state import Registry


class Told(NamedTuple):
    """What people said of a piece of work."""

    purpose: Purpose | None  # None: nobody said, and it counts
    recomputation: Fraction | None
    entries: tuple[int, ...]  # that say so, by number


class Row(NamedTuple):
    """Sums of one workload of the run, in one hour (any, where the run has no spans)."""

    job: JobKey
    hour: int
    dtype: str
    key: GroupKey
    sums: Iterable[int]


def told(registry: Registry, run: str, job: JobKey, hour: int) -> Told:
    """What the registry says of a job's work in an hour."""
    purpose = registry.purpose_by(run, job, hour)
    again = registry.recomputation_by(run, job, hour)
    numbers = sorted({found[0].number for found in (purpose, again) if found is not None})
    return Told(None if purpose is None else purpose[1], None if again is None else again[1], tuple(numbers))


def tallies(registry: Registry, run: str, rows: Iterable[Row]) -> dict[Told, Tally]:
    """The run's rows by what was said of them."""
    said: dict[tuple[JobKey, int], Told] = {}
    found: dict[Told, Tally] = {}
    for row in rows:
        place = (row.job, row.hour)
        what = said.get(place)
        if what is None:
            what = said[place] = told(registry, run, row.job, row.hour)
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
        result.append(Share(what.purpose, flop, integer_ops, what.recomputation, what.entries))
    return result
