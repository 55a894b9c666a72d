"""Declared estimates beside the counters, in the transaction of a commit (regulations.md section 13, item 13).

Each estimate that is due is compared with the books once an hour, on whatever commit comes; disagreement is an
event, once. The books are read from the store and the group added: nothing is kept that could drift from them.
"""

from collections.abc import Sequence

from flopmeter.collector.books import HourKey, Sums
from flopmeter.collector.estimate.compare import Agreement, compare
from flopmeter.collector.estimate.cut import figure_before
from flopmeter.collector.estimate.declared import Declared
from flopmeter.collector.estimate.event import method_event, method_key
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.ingest.group import Group
from flopmeter.collector.store.base import Books
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable

from .events import NewEvent
from .whose import Whose

_HOUR_NS = 3_600_000_000_000
#: Comparisons per commit: each reads a run's totals, and records are waiting.
MAX_PER_COMMIT = 16


class SecondMethod:
    """Owned by the writer, on its thread; `reset` after any failure."""

    def __init__(self, books: Books, estimates: Sequence[Declared], table: WTable, whose: Whose) -> None:
        self._books = books
        self._whose = whose
        self._estimates = tuple(estimates)
        self._table = table
        self.reset()

    def reset(self) -> None:
        """Forget what was looked at and raised. Raises StoreError."""
        self._open = {d.digest: d for d in self._estimates if not self._books.has_event(method_key(d))}
        self._looked: dict[str, int] = {}  # digest -> hour of the collector's clock

    def judge(
        self, group: Group, delta: dict[HourKey, Sums], *, at_unix_ns: int, position: int
    ) -> list[NewEvent]:
        """What must be raised with `group`, whose usage is `delta`; `position` is the last with it."""
        if not self._open:
            return []
        hour = at_unix_ns // _HOUR_NS
        due = [
            d
            for d in self._open.values()
            if d.due_unix_ns <= at_unix_ns and self._looked.get(d.digest) != hour
        ][:MAX_PER_COMMIT]
        if not due:
            return []
        models = {no: Model(*names) for no, names in self._books.models().items()}
        models.update({no: Model(name, capability) for no, name, capability in group.models})
        found: list[NewEvent] = []
        for d in due:
            self._looked[d.digest] = hour
            measured = self._measured(d, delta, models)
            if measured is None or compare(measured, d.flop) is not Agreement.DISAGREES:
                continue
            found.append(method_event(d, measured, self._table.id, at_unix_ns=at_unix_ns, position=position))
            # A failed commit drops all of this and reads the store again (`reset`).
            del self._open[d.digest]
        return found

    def _measured(
        self,
        d: Declared,
        delta: dict[HourKey, Sums],
        models: dict[int, Model],
    ) -> Figure | None:
        """What the counters say of what `d` covers; None where the run is not metered (yet)."""
        mine = self._whose.workloads_of(d.run)
        numbers = set(mine)
        brought = [(key, sums) for key, sums in delta.items() if key.group.workload_no in numbers]
        if d.before_hour is not None:
            rows = (
                (key.slot, self._whose.held(key.group.workload_no).dtype, key.group, sums)
                for key, sums in (*self._books.workload_hours(mine), *brought)
            )
            return figure_before(d.before_hour, rows, models, self._table)
        tally, metered = Tally(), False
        for group, sums in (
            *self._books.workload_totals(mine),
            *((key.group, sums) for key, sums in brought),
        ):
            metered = True
            tally.add(group, self._whose.held(group.workload_no).dtype, sums)
        return tally.figures(models, self._table)[0] if metered else None
