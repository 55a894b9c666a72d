"""Until when a run, and the whole store, must be kept, and for what. Pure.

What binds is the longest of: the site's own term, every duty that a regime of force states, a hold, and a deadline that
nobody has resolved. A term of which the first day is not known has no end. The store is kept for as long as any run in
it, and for the site's own term from its last record.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import NamedTuple

from flopmeter.collector.law.deadline_rules import INCIDENT as BY_PERSON
from flopmeter.collector.law.regimes import MANDATORY, Regime
from flopmeter.collector.law.retention_rules import INCIDENT, PLACED, WITHDRAWN, RetentionRule

from .words import HOLD, Said, SaidRow, latest_day

#: The subject of what is about the store as a whole.
STORE = ""
_UNKNOWN = {
    PLACED: "nobody has said when its model was placed on the market, or that it was given up",
    WITHDRAWN: "nobody has said that its deployment has ended",
}


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident that a person opened (deadlines): of a regime, on a run or (run "") on none."""

    regime: str
    run: str
    unix_ns: int


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A deadline that nobody has resolved."""

    deadline_no: int
    run: str
    what: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the books say, as far as keeping depends on it."""

    runs: Mapping[str, int]  # run -> when its last usage ended (unix ns); 0: it has none
    last_record_unix_ns: int = 0  # when the last record of all was received; 0: there is none
    near: frozenset[tuple[str, str]] = (
        frozenset()
    )  # (regime, run): it met, or may have met or be about to meet, its line
    incidents: tuple[Incident, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()
    children: Mapping[str, Collection[str]] = field(default_factory=dict)  # run -> runs that stand on it


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing for which something is kept."""

    name: str  # regime/rule, "site", "hold 3", "deadline 7"
    what: str
    source: str
    first_day: date | None  # the first day on which it no longer stands; None: no day is known
    so_far: str  # why there is no day, in words; "" where there is one
    run: str  # whose it is: the run itself, one that stands on it, or "" for the store's own

    @property
    def order(self) -> date:
        return date.max if self.first_day is None else self.first_day


def after_years(day: date, years: int) -> date:
    """The first day after a term of whole years that began on `day`: its anniversary is the term's last day.

    Of a 29 February that has no anniversary, 1 March is it.
    """
    try:
        last = day.replace(year=day.year + years)
    except ValueError:
        last = date(day.year + years, 3, 1)
    return last + timedelta(days=1)


def kept_for(run: str, facts: Facts, said: Said, regimes: Sequence[Regime]) -> tuple[Reason, ...]:
    """All for which `run` (STORE: the store as a whole) is kept, what binds longest first."""
    if run == STORE:
        found = [r for each in sorted(_every(facts)) for r in _own(each, facts, said, regimes)]
        found += _of_the_store(facts, said, regimes)
    else:
        found = _own(run, facts, said, regimes)
        for other in sorted(_standing_on(run, facts.children)):
            found += sorted(_own(other, facts, said, regimes), key=lambda r: r.order)[-1:]
        found += _open_ended(STORE, facts, said, only_holds=True)
    return tuple(sorted(found, key=lambda r: r.order, reverse=True))


def first_day(reasons: Iterable[Reason]) -> date | None:
    """The first day on which none of them stands any more; None: no such day is known."""
    days = [r.order for r in reasons]
    latest = max(days, default=date.min)
    return None if latest == date.max else latest


def standing(reasons: Iterable[Reason], today: date) -> tuple[Reason, ...]:
    """Those that stand on that day."""
    return tuple(r for r in reasons if r.order > today)


def rules_in_force(regimes: Iterable[Regime]) -> tuple[tuple[Regime, RetentionRule], ...]:
    """What regimes that bind, or will on a day that is set, want kept. One that has ended since still wants it."""
    return tuple((r, rule) for r in regimes if r.status in MANDATORY for rule in r.retention)


def _every(facts: Facts) -> set[str]:
    """Every run that the store is kept for: its own, and what is said to stand on them, whether it is here or not."""
    return {*facts.runs, *(child for several in facts.children.values() for child in several)}


def _own(run: str, facts: Facts, said: Said, regimes: Sequence[Regime]) -> list[Reason]:
    """What binds by the run itself: the site's term and all that counts from its market date, which every run is kept
    for whether it came near a line or not; what counts from its withdrawal where it came near that regime's line.
    """
    used = facts.runs.get(run, 0)
    last_use = latest_day(used) if used else date.min
    market, gone = said.market_day(run), said.withdrawn_day(run)
    found = [_ends(_site(said), PLACED, market, last_use, run)]
    for regime, rule in rules_in_force(regimes):
        term = _Term(f"{regime.id}/{rule.id}", rule.years, rule.what, rule.source)
        if rule.begins == PLACED:
            found.append(_ends(term, PLACED, market, last_use, run))
        elif rule.begins == WITHDRAWN and (regime.id, run) in facts.near:
            found.append(_ends(term, WITHDRAWN, gone, last_use, run))
    found += _incidents(run, facts, regimes)
    return found + _open_ended(run, facts, said)


def _of_the_store(facts: Facts, said: Said, regimes: Sequence[Regime]) -> list[Reason]:
    found = _incidents(STORE, facts, regimes) + _open_ended(STORE, facts, said)
    # A hold or an incident of a run that the books no longer name is the store's.
    for run in sorted({h.run for h in said.holds.values()} - _every(facts) - {STORE}):
        found += _open_ended(run, facts, said)
    for run in sorted({i.run for i in facts.incidents} - _every(facts) - {STORE}):
        found += _incidents(run, facts, regimes)
    if facts.last_record_unix_ns:
        name, years, _, source = _site(said)
        day = after_years(latest_day(facts.last_record_unix_ns), years)
        found.append(
            Reason(name, f"all records, {years} years after the last of them", source, day, "", STORE)
        )
    return found


def _site(said: Said) -> "_Term":
    row = said.years_said
    source = "default (reference/regulations.md 13.25)" if row is None else f"{row.who}: {row.why}"
    return _Term("site", said.years, "records of its training", source)


class _Term(NamedTuple):
    name: str
    years: int
    what: str
    source: str


def _ends(term: _Term, begins: str, begun: tuple[date, SaidRow] | None, last_use: date, run: str) -> Reason:
    """A term from a day that somebody said; from the run's last usage, if that came later."""
    name, years, what, source = term
    words = {PLACED: "the market date", WITHDRAWN: "the end of its deployment"}[begins]
    what = f"{what}, {years} years after {words}"
    if begun is None:
        return Reason(name, what, source, None, _UNKNOWN[begins], run)
    return Reason(name, what, source, after_years(max(begun[0], last_use), years), "", run)


def _incidents(run: str, facts: Facts, regimes: Sequence[Regime]) -> list[Reason]:
    found = []
    for regime, rule in rules_in_force(regimes):
        # Under a regime without a deadline for incidents nobody can open one: then those of any other are its too.
        every = not any(d.trigger == BY_PERSON for d in regime.deadlines)
        days = [
            latest_day(i.unix_ns)
            for i in facts.incidents
            if i.run == run and (every or i.regime == regime.id)
        ]
        if rule.begins == INCIDENT and days:
            day = after_years(max(days), rule.years)
            what = f"{rule.what}, {rule.years} years after it"
            found.append(Reason(f"{regime.id}/{rule.id}", what, rule.source, day, "", run))
    return found


def _open_ended(run: str, facts: Facts, said: Said, *, only_holds: bool = False) -> list[Reason]:
    """Holds, and deadlines that nobody has resolved."""
    holds = [
        Reason(
            f"{HOLD} {h.said_no}",
            f"legal hold of {latest_day(h.unix_ns)} over {f'run {run}' if run else 'everything'}",
            f"{h.who}: {h.why}",
            None,
            "until it is released",
            run,
        )
        for h in said.holds.values()
        if h.run == run
    ]
    if only_holds:
        return holds
    here = _every(facts) if run == STORE else set()
    owed = [
        Reason(f"deadline {u.deadline_no}", u.what, "flopmeter deadlines", None, "until it is resolved", run)
        for u in facts.unresolved
        if u.run == run or (run == STORE and u.run not in here)
    ]
    return holds + owed


def _standing_on(run: str, children: Mapping[str, Collection[str]]) -> set[str]:
    """Every run that stands on it, directly or not."""
    found: set[str] = set()
    ahead = [run]
    while ahead:
        for child in children.get(ahead.pop(), ()):
            if child not in found and child != run:
                found.add(child)
                ahead.append(child)
    return found
