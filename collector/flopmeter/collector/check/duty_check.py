"""Answers, deadlines and what was told of them, derived again: from events, regime texts and the chain of answers. Pure."""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flopmeter.collector.duty.answers import (
    DEADLINE,
    EVENT,
    INCIDENT,
    NOT_APPLICABLE,
    AnswerRow,
    State,
    check_chain,
    outcome_of,
)
from flopmeter.collector.duty.deadlines import (
    HOUR_NS,
    OVERDUE,
    STARTING,
    Deadline,
    Opening,
    Trigger,
    again,
    can_open_again,
    first_key,
    following,
    incident,
    opened,
    rules_mark,
    starting_types,
    trigger_of,
)
from flopmeter.collector.duty.notices import notice, notice_key, told_of
from flopmeter.collector.law.deadline_rules import CALENDAR, KNOWN, MET, DeadlineRule
from flopmeter.collector.law.deadline_rules import INCIDENT as BY_PERSON
from flopmeter.collector.law.events import DEADLINE_NEAR, DEADLINE_OVERDUE
from flopmeter.collector.law.judge import Moment
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.spelling import time_text

from .event_check import StoredEvent
from .rederive import Difference, compare

#: What a commit may be later than the record that it brought: nothing is owed before.
_LATE_NS = HOUR_NS
_TABLE = "deadlines"


@dataclass(slots=True)
class DutyCheck:
    """All that stands in the store, once every record is in."""

    deadlines: Sequence[tuple[int, Deadline]]
    answers: Sequence[AnswerRow]
    events: Sequence[StoredEvent]
    regimes: Mapping[str, Regime]  # as they are here
    texts: Mapping[
        tuple[str, str], Regime
    ]  # (id, digest of the file) -> that text of it, as far as it is known
    marks: Mapping[str, int]  # by regime, of the rules by which each event has its deadlines, as noted last
    marked: Mapping[str, int]  # by regime, from which position on that is noted
    position: int  # of the last record
    received_unix_ns: int  # when that came, by the collector's clock
    unknown_texts: set[str] = field(default_factory=set)
    _by_key: dict[str, tuple[int, Deadline]] = field(init=False, default_factory=dict)
    _about: dict[int, list[AnswerRow]] = field(init=False, default_factory=dict)  # answers by deadline_no
    #: By regime and subject; and by regime alone (None).
    _triggers: dict[tuple[str, str | None], list[Trigger]] = field(init=False, default_factory=dict)
    _positions: list[int] = field(init=False, default_factory=list)  # of the answers
    _kinds: dict[str, list[int]] = field(init=False, default_factory=dict)  # deadlines by first_key

    def check(self) -> None:
        """Raise Difference at the first thing that does not follow."""
        highest = {EVENT: len(self.events), DEADLINE: len(self.deadlines)}
        fault = check_chain(self.answers, highest)
        if fault is not None:
            raise Difference("answers", f"answer_no {fault.number}", fault.column, fault.expected, fault.got)
        self._by_key = {d.key: (number, d) for number, d in self.deadlines}
        for number, d in self.deadlines:
            self._kinds.setdefault(first_key(d.key), []).append(number)
        self._positions = [a.position for a in self.answers]
        for answer in self.answers:
            if answer.about in (DEADLINE, INCIDENT):
                self._about.setdefault(answer.number, []).append(answer)
        triggers = [
            trigger
            for e in self.events
            if e.type in STARTING
            and (trigger := trigger_of(e.event_no, e.type, e.subject, e.time_unix_ns, json.loads(e.data)))
        ]
        for trigger in triggers:
            for whose in (trigger.subject, None):
                self._triggers.setdefault((trigger.regime, whose), []).append(trigger)
        for number, (got, deadline) in enumerate(self.deadlines, 1):
            compare(_TABLE, _name(number), [("deadline_no", number, got)])
            self._row(number, deadline)
        self._notices()
        self._none_missing(triggers)

    # ---- deadlines ---------------------------------------------------------------------------------------

    def _row(self, number: int, d: Deadline) -> None:
        name = _name(number)
        regime = self.texts.get((d.regime, d.text_digest))
        if regime is None:
            self.unknown_texts.add(d.regime)
            return
        rule = next((r for r in regime.deadlines if r.id == d.rule), None)
        if rule is None:
            said = f"one of {', '.join(r.id for r in regime.deadlines) or 'none'} of that text of {regime.id}"
            raise Difference(_TABLE, name, "rule", said, d.rule)
        expected = self._expected(number, d, regime, rule)
        compare(_TABLE, name, zip(Deadline._fields, expected, d, strict=True))

    def _expected(self, number: int, d: Deadline, regime: Regime, rule: DeadlineRule) -> Deadline:
        """What it must be, for its own clock and position of opening."""
        name, at = _name(number), Opening(d.opened_unix_ns, d.position)
        if not 0 <= d.position <= self.position:
            raise Difference(_TABLE, name, "position", f"0 … {self.position}", d.position)
        if rule.trigger == BY_PERSON:
            return self._by_person(number, d, regime, rule)
        if rule.trigger == CALENDAR:
            before = [
                was for no, was in self.deadlines if no < number and was.due_unix_ns == d.trigger_unix_ns
            ]
            for was in before:
                if (was.regime, was.rule, was.event_no) == (d.regime, d.rule, d.event_no):
                    if d.opened_unix_ns < was.due_unix_ns:
                        raise Difference(
                            _TABLE, name, "opened_unix_ns", f"at least {was.due_unix_ns}", d.opened_unix_ns
                        )
                    return following(was, regime, rule, at)
        key = first_key(d.key)
        found = (o for o in self._by_event(d, regime, rule, at) if o.key == key)
        if d.key != key:  # what its own event opens
            found = (again(o) for o in found if o.event_no == d.event_no)
        first = next(found, None)
        if first is None:
            raise Difference(_TABLE, name, "event_no", "an event that sets this going", d.event_no)
        if d.key != key and True not in self._ended_before(number, d):
            raise Difference(_TABLE, name, "row", "none: nobody had said that the last does not apply", d.key)
        return first

    def _ended_before(self, number: int, d: Deadline) -> set[bool]:
        """What the commit of the event that `d` follows from can have heard of the deadline that was the last of its
        kind before: that it does not apply, or anything else; empty if there was none. `d` is, or would be, number `number`.
        """
        kind = self._kinds.get(first_key(d.key), [])
        at = bisect_left(kind, number)
        if not at or d.event_no is None:
            return set()
        e = self.events[d.event_no - 1]
        least, most = (
            bisect_left(self._positions, e.since_position - 1),
            bisect_right(self._positions, e.position),
        )
        return {self._does_not_apply(kind[at - 1], upto) for upto in range(least, max(least, most) + 1)}

    def _does_not_apply(self, number: int, upto: int) -> bool:
        last = self._last_answer(number, upto)
        return last is not None and last.state == State.RESOLVED and outcome_of(last.detail) == NOT_APPLICABLE

    def _by_event(self, d: Deadline, regime: Regime, rule: DeadlineRule, at: Opening) -> Iterator[Deadline]:
        """What events open by that rule, the first of them first; of a calendar what its own event does."""
        whose = d.subject if rule.trigger in (KNOWN, MET) else None
        for trigger in self._triggers.get((d.regime, whose), ()):
            if trigger.type in starting_types(rule) and (
                rule.trigger != CALENDAR or trigger.event_no == d.event_no
            ):
                yield from (o for o in opened(trigger, {regime.id: regime}, at) if o.rule == d.rule)

    def _by_person(self, number: int, d: Deadline, regime: Regime, rule: DeadlineRule) -> Deadline:
        said = next((a for a in self._about.get(number, ()) if a.about == INCIDENT), None)
        if said is None:
            raise Difference("answers", _name(number), "row", "what a person said of the incident", "none")
        detail = json.loads(said.detail)
        told = (detail.get("deadline"), detail.get("due_unix_ns"), said.unix_ns, said.position)
        owed = (d.id, str(d.due_unix_ns), d.opened_unix_ns, d.position)
        compare("answers", f"answer_no {said.answer_no}", [("about the deadline", owed, told)])
        return incident(regime, rule, d.subject, d.trigger_unix_ns, Opening(d.opened_unix_ns, d.position))

    # ---- what was told -------------------------------------------------------------------------------------

    def _notices(self) -> None:
        told: dict[str, int] = {}
        heard = 0
        for e in self.events:
            if e.type not in (DEADLINE_NEAR, DEADLINE_OVERDUE):
                continue
            try:
                lead, key = told_of(e.key)
            except ValueError as error:
                raise Difference(
                    "events", e.name, "key", "a lead time and a deadline's key", e.key
                ) from error
            found = self._by_key.get(key)
            if found is None:
                raise Difference("events", e.name, "key", "a deadline that is in the store", key)
            heard = self._told(e, *found, lead, heard)
            if told.get(key, lead + 1) <= lead:
                raise Difference(
                    "events", e.name, "key", f"a lead under {told[key]} ns, which was told before", lead
                )
            told[key] = lead

    def _told(self, e: StoredEvent, number: int, d: Deadline, lead: int, heard: int) -> int:
        """Check one; how many answers it had heard."""
        said = json.loads(e.data).get("answers")
        # An answer from before the last record of the commit before was heard, whatever the race.
        least = max(heard, bisect_left(self._positions, e.since_position - 1))
        answers = int(said) if isinstance(said, str) and said.isascii() and said.isdigit() else -1
        if not least <= answers <= len(self.answers):
            raise Difference("events", e.name, "data.answers", f"{least} … {len(self.answers)}", said)
        now = Moment(e.time_unix_ns, e.since_position, e.position)
        expected = notice(d, lead, answers, now)
        compare(
            "events",
            e.name,
            [
                ("key", expected.key, e.key),
                ("type", expected.type, e.type),
                ("subject", expected.subject, e.subject),
                ("data", *e.beside(expected)),
            ],
        )
        begins = d.due_unix_ns - lead
        if e.time_unix_ns < begins or (lead and e.time_unix_ns >= d.due_unix_ns) or e.position < d.position:
            until = f", and before {time_text(d.due_unix_ns)}" if lead else ""
            said_time = f"not before {time_text(begins)}{until}"
            raise Difference("events", e.name, "time_unix_ns", said_time, time_text(e.time_unix_ns))
        last = self._last_answer(number, answers)
        if last is not None and last.state == State.RESOLVED:
            raise Difference(
                "events", e.name, "row", f"none: answer {last.answer_no} had resolved it", "an event"
            )
        return answers

    def _last_answer(self, number: int, upto: int) -> AnswerRow | None:
        mine = self._about.get(number, [])
        at = bisect_right([a.answer_no for a in mine], upto)
        return mine[at - 1] if at else None

    # ---- nothing is missing --------------------------------------------------------------------------------

    def _none_missing(self, triggers: Sequence[Trigger]) -> None:
        keys = {e.key for e in self.events}
        noted = {r.id: r for r in self.regimes.values() if self.marks.get(r.id) == rules_mark(r)}
        for trigger in triggers:
            for owed in opened(trigger, noted, Opening(0, 0)):
                key = again(owed).key if self._owed_again(owed) else owed.key
                if key not in self._by_key:
                    said = f"a deadline of event {trigger.event_no}"
                    raise Difference(_TABLE, f"key {key}", "row", said, "none")
        surely = bisect_left(self._positions, self.position)
        for number, d in self.deadlines:
            if d.position >= self.position or d.due_unix_ns + _LATE_NS > self.received_unix_ns:
                continue
            # It may have been resolved (or taken back) before or behind the last commit that could tell.
            later = [a for a in self._about.get(number, []) if a.answer_no > surely]
            answers = [a for a in (self._last_answer(number, surely), *later) if a is not None]
            if not any(a.state == State.RESOLVED for a in answers):
                key = notice_key(d, OVERDUE)
                if key not in keys:
                    raise Difference("events", f"key {key}", "row", f"an event: {d.key} is overdue", "none")
            ended = any(outcome_of(a.detail) == NOT_APPLICABLE for a in answers)
            if d.regime in noted and not ended:
                self._next_is_there(d, noted[d.regime])

    def _owed_again(self, owed: Deadline) -> bool:
        """Whether the last of its kind was surely known not to apply when the event came, and these rules were known."""
        if not can_open_again(owed.key) or owed.event_no is None:
            return False
        e = self.events[owed.event_no - 1]
        before = [no for no in self._kinds.get(owed.key, ()) if self._opened_before(no, e)]
        if not before or e.position < self.marked.get(owed.regime, 0):
            return False
        return self._ended_before(before[-1] + 1, owed) == {True}

    def _opened_before(self, number: int, e: StoredEvent) -> bool:
        """Whether that deadline follows from an earlier event."""
        event_no = self.deadlines[number - 1][1].event_no
        return event_no is not None and event_no < e.event_no

    def _next_is_there(self, d: Deadline, regime: Regime) -> None:
        rule = next((r for r in regime.deadlines if r.id == d.rule), None)
        if rule is None or rule.trigger != CALENDAR:
            return
        bound = (self.received_unix_ns, self.received_unix_ns + _LATE_NS)
        after = following(d, regime, rule, Opening(0, 0))
        if all(in_force(regime, t) for t in bound) and after.key not in self._by_key:
            raise Difference(_TABLE, f"key {after.key}", "row", f"the date behind that of {d.key}", "none")


def _name(number: int) -> str:
    return f"deadline_no {number}"
