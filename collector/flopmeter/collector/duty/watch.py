"""Deadlines in the transaction of the commit that causes them: opened, near, overdue. Owned by the writer, on its thread.

Between two things to tell a commit costs one comparison of integers and one look for what people answered.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flopmeter.collector.law.deadline_rules import CALENDAR
from flopmeter.collector.law.events import NewEvent
from flopmeter.collector.law.judge import Moment
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.store.base import Books, Noted, Transaction

from .answers import DEADLINE, INCIDENT, NOT_APPLICABLE, State
from .deadlines import (
    DEFAULT_LEADS_NS,
    OVERDUE,
    STARTING,
    Deadline,
    Opening,
    Trigger,
    again,
    can_open_again,
    due_lead,
    first_key,
    following,
    next_look,
    opened,
    rules_mark,
    trigger_of,
)
from .notices import notice, told_of

#: With a regime's id: by which name it is noted that every event has the deadlines of its rules (rules_mark).
RULES = "deadline-rules:"
#: Dates of one calendar that a commit opens at most; what is left comes with the next. A clock that jumps by decades
#: must not hold a commit.
MAX_DATES = 64
_NEVER = 1 << 63


@dataclass(slots=True)
class _Live:
    """A deadline, and what became of it."""

    deadline: Deadline
    told: int | None = None  # the lead told last, or OVERDUE
    resolved: bool = False
    ended: bool = (
        False  # resolved as one that does not apply: no date follows, and the next event opens another
    )


class DutyWatch:
    """A cache of the store, dropped by `reset` after any failure."""

    def __init__(
        self, books: Books, regimes: Iterable[Regime], leads_ns: Sequence[int] = DEFAULT_LEADS_NS
    ) -> None:
        self._books = books
        self._regimes = {r.id: r for r in regimes}
        self._marks = {r.id: rules_mark(r) for r in self._regimes.values()}
        self._leads = tuple(leads_ns)
        self.reset()

    def reset(self) -> None:
        """Forget all and read it again. Raises StoreError."""
        noted = {i: self._books.noted(RULES + i) for i in self._regimes}
        # A text without rules is noted only behind one that had some.
        self._new = {
            i: self._marks[i]
            for i, r in self._regimes.items()
            if noted[i] != self._marks[i] and (r.deadlines or noted[i] is not None)
        }
        self._live: dict[str, _Live] = {}  # by key
        self._last: dict[str, _Live] = {}  # by first_key: the one that was opened last
        self._by_number: dict[int, _Live] = {}
        self._answers = 0
        self._read()
        for key in self._books.told_deadlines():
            lead, deadline = told_of(key)
            live = self._live.get(deadline)
            if live is not None and (live.told is None or lead < live.told):
                live.told = lead
        self._hear()
        self._next_unix_ns = 0  # look once

    @property
    def next_unix_ns(self) -> int:
        """Until then there is nothing to tell, but for what events start and people answer."""
        return self._next_unix_ns

    def judge(
        self, events: Iterable[NewEvent], first_event_no: int, at: Moment, tx: Transaction
    ) -> list[NewEvent]:
        """Open what `events` (numbered from there) start, into `tx`; what must be told now of what is open.

        Call it last: nothing else may be raised with this commit behind it.
        """
        heard = self._hear()  # first: what an event starts depends on it
        new = self._started(events, first_event_no, at, tx)
        if not heard and not new and at.unix_ns < self._next_unix_ns:
            return []
        return self._look(at, tx)

    def _started(self, events: Iterable[NewEvent], first_event_no: int, at: Moment, tx: Transaction) -> bool:
        opening = Opening(at.unix_ns, at.position)
        old = self._unopened(at, tx) if self._new else []
        new = [d for t in old for d in opened(t, self._regimes, opening) if self._open(d, tx)]
        triggers = [
            trigger
            for number, e in enumerate(events, first_event_no)
            if (trigger := trigger_of(number, e.type, e.subject, e.time_unix_ns, e.data)) is not None
        ]
        new += [d for t in triggers for d in opened(t, self._regimes, opening) if self._open_anew(d, tx)]
        return bool(new)

    def _unopened(self, at: Moment, tx: Transaction) -> list[Trigger]:
        """Events from before these rules were known here: of an older flopmeter, or of a file of then."""
        noted = [Noted(RULES + i, mark, at.since_position, at.unix_ns) for i, mark in self._new.items()]
        tx.noted = [*tx.noted, *noted]
        new, self._new = self._new, {}
        return [t for t in self._books.triggers(STARTING) if t.regime in new]

    def _open_anew(self, deadline: Deadline, tx: Transaction) -> bool:
        """Open what an event of now starts, also where a person has said of the last one that it does not apply."""
        last = self._last.get(deadline.key)
        if last is not None and last.ended and can_open_again(deadline.key):
            deadline = again(deadline)
        return self._open(deadline, tx)

    def _open(self, deadline: Deadline, tx: Transaction) -> bool:
        if deadline.key in self._live:
            return False  # the clock runs since the first
        self._keep(deadline)
        tx.deadlines.append(deadline)
        return True

    def _keep(self, deadline: Deadline) -> _Live:
        live = self._live[deadline.key] = self._last[first_key(deadline.key)] = _Live(deadline)
        return live

    def _hear(self) -> bool:
        """What people answered since the last look; whether it was about deadlines."""
        heard = self._books.answers_heard(self._answers)
        if not heard:
            return False
        self._answers = heard[-1].answer_no
        mine = [a for a in heard if a.about in (DEADLINE, INCIDENT)]
        if any(a.number not in self._by_number for a in mine):
            self._read()
        for a in mine:
            live = self._by_number.get(a.number)
            if live is not None:  # else fsck says what is wrong
                live.resolved = a.state == State.RESOLVED
                live.ended = live.resolved and a.outcome == NOT_APPLICABLE
        return bool(mine)

    def _read(self) -> None:
        """Deadlines of the store that are not known here: a person opens some."""
        for number, deadline in self._books.deadlines():
            live = self._live.get(deadline.key)
            if live is None:
                live = self._keep(deadline)
            self._by_number[number] = live

    def _look(self, at: Moment, tx: Transaction) -> list[NewEvent]:
        for live in [v for v in self._live.values() if v.deadline.key.startswith("deadline:day:")]:
            self._follow(live, at, tx)
        found = []
        for live in self._live.values():
            if live.resolved:
                continue
            lead = due_lead(live.deadline, self._leads, at.unix_ns)
            if lead is not None and (live.told is None or lead < live.told):
                live.told = lead
                found.append(notice(live.deadline, lead, self._answers, at))
        self._next_unix_ns = min((self._next(live, at) for live in self._live.values()), default=_NEVER)
        return found

    def _next(self, live: _Live, at: Moment) -> int:
        """When to look at it again."""
        told = OVERDUE if live.resolved else live.told
        looks = [next_look(live.deadline, self._leads, told)]
        if self._successor(live, at) is not None:
            looks.append(live.deadline.due_unix_ns)
        return min((n for n in looks if n is not None), default=_NEVER)

    def _follow(self, live: _Live, at: Moment, tx: Transaction) -> None:
        for _ in range(MAX_DATES):
            if at.unix_ns < live.deadline.due_unix_ns:
                return
            after = self._successor(live, at)
            if after is None:
                return
            self._open(after, tx)
            live = self._live[after.key]

    def _successor(self, live: _Live, at: Moment) -> Deadline | None:
        """The calendar's next date, if it is still to come: not of a law that ended, nor of what a person has ended."""
        was = live.deadline
        if live.ended or not was.key.startswith("deadline:day:"):
            return None
        regime = self._regimes.get(was.regime)
        if regime is None or not in_force(regime, at.unix_ns):
            return None
        rule = next((r for r in regime.deadlines if r.id == was.rule and r.trigger == CALENDAR), None)
        if rule is None:
            return None
        after = following(was, regime, rule, Opening(at.unix_ns, at.position))
        return None if after.key in self._live else after
