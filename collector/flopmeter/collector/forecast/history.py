"""A run's recent past, cut into blocks: what each block added to its totals, by every way of counting. Pure.

Who asks brings the rows: the writer the store's with its group, fsck what it derived, `flopmeter forecast` the store's.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.countable import Share
from flopmeter.collector.law.lines import Basis, own_of, total_of
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.standing import Standing, standing
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.shares import Row
from flopmeter.collector.registry.state import Registry
from flopmeter.contract.w_table import WTable

from .project import HOUR_NS, History, block_hours

#: How long after its end an hour is taken as told: agents' windows of a minute, and their way here.
LAG_NS = 5 * 60_000_000_000


class Span(NamedTuple):
    """The recent past of one run, in whole hours since 1970: [first_hour, end_hour), in `blocks` blocks."""

    end_hour: int
    hours: int  # of one block
    blocks: int

    @property
    def first_hour(self) -> int:
        return self.end_hour - self.hours * self.blocks


def span_of(now_unix_ns: int, since_unix_ns: int) -> Span:
    """What a forecast made now looks back at, of a run first seen at `since_unix_ns`."""
    end = (now_unix_ns - LAG_NS) // HOUR_NS
    first = -(-since_unix_ns // HOUR_NS)
    return Span(end, *block_hours(max(0, end - first)))


class _Grown(Counting):
    """Of some time: what was done then. Declared figures of external models are of no time."""

    def _declared(self, name: str) -> list[Share]:
        return []


class Work(NamedTuple):
    """What rows mean something under."""

    registry: Registry
    models: Mapping[int, Model]
    table: WTable


def grown(
    work: Work, run: str, rows: Callable[[str], Iterable[Row]], regimes: Sequence[Regime], span: Span
) -> list[Standing]:
    """Where the run would stand if only one block had been, for each block, oldest first.

    `rows` of a run: its hourly ones, of `span` at least. Asked once for each run that counts for this one.
    """
    cuts: dict[str, list[list[Row]]] = {}

    def cut(name: str, block: int) -> list[Row]:
        if name not in cuts:
            cuts[name] = _cut(rows(name), span)
        return cuts[name][block]

    stood = []
    for block in range(span.blocks):
        counting = _Grown(work.registry, functools.partial(cut, block=block), work.models, work.table)
        tally = Tally()
        for row in cut(run, block):
            tally.add(row.key, row.dtype, row.sums)
        stood.append(standing(counting, run, tally.figures(work.models, work.table), regimes))
    return stood


def _cut(rows: Iterable[Row], span: Span) -> list[list[Row]]:
    found: list[list[Row]] = [[] for _ in range(span.blocks)]
    for row in rows:
        first, hours = row.slot.first, row.slot.back + 1
        for block in range(
            max(0, (first - span.first_hour) // span.hours),
            min(span.blocks, (row.slot.hour - span.first_hour) // span.hours + 1),
        ):
            begin = span.first_hour + block * span.hours
            since, until = max(0, begin - first), min(hours, begin + span.hours - first)
            found[block].append(row if until - since == hours else _part(row, since, until, hours))
    return found


def _part(row: Row, since: int, until: int, hours: int) -> Row:
    """Of a record that spans hours, those from `since` to `until`, as if it had all gone on evenly: when it was within
    them nobody knows, and only rates depend on it. Parts add up to the whole.
    """
    return row._replace(sums=[n * until // hours - n * since // hours for n in row.sums])


class Past(NamedTuple):
    """All that a forecast of one run rests on."""

    run: str
    now_unix_ns: int
    since_unix_ns: int  # of the run's first usage
    span: Span
    stands: Standing  # now
    blocks: Sequence[Standing]

    def history(self, basis: Basis) -> History:
        """Counted one way."""
        return History(
            total_of(self.stands, basis),
            own_of(self.stands, basis),
            self.now_unix_ns - self.since_unix_ns,
            self.span.hours * HOUR_NS,
            tuple(total_of(b, basis) for b in self.blocks),
        )
