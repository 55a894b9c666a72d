"""What runs must raise: their figures against the regimes, kept up as usage is booked.

A run is judged when usage is added to it, and every run once a day and after a start (`review`): a regime that
comes into force, or is added, or a corrected W table, meets runs that have long stopped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flopmeter.collector.books import GroupKey, HourKey, Sums
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.ingest.identity_jobs import Moved
from flopmeter.collector.store.base import Books, Judged, Transaction
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable

from .events import NewEvent, threshold_events
from .regimes import Regime
from .whose import Whose

#: Runs and workloads kept in memory; past this they are read from the store again.
MAX_CACHED_RUNS = 100_000
_DAY_NS = 86_400_000_000_000
_NEVER = 1 << 200  # cycles: past every line, nothing is left to meet


@dataclass(slots=True)
class _Run:
    """One run's sums merged for pricing, and what it has raised."""

    tally: Tally
    cycles: int  # all cycles of all groups, added up: bounds how far any figure can have moved
    raised: set[str]
    #: Until `cycles` reaches this, no figure can meet a line that it did not meet when last priced …
    quiet_until: int = 0
    quiet_day: int = -1  # … on this UTC day: regimes come into force and lapse at midnight


@dataclass(frozen=True, slots=True)
class Moment:
    """One commit: its clock, and the positions that an event of it rests on."""

    unix_ns: int
    since_position: int
    position: int


class Judge:
    """Owned by the writer; a cache of the store like all of it, dropped by `reset` after any failure."""

    def __init__(self, books: Books, whose: Whose, regimes: Sequence[Regime], table: WTable) -> None:
        self._books = books
        self._whose = whose
        self._regimes = tuple(regimes)
        self._table = table
        # FLOP and integer operations per counted cycle, at the very most: what one cycle adds to a figure is
        # at most four unread pipes and its own, at the best rate, widened by under 2.2, for FLOP and for
        # integer operations. 40 best rates are more than that (tests/collector/test_writer.py).
        best = max((rate for arch in table.archs for rate in arch.rates.values()), default=1)
        self._most_per_cycle = best * 40
        self._lines = sorted({r.threshold_flop for r in self._regimes})
        self.reset()

    def reset(self) -> None:
        """Forget all. Raises StoreError."""
        self._runs: dict[str, _Run] = {}
        self._models = {no: Model(*model) for no, model in self._books.models().items()}
        self._reviewed_day = -1

    def add_names(self, models: Iterable[tuple[int, str, str]], moved: Sequence[Moved]) -> None:
        """What the group brings: models, and runs that change because workloads go from one to the other."""
        for model_no, name, capability in models:
            self._models[model_no] = Model(name, capability)
        for m in moved:
            self._runs.pop(m.was, None)
            self._runs.pop(m.run, None)

    def book(self, delta: dict[HourKey, Sums], at: Moment) -> list[NewEvent]:
        """Add `delta` to the runs it touches; what each must raise now."""
        if not self._regimes:
            return []
        touched: dict[str, list[tuple[GroupKey, str, Sums]]] = {}
        whose = self._whose
        whose.know(key.group.workload_no for key in delta)
        for (_hour, group_key), numbers in delta.items():
            run = whose.run_of(group_key.workload_no)
            if run:
                dtype = whose.held(group_key.workload_no).dtype
                touched.setdefault(run, []).append((group_key, dtype, numbers))
        today = at.unix_ns // _DAY_NS
        events: list[NewEvent] = []
        for name, rows in touched.items():
            state = self._runs.get(name)
            if state is None:
                state = self._runs[name] = self._read(name)
            for group_key, dtype, numbers in rows:
                state.tally.add(group_key, dtype, numbers)
                state.cycles += sum(numbers[1:11])
            if state.cycles >= state.quiet_until or today != state.quiet_day:
                events += self._judge(name, state, at)
        return events

    def review(self, at: Moment, tx: Transaction) -> list[NewEvent]:
        """Once a UTC day and once after `reset`: every run, and a note in `tx` of what is judged by from now on.

        Call it behind `book`: what that added is judged with the rest.
        """
        today = at.unix_ns // _DAY_NS
        if today == self._reviewed_day:
            return []
        if self._reviewed_day < 0:
            self._note(at, tx)
        self._reviewed_day = today
        events: list[NewEvent] = []
        if self._regimes:
            for name in sorted(self._whose.runs()):
                # A run that this group touched is in memory, with what the group adds; others are not kept.
                state = self._runs.get(name) or self._read(name)
                if state.quiet_day != today or state.cycles >= state.quiet_until:
                    events += self._judge(name, state, at)
        return events

    def _note(self, at: Moment, tx: Transaction) -> None:
        wanted = {(r.id, r.digest, self._table.id) for r in self._regimes}
        standing = {(j.regime, j.digest, j.w_table): j for j in self._books.judged()}
        tx.judged_until = [
            (at.since_position - 1, *key, j.from_position) for key, j in standing.items() if key not in wanted
        ]
        tx.judged = [
            Judged(*key, at.since_position, at.unix_ns) for key in sorted(wanted) if key not in standing
        ]

    def trim(self) -> None:
        """After a commit: forget, if too much is kept."""
        if len(self._runs) > MAX_CACHED_RUNS:
            self._runs = {}

    def _judge(self, name: str, state: _Run, at: Moment) -> list[NewEvent]:
        flop, integer_ops = state.tally.figures(self._models, self._table)
        found = threshold_events(
            name,
            flop,
            self._regimes,
            state.raised,
            at_unix_ns=at.unix_ns,
            since_position=min(at.since_position, at.position),
            position=at.position,
            integer_ops=integer_ops,
        )
        state.raised.update(event.key for event in found)
        state.quiet_until = state.cycles + self._quiet_cycles(flop, flop + integer_ops)
        state.quiet_day = at.unix_ns // _DAY_NS
        return found

    def _quiet_cycles(self, *figures: Figure) -> int:
        """How many more cycles no bound of `figures` can need to get to the next line above it."""
        numbers = [n for f in figures for n in (f.lower, f.point, f.upper)]
        rooms = [line - n for n in numbers for line in self._lines if line >= n]
        return min(rooms) // self._most_per_cycle if rooms else _NEVER

    def _read(self, name: str) -> _Run:
        """The run's state before this group, from the store."""
        state = _Run(Tally(), 0, self._books.event_keys(name))
        for key, sums in self._books.workload_totals(self._whose.workloads_of(name)):
            state.tally.add(key, self._whose.held(key.workload_no).dtype, sums)
            state.cycles += sum(sums[1:11])
        return state
