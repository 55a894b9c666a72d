"""What runs must raise: their figures against the regimes, kept up as usage is booked and as people say what it was.

A run is judged when usage is added to it or to what it stands on, when an entry of the registry touches it, and every
run when other regimes are in force than the day before, and after a start (`review`): a regime that comes into force, or
is added, or a corrected W table, meets runs that have long stopped.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from flopmeter.collector.books import GroupKey, HourKey, Slot, Sums
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.ingest.identity_jobs import Moved
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.entries import Assign, Entry, JobKey, Retract
from flopmeter.collector.registry.lineage import Lineage
from flopmeter.collector.registry.shares import Told, shares, told
from flopmeter.collector.registry.state import Registry, names_of
from flopmeter.collector.store.base import Books, Judged, Noted, Transaction
from flopmeter.contract.flop import Figure
from flopmeter.contract.w_table import WTable

from .countable import Share
from .events import NewEvent
from .late import met_since
from .modification import known, line_of
from .regimes import MODIFICATION, RUN, Regime
from .rules import early_lines, in_force
from .run_events import run_events
from .standing import Standing, standing, text_of
from .whose import Whose
from .witness import JUDGED

#: Runs kept in memory; past this they are read from the store again.
MAX_CACHED_RUNS = 100_000
_DAY_NS = 86_400_000_000_000
_NEVER = 1 << 200  # cycles: past every line, nothing is left to meet
_ANY_SLOT = Slot(0)
_Row = tuple[Slot, GroupKey, Sums]


@dataclass(slots=True)
class _Run:
    """One run's sums merged for pricing, and what it has raised.

    Most commits only add to `cycles`: the tallies are brought up to them when somebody asks (`Judge._tallied`).
    """

    tallies: dict[Told, Tally]  # by what was said of the work
    said: dict[tuple[JobKey, Slot], Told]  # job, slot -> that; filled as it is asked for
    by_hour: bool  # whether that depends on the hour
    cycles: int  # all cycles of all groups, added up: bounds how far any figure can have moved
    raised: set[str]
    #: Until the run's cycles and its ancestors' reach this, no figure can meet a line that it did not meet when last
    #: priced …
    quiet_until: int = 0
    quiet_era: int = -1  # … for as long as the same regimes are in force
    pending: list[_Row] | None = None  # what the last commit that touched it added, and the tallies have not
    stale: bool = False  # the tallies lack more than that, and are to be read again


@dataclass(frozen=True, slots=True)
class Moment:
    """One commit: its clock, and the positions that an event of it rests on."""

    unix_ns: int
    since_position: int
    position: int


class _Live(Counting):
    """Countable totals of the runs as they stand in memory, what the group adds included. For one commit."""

    def __init__(
        self, judge: "Judge", registry: Registry, lineage: Lineage, models: Mapping[int, Model], table: WTable
    ) -> None:
        super().__init__(registry, lambda _run: (), models, table, lineage)
        self._judge = judge
        self._priced: dict[str, list[Share]] = {}

    def work(self, run: str) -> list[Share]:
        found = self._priced.get(run)
        if found is None:
            found = self._priced[run] = self._judge.shares(run)
        return found


class Judge:
    """Owned by the writer; a cache of the store like all of it, dropped by `reset` after any failure."""

    def __init__(self, books: Books, whose: Whose, regimes: Sequence[Regime], table: WTable) -> None:
        """`whose` is reset before the judge is."""
        self._books = books
        self._whose = whose
        self._regimes = tuple(regimes)
        self._modifications = [r for r in self._regimes if r.scope == MODIFICATION]
        self._table = table
        # FLOP and integer operations per counted cycle, at the very most: what one cycle adds to a figure is
        # at most four unread pipes, its own and half of one as noise, at the best rate, for FLOP, and three and a
        # half for integer operations, widened by under 6.2 (SPREAD_STEPS_PPM). 64 best rates are more than that
        # (tests/collector/ingest/test_writer.py).
        best = max((rate for arch in table.archs for rate in arch.rates.values()), default=1)
        self._most_per_cycle = best * 64
        of_runs = [r for r in self._regimes if r.scope == RUN]
        self._lines = sorted(
            {r.threshold_flop for r in of_runs} | {floor(at) for r in of_runs for at in early_lines(r)}
        )
        self.reset()

    def reset(self) -> None:
        """Forget all. Raises StoreError."""
        self._runs: dict[str, _Run] = {}
        self._models = {no: Model(*model) for no, model in self._books.models().items()}
        self._day = self._reviewed_era = -1
        self._era_no, self._in_force = 0, frozenset[str]()
        self._due: set[str] = set()
        self.touched: list[str] = []  # runs that the last group added to
        self._rows: dict[str, list[_Row]] = {}  # what this group adds, by run, while it is in no store
        self._registry = Registry()
        self._lineage = Lineage(())
        self._above: dict[str, frozenset[str]] = {}
        self._below: dict[str, frozenset[str]] = {}
        self._take_registry()

    def _take_registry(self) -> None:
        before, self._registry = self._registry, self._whose.registry
        same = (before.stands_on, before.externals) == (self._registry.stands_on, self._registry.externals)
        if not same:
            self._lineage = Lineage.of(self._registry)
            self._above, self._below = {}, {}

    def add_names(self, models: Iterable[tuple[int, str, str]], moved: Sequence[Moved]) -> None:
        """What the group brings: models, and runs that change because workloads go from one to the other."""
        for model_no, name, capability in models:
            self._models[model_no] = Model(name, capability)
        runs = {name for m in moved for name in (m.was, m.run) if name}
        if runs and self._registry.stands_on:
            runs |= self._lineage.descendants(runs)  # theirs too is another family now
        self._change(runs)

    def said(self, before: Registry) -> set[str]:
        """People said something since `before`: what that touches is read again, judged with this commit, and returned."""
        touched = set(_touched(before, self._whose))
        standing_on = self._lineage.descendants(touched)
        self._take_registry()
        touched |= standing_on | self._lineage.descendants(touched)
        self._change(touched)
        return touched

    def _change(self, runs: Iterable[str]) -> None:
        for run in runs:
            if run:
                self._runs.pop(run, None)
                self._due.add(run)

    def book(self, delta: dict[HourKey, Sums], at: Moment) -> list[NewEvent]:
        """Add `delta` to the runs it touches; what each of them, and what stands on it, must raise now."""
        if not self._regimes:
            self._due = set()
            return []
        touched = self.touched = self._add(delta)
        live: _Live | None = None
        events: list[NewEvent] = []
        for name in self._to_judge(touched):
            state = self._state(name)
            if name in self._due or self._family_cycles(name, state) >= state.quiet_until:
                live = live or self._live()
                events += self._judge(name, live, at)
        self._due = set()
        return events

    def _add(self, delta: dict[HourKey, Sums]) -> list[str]:
        """The runs that `delta` was added to."""
        touched: dict[str, list[_Row]] = {}
        whose = self._whose
        whose.know(key.group.workload_no for key in delta)
        for (slot, group_key), numbers in delta.items():
            run = whose.run_of(group_key.workload_no)
            if run:
                touched.setdefault(run, []).append((slot, group_key, numbers))
        self._rows = touched
        for name, rows in touched.items():
            state = self._runs.get(name)
            if state is None:
                self._state(name)  # from the store, with what is in none yet
                continue
            state.cycles += _cycles(rows)
            if state.pending is None and not state.stale:
                state.pending = rows
            else:  # nobody asked since the commit before
                state.tallies, state.said, state.pending, state.stale = {}, {}, None, True
        return list(touched)

    def _put(self, name: str, state: _Run, slot: Slot, key: GroupKey, numbers: Sums) -> None:
        w = self._whose.held(key.workload_no)
        place = (JobKey(w.scope, w.kind, w.job), slot if state.by_hour else _ANY_SLOT)
        what = state.said.get(place)
        if what is None:
            what = state.said[place] = told(self._registry, name, *place)
        tally = state.tallies.get(what)
        if tally is None:
            tally = state.tallies[what] = Tally()
        tally.add(key, w.dtype, numbers)

    def _to_judge(self, touched: Iterable[str]) -> list[str]:
        names = dict.fromkeys(touched)
        if self._registry.stands_on:
            for name in list(names):
                below = self._below.get(name)
                if below is None:
                    below = self._below[name] = self._lineage.descendants([name])
                names.update(dict.fromkeys(sorted(below)))
        names.update(dict.fromkeys(sorted(self._due)))
        return list(names)

    def review(self, at: Moment, tx: Transaction) -> list[NewEvent]:
        """Where other regimes are in force, and once after `reset`: every run, and a note in `tx` of what is judged by.

        Call it behind `book`: what that added is judged with the rest.
        """
        era = self._era(at)
        if era == self._reviewed_era:
            return []
        if self._reviewed_era < 0:
            self._note(at, tx)
        self._reviewed_era = era
        events: list[NewEvent] = []
        if self._regimes:
            live = self._live()
            for name in sorted(self._whose.runs()):
                # A run that this group touched is in memory, with what the group adds; others are not kept.
                kept = name in self._runs
                state = self._state(name)
                new: list[NewEvent] = []
                if state.quiet_era != era or self._family_cycles(name, state) >= state.quiet_until:
                    new = self._judge(name, live, at)
                    events += new
                # What was raised just now is in no store yet: whoever asks after the run in this commit would not see it.
                if not kept and not new:
                    del self._runs[name]
        return events

    def _era(self, at: Moment) -> int:
        """Another number whenever the regimes in force are others, which they can be from one UTC day to the next only."""
        day = at.unix_ns // _DAY_NS
        if day != self._day:
            self._day = day
            here = frozenset(r.id for r in self._regimes if in_force(r, at.unix_ns))
            if here != self._in_force:
                self._in_force = here
                self._era_no += 1
        return self._era_no

    def _note(self, at: Moment, tx: Transaction) -> None:
        wanted = {(r.id, text_of(r), self._table.id) for r in self._regimes}
        noted = {(j.regime, j.digest, j.w_table): j for j in self._books.judged()}
        tx.judged_until = [
            (at.since_position - 1, *key, j.from_position) for key, j in noted.items() if key not in wanted
        ]
        tx.judged = [
            Judged(*key, at.since_position, at.unix_ns) for key in sorted(wanted) if key not in noted
        ]
        tx.noted.append(Noted(JUDGED, len(wanted), at.since_position, at.unix_ns))
        texts = [(r.digest, r.text) for r in self._regimes]
        texts += [(p.digest, p.text) for r in self._regimes if (p := r.counted_by) is not None]
        tx.texts += [(digest, text, at.unix_ns) for digest, text in dict.fromkeys(texts) if text]

    def trim(self) -> None:
        """After a commit: what the group added is in the store. Forget, if too much is kept."""
        self._rows = {}
        if len(self._runs) > MAX_CACHED_RUNS:
            self._runs = {}

    # --- one run, as it stands with this group ---

    @property
    def models(self) -> Mapping[int, Model]:
        """Those of the group too."""
        return self._models

    @property
    def most_per_cycle(self) -> int:
        """What one cycle of a run's family adds to any figure of the run, at the very most."""
        return self._most_per_cycle

    def stands(self, name: str) -> Standing:
        """Where a run stands, also one of which nothing was metered yet."""
        return self._stands(name, self._tallied(name), self._live())

    def stands_on(self, name: str) -> bool:
        """Whether it stands on anything."""
        return bool(self._lineage.parents(name))

    def family_cycles(self, name: str) -> int:
        """Cycles of the run and of all that it stands on: whatever counts, it grows with these."""
        return self._family_cycles(name, self._state(name))

    def shares(self, name: str) -> list[Share]:
        """What a run did, cut by what was said of it, as it stands with this group."""
        state = self._tallied(name)
        return shares(state.tallies, self._models, self._table)

    def _live(self) -> _Live:
        return _Live(self, self._registry, self._lineage, self._models, self._table)

    def _judge(self, name: str, live: _Live, at: Moment) -> list[NewEvent]:
        state = self._tallied(name)
        state.quiet_era = self._era(at)
        if not state.tallies:  # declared, or emptied by an assignment: what stands in no books raises nothing
            state.quiet_until = 1
            return []
        stands = self._stands(name, state, live)
        found = run_events(
            stands,
            self._regimes,
            state.raised,
            at_unix_ns=at.unix_ns,
            since_position=min(at.since_position, at.position),
            position=at.position,
            met_since_unix_ns=self._met_since(name, at),
        )
        state.raised.update(event.key for event in found)
        room = self._quiet_cycles(stands)
        state.quiet_until = self._family_cycles(name, state) + room
        return found

    def _met_since(self, name: str, at: Moment) -> int | None:
        """When that was done which this group adds to the run and to what it stands on, if it was long ago."""
        family = (name, *self._above_of(name))
        return met_since((slot for run in family for slot, _, _ in self._rows.get(run, ())), at.unix_ns)

    def _stands(self, name: str, state: _Run, live: _Live) -> Standing:
        return standing(live, name, self._executed(name, state, live), self._regimes)

    def _executed(self, name: str, state: _Run, live: _Live) -> tuple[Figure, Figure]:
        if len(state.tallies) == 1:
            (share,) = live.work(name)
            return share.flop, share.integer_ops
        whole = Tally()
        for tally in state.tallies.values():
            whole.include(tally)
        return whole.figures(self._models, self._table)

    def _quiet_cycles(self, stands: Standing) -> int:
        """How many more cycles of the run and its ancestors no bound can need to get to the next line above it."""
        rooms = [
            line - n
            for total in (stands.executed, *stands.by_counting.values())
            for n in _bounds(total.flop, total.flop + total.integer_ops)
            for line in self._lines
            if line >= n
        ]
        for regime in self._modifications:
            for made in stands.modifications[regime.counting]:
                if not known(made.original_flop):
                    return 1  # until something is known of the original, each cycle may be its first
                line = line_of(regime, made.original_flop)
                bounds = _bounds(made.flop, made.flop + made.integer_ops)
                lines = [at * part for at in line or () for part in (Fraction(1), *regime.early)]
                rooms += [int(at - n) for n in bounds for at in lines if at >= n]
        return min(rooms) // self._most_per_cycle if rooms else _NEVER

    def _family_cycles(self, name: str, state: _Run) -> int:
        """The run's cycles and those of all that it stands on, each once: what bounds its growth, whatever counts."""
        return state.cycles + sum(self._state(ancestor).cycles for ancestor in self._above_of(name))

    def _above_of(self, name: str) -> frozenset[str]:
        if not self._registry.stands_on:
            return frozenset()
        above = self._above.get(name)
        if above is None:
            above = self._above[name] = self._lineage.above(name) - {name}
        return above

    def _state(self, name: str) -> _Run:
        state = self._runs.get(name)
        if state is None:
            state = self._runs[name] = self._read(name)
        return state

    def _tallied(self, name: str) -> _Run:
        """The run's state with all that was added to it in its tallies."""
        state = self._state(name)
        if state.stale:
            self._tally(name, state)
            state.stale = False
        else:
            for row in state.pending or ():
                self._put(name, state, *row)
        state.pending = None
        return state

    def _read(self, name: str) -> _Run:
        """The run's state, from the store and this group."""
        state = _Run({}, {}, self._registry.has_spans(name), 0, self._books.event_keys(name))
        state.cycles = self._tally(name, state)
        return state

    def _tally(self, name: str, state: _Run) -> int:
        """Fill empty tallies; all cycles that went into them."""
        numbers = self._whose.workloads_of(name)
        rows: list[_Row] = []
        if state.by_hour:
            rows += [(slot, key, sums) for (slot, key), sums in self._books.workload_hours(numbers)]
        else:
            rows += [(_ANY_SLOT, key, sums) for key, sums in self._books.workload_totals(numbers)]
        rows += self._rows.get(name, ())
        for row in rows:
            self._put(name, state, *row)
        return _cycles(rows)


def _cycles(rows: Iterable[_Row]) -> int:
    return sum(sum(numbers[1:11]) for _, _, numbers in rows)


def _bounds(*figures: Figure) -> list[int]:
    return [n for f in figures for n in (f.lower, f.point, f.upper)]


def _touched(before: Registry, whose: Whose) -> Iterator[str]:
    """Runs (and external models) of which something else is said than `before`, or is said now that has their work."""
    now = whose.registry
    for entry in now.entries[len(before.entries) :]:
        about: Entry | None = entry
        if isinstance(entry.statement, Retract):
            about = now.entry(entry.statement.number)
        if about is None:
            continue
        for registry in (before, now):
            for name in names_of(about.statement)[:1]:
                yield from (name, *registry.each(name))
            if isinstance(about.statement, Assign):
                yield from whose.runs_of_job(about.statement.job, registry)
    for name in before.formerly.keys() | now.formerly.keys():
        if before.went(name) != now.went(name):
            yield from (name, *before.each(name), *now.each(name))
