"""Plans and forecasts in the transaction of a commit. Owned by the writer, on its thread; a cache of the store.

A run is asked at most once an hour, and costs nothing but a comparison of integers in between, and while all that it
and its ancestors ever did is below a sixty-fourth of every line. Nothing is missed by that: the lower edge counts on three
times as long as was seen, so that no line is known to be met before a quarter of it is done. A plan is asked when somebody says something, once a day and after a start.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

from flopmeter.collector.books import HourKey, Sums
from flopmeter.collector.law.events import NewEvent
from flopmeter.collector.law.judge import Judge, Moment
from flopmeter.collector.law.lines import OF_BUDGET, lines_of, target, total_of
from flopmeter.collector.law.regimes import RUN, Regime
from flopmeter.collector.law.whose import Whose
from flopmeter.collector.registry.entries import JobKey
from flopmeter.collector.registry.shares import Row
from flopmeter.collector.store.base import Books, Noted, Transaction
from flopmeter.collector.store.forecasts import ForecastRow
from flopmeter.contract.w_table import WTable

from .document import Document, forecast_document
from .events import When, forecast_events, known_by_plan
from .history import LAG_NS, Past, Work, grown, span_of
from .keep import Kept, kept, to_text, worth_keeping
from .project import DAY_NS, HOUR_NS, MIN_BLOCKS
from .settings import Outlook

#: How the settings are called where their values are noted in the store.
CONFIDENCE = "forecast-confidence-percent"
HORIZON = "forecast-horizon-days"
#: Below this part of a line a run is not forecast against it.
FLOOR = Fraction(1, 64)
#: Forecasts per commit: each reads three days of a run, and records are waiting.
MAX_PER_COMMIT = 8
#: Plans per commit, of those that are looked at again by the day.
MAX_PLANS_PER_COMMIT = 64
#: Hours until a run with no line in sight is asked again.
FAR_HOURS = 6
#: A run that was forecast this long ago is looked after until it is at rest.
_RECENT_NS = 4 * DAY_NS


class ForecastWatch:
    """Dropped by `reset` after any failure."""

    def __init__(
        self,
        books: Books,
        whose: Whose,
        judge: Judge,
        regimes: Sequence[Regime],
        outlook: Outlook,
        *,
        table: WTable,
    ) -> None:
        """`judge` has booked the group, and `whose` knows it, before this is asked."""
        self._books, self._whose, self._judge = books, whose, judge
        self._regimes = tuple(regimes)
        self._by_id = {r.id: r for r in regimes}
        self._least = min(
            (target(r.threshold_flop, r.comparison) for r in regimes if r.scope == RUN and r.has_line),
            default=0,
        )
        self._outlook, self._table = outlook, table
        self.reset()

    def reset(self) -> None:
        """Forget all. Raises StoreError."""
        wanted = {CONFIDENCE: self._outlook.confidence_percent, HORIZON: self._outlook.horizon_days}
        self._to_note = {name: value for name, value in wanted.items() if self._books.noted(name) != value}
        self._forecast_no = self._books.next_forecast_no()
        self._asked: dict[
            str, tuple[int, int]
        ] = {}  # run -> hour in which it was asked, and for how many hours
        self._room: dict[str, int] = {}  # run -> its family's cycles until which every line is far
        self._due: dict[str, None] = {}  # in order
        self._active: set[str] = set()  # has a line in sight, and is not at rest
        self._last: dict[str, Kept | None] = {}
        self._raised: set[str] = set()
        self._plans: dict[str, None] = {}
        self._hour = self._day = -1

    def note(self, at: Moment) -> list[Noted]:
        """What is to be noted of the settings with this commit."""
        rows = [Noted(n, v, at.since_position, at.unix_ns) for n, v in self._to_note.items()]
        self._to_note = {}
        return rows

    def judge(
        self, delta: dict[HourKey, Sums], said: Iterable[str], at: Moment, tx: Transaction
    ) -> list[NewEvent]:
        """What must be raised, and into `tx` the forecasts to keep. `said`: runs that people spoke of since."""
        if not self._regimes:
            return []
        when = When(at.unix_ns, at.position)
        self._turn(at.unix_ns)
        events = self._planned(said, when)
        for run in self._judge.touched:
            self._ask(run)
        brought: dict[int, list[tuple[HourKey, Sums]]] | None = None
        for run in list(self._due)[:MAX_PER_COMMIT]:
            del self._due[run]
            if brought is None:
                brought = {}
                for key, sums in delta.items():
                    brought.setdefault(key.group.workload_no, []).append((key, sums))
            events += self._forecast(run, brought, when, tx)
        return events

    def _turn(self, unix_ns: int) -> None:
        hour, day = (unix_ns - LAG_NS) // HOUR_NS, unix_ns // DAY_NS
        if hour != self._hour:
            if self._hour < 0:
                for run in self._books.runs_forecast_since(unix_ns - _RECENT_NS):
                    row = self._books.last_forecast(run)
                    last = self._last[run] = None if row is None else kept(row.data)
                    if (
                        last is not None and last.in_sight and not last.at_rest
                    ):  # as if nothing had been forgotten
                        self._active.add(run)
            self._hour = hour
            self._due.update(dict.fromkeys(sorted(self._active)))
        if day != self._day:
            self._day = day
            self._plans.update(dict.fromkeys(self._whose.registry.declared_runs))

    def _ask(self, run: str) -> None:
        asked = self._asked.get(run)
        if asked is not None and 0 <= self._hour - asked[0] < asked[1]:
            return
        self._asked[run] = self._hour, 1
        room = self._room.get(run)
        if room is None:
            # Before anything is priced: so many cycles cannot be worth more, whatever they are.
            plain = not self._judge.stands_on(run) and self._whose.registry.declared(run) is None
            room = int(self._least * FLOOR) // self._judge.most_per_cycle if plain else 0
        if self._judge.family_cycles(run) >= room:
            self._due[run] = None

    # --- plans ---

    def _planned(self, said: Iterable[str], when: When) -> list[NewEvent]:
        waiting = list(self._plans)[:MAX_PLANS_PER_COMMIT]
        for run in waiting:
            del self._plans[run]
        found: list[NewEvent] = []
        registry = self._whose.registry
        for run in dict.fromkeys((*sorted(said), *waiting)):
            declared = registry.declared(run)
            if declared is None or not declared.budget_flop:
                continue
            self._room.pop(run, None)  # the budget is a line too
            if declared.budget_flop < self._least and not self._judge.stands_on(run):
                continue
            events = known_by_plan(
                self._judge.stands(run),
                registry,
                self._regimes,
                self._raised,
                when=when,
                table=self._table.id,
            )
            found += self._new(events)
        return found

    def _new(self, events: Iterable[NewEvent]) -> Iterator[NewEvent]:
        """Those that were never raised."""
        for event in events:
            if event.key not in self._raised:
                self._raised.add(event.key)
                if not self._books.has_event(event.key):
                    yield event

    # --- forecasts ---

    def _forecast(
        self, run: str, brought: dict[int, list[tuple[HourKey, Sums]]], when: When, tx: Transaction
    ) -> list[NewEvent]:
        stands = self._judge.stands(run)
        self._asked[run] = self._hour, 1
        room = self._far(
            run, [(m.target.lower, total_of(stands, m.basis).upper) for m in lines_of(stands, self._regimes)]
        )
        if room:
            self._room[run] = room
            self._active.discard(run)
            return []
        numbers = self._whose.workloads_of(run)
        first = [f for f, _, no in tx.spans if no in set(numbers)]
        seen = self._books.first_seen(numbers)
        since = min([*first, *([] if seen is None else [seen])], default=None)
        if since is None:
            return []
        span = span_of(when.unix_ns, since)
        if span.blocks < MIN_BLOCKS:
            return []
        registry = self._whose.registry
        work = Work(registry, self._judge.models, self._table)
        rows = self._rows(brought, span.first_hour)
        past = Past(run, when.unix_ns, since, span, stands, grown(work, run, rows, self._regimes, span))
        document = forecast_document(past, registry, self._regimes, self._outlook, self._table.id)
        return self._keep(document, when, tx)

    def _far(self, run: str, goals: list[tuple[int, int]]) -> int:
        """Up to how many cycles of the run's family no line is near; 0: one is."""
        declared = self._whose.registry.declared(run)
        if declared is not None and declared.budget_flop:
            executed = total_of(self._judge.stands(run), OF_BUDGET)
            goals = [*goals, (declared.budget_flop, executed.upper)]
        room = min((int(goal * FLOOR) - upper for goal, upper in goals), default=0)
        return 0 if room <= 0 else self._judge.family_cycles(run) + room // self._judge.most_per_cycle + 1

    def _rows(
        self, brought: dict[int, list[tuple[HourKey, Sums]]], from_hour: int
    ) -> Callable[[str], Iterator[Row]]:
        whose = self._whose

        def rows(name: str) -> Iterator[Row]:
            for no in whose.workloads_of(name):
                held = whose.held(no)
                stored: Iterable[tuple[HourKey, Sums]] = self._books.workload_hours([no], from_hour)
                for (slot, key), sums in (*stored, *brought.get(no, ())):
                    yield Row(JobKey(held.scope, held.kind, held.job), slot, held.dtype, key, sums)

        return rows

    def _keep(self, document: Document, when: When, tx: Transaction) -> list[NewEvent]:
        run = document["run"]
        if run not in self._last:
            row = self._books.last_forecast(run)
            self._last[run] = None if row is None else kept(row.data)
        events = list(
            self._new(forecast_events(self._forecast_no, document, self._by_id, self._raised, when))
        )
        now = kept(document)
        if now.in_sight and not now.at_rest:
            self._active.add(run)
        else:
            self._active.discard(run)
        if not now.in_sight:
            self._asked[run] = self._hour, FAR_HOURS
        if events or worth_keeping(self._last[run], now):
            tx.forecasts.append(
                ForecastRow(
                    self._forecast_no, run, when.unix_ns, when.position, document["method"], to_text(document)
                )
            )
            self._forecast_no += 1
            self._last[run] = now
        return events
