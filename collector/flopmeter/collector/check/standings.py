"""Where runs stood, derived again: the books as rederived so far, under the entries that were then in force. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from flopmeter.collector.books import GroupKey, HourKey, Slot
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.standing import Standing, standing
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.entries import Entry, JobKey
from flopmeter.collector.registry.formerly import Formerly, Once, formerly
from flopmeter.collector.registry.lineage import Lineage
from flopmeter.collector.registry.shares import Row
from flopmeter.collector.registry.state import Registry
from flopmeter.contract.w_table import WTable

from .rederive import Difference, Rederivation

_ANY_SLOT = Slot(0)


class Applied(NamedTuple):
    """A row of the applied table: up to which entry runs were judged, from which position on."""

    entry_no: int
    from_position: int


class Standings:
    """Asks the books while they grow; what it adds up it keeps until they have."""

    def __init__(
        self,
        books: Rederivation,
        entries: Sequence[Entry],
        applied: Iterable[Applied],
        models: Mapping[int, Model],
        table: WTable,
    ) -> None:
        """`entries` in order, `applied` too. Raises Difference if one is applied before it can have been said."""
        self._books, self._entries = books, tuple(entries)
        self._models, self._table = models, table
        self.applied = tuple(applied)
        before = Applied(0, 0)
        for row in self.applied:
            key = f"entry_no {row.entry_no}"
            if not before.entry_no < row.entry_no <= len(self._entries):
                raise Difference(
                    "applied", key, "entry_no", f"{before.entry_no + 1} … {len(self._entries)}", row.entry_no
                )
            said = self._entries[row.entry_no - 1].position
            if row.from_position < max(before.from_position, said):
                raise Difference(
                    "applied",
                    key,
                    "from_position",
                    f"not before {max(before.from_position, said)}",
                    row.from_position,
                )
            before = row
        self._registries: dict[int, Registry] = {}  # by entry, as the books stood at `_renamings`
        self._renamings = 0
        self._at: tuple[int, int] = (-1, -1)
        self._counting: Counting

    def applied_at(self, position: int) -> int:
        """Up to which entry runs were judged in the commit that brought that record; 0: none."""
        return max((a.entry_no for a in self.applied if a.from_position <= position), default=0)

    def new_at(self, position: int) -> list[int]:
        """Entries up to which runs were judged from exactly there on."""
        return [a.entry_no for a in self.applied if a.from_position == position]

    def before(self, entry_no: int) -> int:
        """Up to which entry runs were judged before that."""
        return max((a.entry_no for a in self.applied if a.entry_no < entry_no), default=0)

    def registry(self, entry_no: int) -> Registry:
        """What was said up to that entry, and where the work is now that had the names."""
        if self._renamings != self._books.renamings:
            self._renamings = self._books.renamings
            self._registries = {no: r.knowing(self._formerly(r)) for no, r in self._registries.items()}
        found = self._registries.get(entry_no)
        if found is None:
            said = Registry.of(self._entries[:entry_no])
            found = self._registries[entry_no] = said.knowing(self._formerly(said))
        return found

    def _formerly(self, registry: Registry) -> Formerly:
        books = self._books

        def once(name: str) -> Iterator[Once]:
            for no in {*books.formerly[name], *books.runs.get(name, ())}:
                span = books.spans[no]
                yield Once(JobKey(*span.job), span.step, span.run)

        return formerly(registry.mentioned & books.formerly.keys(), once)

    def runs(self, entry_no: int) -> list[str]:
        """Every run that the books hold something of, under those entries."""
        return sorted({self._run_of(no, entry_no) for no in self._books.spans} - {""})

    def workloads(self, run: str, entry_no: int) -> list[int]:
        """The run's workloads, by number."""
        found = set(self._books.runs.get(run, ()))
        for job in self.registry(entry_no).assigned_jobs(run):
            found.update(self._books.jobs.get((job.scope, job.kind, job.job), ()))
        return sorted(no for no in found if self._run_of(no, entry_no) == run)

    @property
    def work(self) -> tuple[Slot, AbstractSet[int]]:
        """When that was which the last record tells of, and of which workloads."""
        return self._books.work

    def family(self, run: str, entry_no: int) -> set[int]:
        """Workloads of the run and of all that it stands on."""
        above = Lineage.of(self.registry(entry_no)).above(run)
        return {no for name in (run, *above) for no in self.workloads(name, entry_no)}

    def executed(self, run: str, entry_no: int) -> Tally:
        """All that the run did."""
        tally = Tally()
        for no in self.workloads(run, entry_no):
            for key in self._books.groups.get(no, ()):
                tally.add(key, self._books.spans[no].dtype, self._books.totals[key])
        return tally

    def of(self, run: str, entry_no: int, regimes: Iterable[Regime]) -> Standing | None:
        """Where the run stands, under the entries up to that one; None if the books have nothing of it."""
        if not run or not self.workloads(run, entry_no):
            return None
        return self.stands(run, entry_no, regimes)

    def stands(self, run: str, entry_no: int, regimes: Iterable[Regime]) -> Standing:
        """The same, of a run of which the books may have nothing."""
        self._look(entry_no)
        executed = self.executed(run, entry_no).figures(self._models, self._table)
        return standing(self._counting, run, executed, regimes)

    def slots(self, run: str, entry_no: int, from_hour: int) -> Iterator[Row]:
        """What the run did, slot by slot."""
        for no in self.workloads(run, entry_no):
            span = self._books.spans[no]
            for slot, key in self._sums_of(no):
                if slot.hour >= from_hour:
                    yield Row(
                        JobKey(*span.job), slot, span.dtype, key, self._books.hourly[HourKey(slot, key)]
                    )

    def _look(self, entry_no: int) -> None:
        if self._at == (self._books.position, entry_no):
            return
        self._at = (self._books.position, entry_no)
        registry = self.registry(entry_no)

        def rows(run: str) -> Iterator[Row]:
            by_hour = registry.has_spans(run)
            for no in self.workloads(run, entry_no):
                span = self._books.spans[no]
                for slot, key in self._sums_of(no) if by_hour else ((_ANY_SLOT, k) for k in self._keys(no)):
                    sums = self._books.hourly[HourKey(slot, key)] if by_hour else self._books.totals[key]
                    yield Row(JobKey(*span.job), slot, span.dtype, key, sums)

        self._counting = Counting(registry, rows, self._models, self._table)

    def _run_of(self, workload_no: int, entry_no: int) -> str:
        span = self._books.spans[workload_no]
        return self.registry(entry_no).run_of(JobKey(*span.job), span.step, span.run) if span.run else ""

    def _keys(self, workload_no: int) -> Iterable[GroupKey]:
        return self._books.groups.get(workload_no, ())

    def _sums_of(self, workload_no: int) -> Iterable[HourKey]:
        return self._books.hours.get(workload_no, ())
