"""The one writer: a group in, one transaction out, with totals and the events they cause.

What is in memory is a cache of the store. After any failure nothing is known, so all of it is dropped and
read again (`reset`); nothing is ever repaired in place.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flopmeter.collector.access.clone import clone_event
from flopmeter.collector.access.rows import ADMITTED, NewAccess
from flopmeter.collector.books import BRIDGE, BRIDGE_S, NO_SUMS, GroupKey, HourKey, Sums
from flopmeter.collector.duty.deadlines import DEFAULT_LEADS_NS
from flopmeter.collector.duty.watch import DutyWatch
from flopmeter.collector.estimate.margin import MARGIN_PERCENT
from flopmeter.collector.forecast.settings import DEFAULT, Outlook
from flopmeter.collector.forecast.watch import ForecastWatch
from flopmeter.collector.law.agent_events import fork_event, loss_event, silent_event, twice_event
from flopmeter.collector.law.cross_check import check_event
from flopmeter.collector.law.events import NewEvent
from flopmeter.collector.law.judge import Judge, Moment
from flopmeter.collector.law.log_contradiction import contradiction_event, heard
from flopmeter.collector.law.log_fault import fault_event
from flopmeter.collector.law.progress_watch import ProgressWatch
from flopmeter.collector.law.regimes import Regime, in_order
from flopmeter.collector.law.unattributed_watch import UNATTRIBUTED_MINUTES, UnattributedWatch
from flopmeter.collector.law.whose import Whose
from flopmeter.collector.law.witness import ENTRIES, RULES, rules_number
from flopmeter.collector.store.base import Books, Held, Noted, Transaction
from flopmeter.contract.w_table import current

from .admission import BY_TOKEN
from .group import Group, NewWorkload, TakenRecord
from .identity import RuleList
from .identity_rules import shipped

if TYPE_CHECKING:
    from flopmeter.collector.estimate.declared import Declared
    from flopmeter.collector.law.laws import Laws
    from flopmeter.collector.law.second_method import SecondMethod
    from flopmeter.collector.report.capacity_watch import CapacityWatch
    from flopmeter.collector.report.sites import Sites

#: Sums kept in memory; past this they are read from the store again.
MAX_CACHED_SUMS = 200_000
MAX_CACHED_WORKLOADS = 100_000
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did, for metrics and sinks."""

    records: int
    events: tuple[NewEvent, ...]
    seconds: float


@dataclass(slots=True)
class _Cache:
    totals: dict[GroupKey, Sums] = field(default_factory=dict)
    hourly: dict[HourKey, Sums] = field(default_factory=dict)


class Writer:
    """Commits groups. Every method runs on the writer's thread."""

    def __init__(
        self,
        books: Books,
        regimes: Sequence[Regime],
        *,
        sinks: Sequence[str] = (),
        recipients: Callable[[NewEvent], Iterable[str]] | None = None,
        estimates: "Sequence[Declared]" = (),
        rules: RuleList | None = None,
        unattributed_minutes: int = UNATTRIBUTED_MINUTES,
        progress_margin_percent: int = MARGIN_PERCENT,
        deadline_leads_ns: Sequence[int] = DEFAULT_LEADS_NS,
        outlook: Outlook = DEFAULT,
        sites: "Sites | None" = None,
        laws: "Callable[[], Laws] | None" = None,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """What it books by. `recipients`: which sinks get an event; None: each of `sinks` gets every one.

        `rules`: those by which the intake before it gives workloads their runs; None: the shipped ones. `laws`: where
        the law files come from that hold now, asked at each commit; None: `regimes` hold for ever.
        """
        self._books = books
        self._rules = rules or shipped()
        self._whose = Whose(books)
        self._regimes = tuple(regimes)
        self._laws_now, self._laws = laws, None if laws is None else laws()
        self._outlook, self._leads_ns, self._sites = outlook, deadline_leads_ns, sites
        self._by_law()
        self._methods = _second_method(books, estimates, self._whose) if estimates else None
        self._unowned = UnattributedWatch(books, self._whose, unattributed_minutes, current())
        self._progress = ProgressWatch(books, self._whose, progress_margin_percent, current())
        self._recipients = recipients or (lambda _: sinks)
        self._unix_ns = unix_ns
        self.reset()

    def _by_law(self) -> None:
        """What judges, made for the regimes that hold. To be reset before it is used."""
        if self._laws is not None:
            self._regimes = self._laws.binding
        regimes, books = in_order(self._regimes), self._books
        self._judge = Judge(books, self._whose, regimes, current())
        self._forecasts = ForecastWatch(
            books, self._whose, self._judge, regimes, self._outlook, table=current()
        )
        self._duty = DutyWatch(books, regimes, self._leads_ns)
        self._capacity = _capacity(books, regimes, self._sites)

    def _look_at_laws(self) -> None:
        """Other law files hold since the last commit: judge by those, as after a start."""
        if self._laws_now is not None and (now := self._laws_now()) is not self._laws:
            before, self._laws = self._laws, now
            try:
                self._by_law()
                self.reset()
            except BaseException:
                self._laws = before  # the store could not be read: the next commit looks again
                raise

    def reset(self) -> None:
        """Forget all sums and read numbers again from the store. Raises StoreError."""
        self._cache = _Cache()
        self._position = self._books.next_position()
        self._event_no = self._books.next_event_no()
        self._applied = self._books.applied()
        self._rules_noted = self._books.identity_rules() == self._rules.digest
        self._laws_noted: Laws | None = None
        self._slots_noted = self._books.noted(BRIDGE) == BRIDGE_S
        self._whose.reset()
        self._judge.reset()
        self._unowned.reset()
        self._progress.reset()
        self._forecasts.reset()
        self._duty.reset()
        if self._capacity is not None:
            self._capacity.reset()
        if self._methods is not None:
            self._methods.reset()

    @property
    def due_unix_ns(self) -> int:
        """When there is next something to tell that no record brings: a commit is owed then. Any thread."""
        return self._duty.next_unix_ns

    def commit(self, group: Group) -> Committed:
        """Make `group` durable, whole. Raises StoreError; then `reset` before the next commit."""
        begun = time.perf_counter()
        self._look_at_laws()
        now = self._unix_ns()
        tx = Transaction()
        _names(group, tx)
        self._whose.add({w.workload_no: _held(w) for w in group.workloads}, group.moved)
        self._judge.add_names(group.models, group.moved)
        self._whose.look()
        said: Collection[str] = ()
        if self._whose.before is not self._whose.registry:
            said = self._judge.said(self._whose.before)

        first_position = self._position
        if not self._rules_noted:
            tx.identity_rules = [(first_position, now, self._rules.digest, self._rules.text)]
            tx.noted.append(Noted(RULES, rules_number(self._rules.digest), first_position, now))
        entries = len(self._whose.registry.entries)
        if entries != self._applied:
            tx.applied = [(entries, first_position, now)]
            tx.noted.append(Noted(ENTRIES, entries, first_position, now))
        position = self._records(group.records, tx)
        delta = _delta(group.records)
        totals, hourly = self._sums(delta, tx)
        self._spans(group.records, tx)
        at = Moment(now, first_position, position - 1)
        events = self._judge.book(delta, at)
        if not self._slots_noted:
            tx.noted.append(Noted(BRIDGE, BRIDGE_S, first_position, now))
        events += self._judge.review(at, tx)
        self._note_laws(at, tx)
        tx.noted += [*self._unowned.note(at), *self._progress.note(at), *self._forecasts.note(at)]
        events += self._unowned.judge(delta, group.models, at)
        events += self._progress.judge(group, self._progress.add(group, tx), delta, at)
        if self._methods is not None:
            events += self._methods.judge(group, delta, at_unix_ns=now, position=position - 1)
        events += self._asides(group, tx, now, position - 1)
        events += self._flags(group, now, first_position)
        events += self._silences(group, now, first_position - 1)
        events += self._forecasts.judge(delta, said, at, tx)
        if self._capacity is not None:
            events += self._capacity.judge(group, at, tx)
        events += self._duty.judge(events, self._event_no, at, tx)
        self._write_events(events, tx)

        self._books.write(tx)

        self._cache.totals.update(totals)
        self._cache.hourly.update(hourly)
        self._position, self._applied = position, entries
        self._rules_noted = self._slots_noted = True
        self._event_no += len(events)
        self._laws_noted = self._laws
        cache = self._cache
        if len(cache.totals) + len(cache.hourly) > MAX_CACHED_SUMS:
            self._cache = _Cache()
        self._whose.trim(MAX_CACHED_WORKLOADS)
        self._judge.trim()
        return Committed(len(group.records), tuple(events), time.perf_counter() - begun)

    def _note_laws(self, at: Moment, tx: Transaction) -> None:
        """The site's files, if they are not those that were applied last."""
        if self._laws is None or self._laws is self._laws_noted:
            return
        number, known = self._books.site_laws()
        digests = [(f.name, f.digest, f.raw.decode()) for f in self._laws.files]
        files = json.dumps([[name, digest] for name, digest, _ in digests], separators=(",", ":"))
        if files != known:
            tx.site_laws = [(number + 1, at.since_position, at.unix_ns, files)]
            tx.texts += [(digest, text, at.unix_ns) for _, digest, text in digests]

    def _records(self, records: Iterable[TakenRecord], tx: Transaction) -> int:
        position = self._position
        heads: dict[int, tuple[int, int, int]] = {}
        for r in records:
            tx.records.append(
                (
                    position,
                    r.window_start_unix_ns // _SECOND_NS,
                    r.agent_no,
                    r.seq,
                    r.window_end_unix_ns,
                    r.received_unix_ns,
                    r.hash,
                    r.raw,
                )
            )
            tx.starts_unix_ns.append(r.window_start_unix_ns)
            heads[r.agent_no] = (r.agent_no, position, r.usual_window_ns)
            position += 1
        tx.heads = sorted(heads.values())
        return position

    def _sums(
        self, delta: dict[HourKey, Sums], tx: Transaction
    ) -> tuple[dict[GroupKey, Sums], dict[HourKey, Sums]]:
        """New totals and hourly sums: what was, plus `delta`. What was stays untouched until it is durable."""
        cache = self._cache
        by_group: dict[GroupKey, Sums] = {}
        for (_slot, group_key), numbers in delta.items():
            sums = by_group.get(group_key)
            by_group[group_key] = numbers if sums is None else _plus(sums, numbers)
        cache.totals.update(self._books.totals(key for key in by_group if key not in cache.totals))
        cache.hourly.update(self._books.hourly(key for key in delta if key not in cache.hourly))
        totals = {key: _plus(cache.totals.get(key, NO_SUMS), more) for key, more in by_group.items()}
        hours = {key: _plus(cache.hourly.get(key, NO_SUMS), more) for key, more in delta.items()}
        tx.totals = [(*key, *map(str, numbers)) for key, numbers in totals.items()]
        tx.hourly = [(*key.slot, *key.group, *map(str, numbers)) for key, numbers in hours.items()]
        return totals, hours

    def _spans(self, records: Iterable[TakenRecord], tx: Transaction) -> None:
        spans: dict[int, tuple[int, int]] = {}
        for r in records:
            first, last = r.window_start_unix_ns, r.window_end_unix_ns
            for key, _ in r.groups:
                known = spans.get(key.workload_no)
                if known is not None:
                    spans[key.workload_no] = (min(known[0], first), max(known[1], last))
                else:
                    spans[key.workload_no] = (first, last)
        tx.spans = [(first, last, number) for number, (first, last) in spans.items()]

    def _asides(self, group: Group, tx: Transaction, now: int, position: int) -> list[NewEvent]:
        """Losses, forks and entities told of twice: rows and events, each once."""
        events: list[NewEvent] = []
        for loss in group.losses:
            tx.losses.append(
                (loss.agent.agent_no, loss.from_seq, loss.to_seq, loss.noticed_unix_ns, loss.reason)
            )
            events.append(
                loss_event(
                    loss.agent.agent_id,
                    loss.agent.node,
                    loss.from_seq,
                    loss.to_seq,
                    loss.reason,
                    at_unix_ns=now,
                    position=position,
                )
            )
        for c in group.conflicts:
            tx.conflicts.append((c.agent.agent_no, c.seq, c.hash, c.raw, c.received_unix_ns))
            event = fork_event(
                c.agent.agent_id,
                c.agent.node,
                c.seq,
                stored_hash=c.stored_hash,
                refused_hash=c.hash,
                at_unix_ns=now,
                position=position,
            )
            if not self._books.has_event(event.key):
                events.append(event)
        for agent_id, node, access_no in group.clones:
            event = clone_event(agent_id, node, access_no, at_unix_ns=now, position=position)
            if not self._books.has_event(event.key):
                events.append(event)
        for said in dict.fromkeys(group.log_faults):
            event = fault_event(said, at_unix_ns=now, position=position)
            if not self._books.has_event(event.key):
                tx.log_faults.append((event.key, now, said))
                events.append(event)
        for t in group.twice:
            event = twice_event(
                t.entity,
                (t.booked.agent_id, t.booked.node),
                (t.left_out.agent_id, t.left_out.node),
                t.since_unix_ns,
                at_unix_ns=now,
                position=position,
            )
            if not self._books.has_event(event.key):
                events.append(event)
        return events

    def _flags(self, group: Group, now: int, first_position: int) -> list[NewEvent]:
        """What agents tell of: an event for the first of a day."""
        found: dict[str, NewEvent] = {}
        for index, flags in group.flagged:
            for flag in flags:
                if flag.key not in found and not self._books.has_event(flag.key):
                    found[flag.key] = check_event(flag, at_unix_ns=now, position=first_position + index)
        for index, said in group.contradicted:
            keys = self._books.event_keys_from(said.day_prefix)
            if heard(said, keys | {key for key in found if key.startswith(said.day_prefix)}):
                found[said.key] = contradiction_event(said, at_unix_ns=now, position=first_position + index)
        return list(found.values())

    def _silences(self, group: Group, now: int, position: int) -> list[NewEvent]:
        """They rest on the books as they were before this group, in which the agent may come back."""
        found = []
        for s in group.silences:
            event = silent_event(
                s.agent.agent_id,
                s.agent.node,
                s.last_seq,
                s.window_end_unix_ns,
                s.received_unix_ns,
                at_unix_ns=now,
                position=position,
            )
            if not self._books.has_event(event.key):
                found.append(event)
        return found

    def _write_events(self, events: Iterable[NewEvent], tx: Transaction) -> None:
        for number, e in enumerate(events, self._event_no):
            tx.events.append(
                (
                    number,
                    e.id,
                    e.key,
                    e.type,
                    e.subject,
                    e.time_unix_ns,
                    e.since_position,
                    e.position,
                    e.data_json,
                )
            )
            tx.outbox += [(number, sink) for sink in self._recipients(e)]


def _second_method(books: Books, estimates: "Sequence[Declared]", whose: Whose) -> "SecondMethod":
    # Imported only by those who declare some: a start without is a tenth shorter.
    from flopmeter.collector.law.second_method import SecondMethod

    return SecondMethod(books, estimates, current(), whose)


def _capacity(books: Books, regimes: Iterable[Regime], sites: "Sites | None") -> "CapacityWatch | None":
    """None where no law that binds draws a line of capacity: none of the shipped ones does."""
    lines = [r for r in regimes if r.capacity is not None and r.may_bind]
    if not lines:
        return None
    from flopmeter.collector.report.capacity_watch import CapacityWatch
    from flopmeter.collector.report.sites import NO_SITES

    return CapacityWatch(books, lines, sites or NO_SITES, current())


def _names(group: Group, tx: Transaction) -> None:
    tx.new_agents = [
        (a.agent_no, a.agent_id, a.public_key, a.node, a.version, a.admitted_how, a.admitted_unix_ns)
        for a in group.new_agents
    ]
    tx.access_upto = group.access_no
    tx.access = [
        NewAccess(
            a.admitted_unix_ns,
            ADMITTED,
            a.agent_id,
            a.node,
            {"how": a.admitted_how, "key": a.public_key.hex()},
        )
        for a in group.new_agents
        if a.admitted_how != BY_TOKEN  # who came by one has its row
    ]
    tx.seen_agents = list(group.seen_agents)
    tx.inventories = list(group.inventories)
    tx.models = list(group.models)
    tx.workloads = list(group.workloads)
    tx.moved = [(m.run, m.rule, m.workload_no) for m in group.moved]
    tx.formerly = [(m.workload_no, m.was) for m in group.moved if m.was != m.run]
    tx.boots = list(group.boots)
    tx.clocks = [(agent_no, *offset) for agent_no, offset in group.clocks.items()]
    tx.claims = [claim.row for claim in group.claims]
    tx.claim_ends = [(*claim.row[6:], claim.claim_no) for claim in group.ended_claims]


def _held(w: NewWorkload) -> Held:
    return Held(w.run, w.dtype, w.scope, w.kind, w.job, w.step)


def _delta(records: Iterable[TakenRecord]) -> dict[HourKey, Sums]:
    """What the group adds, per slot and books group: each dirty key is then written once."""
    lines: dict[HourKey, list[Sums]] = {}
    for r in records:
        for group_key, numbers in r.groups:
            key = HourKey(r.slot, group_key)
            same = lines.get(key)
            if same is None:
                lines[key] = [numbers]
            else:
                same.append(numbers)
    return {
        key: same[0] if len(same) == 1 else [sum(column) for column in zip(*same, strict=True)]
        for key, same in lines.items()
    }


def _plus(a: Iterable[int], b: Iterable[int]) -> Sums:
    return [x + y for x, y in zip(a, b, strict=True)]
