"""Deadlines as objects: what a rule of a regime makes of an event, when it is due, and when it is near. Pure.

A deadline is opened once: its key says for whom. The clock starts with the first event from which it was known, and a
later one does not set it back, whatever time that one bears; but where a person had said that it does not apply, the next
event opens another (`again`). Times are integers; a rule's time zone only says at which
instant a day of its calendar ends, and in which zone people are shown when it is due.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from flopmeter.collector.law.deadline_rules import (
    CALENDAR,
    FIRST_COVERED,
    INCIDENT,
    KNOWN,
    MET,
    DeadlineRule,
)
from flopmeter.collector.law.regimes import Regime

from .answers import canonical

#: The types of events that start clocks: a threshold is met; it will be (regulations.md 13.9); a fleet's is met.
CROSSED, FORECAST, CAPACITY = "threshold.crossed", "threshold.forecast", "fleet.capacity"
STARTING = (CROSSED, FORECAST, CAPACITY)
_SECOND_NS = 1_000_000_000
HOUR_NS = 3_600 * _SECOND_NS
DAY_NS = 24 * HOUR_NS
#: How long before the due time a person is told, where nothing else is set. Longest first.
DEFAULT_LEADS_NS = (7 * DAY_NS, 2 * DAY_NS, DAY_NS)
#: Lead times are meant for two weeks (Art. 52(1)); of what is due sooner they are as large a part.
LEADS_ARE_OF_NS = 14 * DAY_NS
MAX_UNIX_NS = (1 << 63) - 1  # what the store holds; 2262
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How keys begin.
_DEADLINE = "deadline:"
_ORGANISATION, _RUN = "deadline:organisation:", "deadline:run:"
AGAIN_PREFIX = "deadline:again:"


class Deadline(NamedTuple):
    """A row of the deadlines table, without its number."""

    id: str
    key: str
    regime: str
    rule: str
    rule_digest: str
    text_digest: str
    subject: str  # the run; "" for the organisation as a whole
    event_no: int | None
    trigger_unix_ns: int
    due_unix_ns: int
    timezone: str
    recipient: str
    act: str
    what: str
    opened_unix_ns: int
    position: int


class Trigger(NamedTuple):
    """An event that may start clocks."""

    event_no: int
    type: str  # CROSSED: met, whatever the line is of; or FORECAST
    regime: str
    subject: str
    unix_ns: int


def trigger_of(
    event_no: int, kind: str, subject: str, unix_ns: int, data: Mapping[str, Any]
) -> Trigger | None:
    """The event as what may start a clock; None if it cannot."""
    if kind not in STARTING or (kind == CAPACITY and data.get("verdict") != "crossed"):
        return None
    met = data.get("met_since")  # by late records of work of before: what it tells of is older than the event
    since = min(unix_ns, _instant(met)) if isinstance(met, str) else unix_ns
    return Trigger(
        event_no, FORECAST if kind == FORECAST else CROSSED, str(data.get("regime")), subject, since
    )


class Opening(NamedTuple):
    """The commit that opens deadlines: its clock, and the last record of it."""

    unix_ns: int
    position: int


def opened(trigger: Trigger, regimes: Mapping[str, Regime], at: Opening) -> list[Deadline]:
    """Every deadline that an event opens, if it is the first to do so."""
    regime = regimes.get(trigger.regime)
    if regime is None:
        return []
    found = []
    for rule in regime.deadlines:
        if trigger.type not in starting_types(rule):
            continue
        since = _binding_since(regime, rule, trigger.unix_ns)
        key = key_of(regime.id, rule, trigger.subject, since)
        subject = trigger.subject if rule.trigger in (KNOWN, MET) else ""
        found.append(
            _deadline(
                regime,
                rule,
                at,
                key=key,
                subject=subject,
                event_no=trigger.event_no,
                trigger_unix_ns=trigger.unix_ns,
                since_unix_ns=since,
            )
        )
    return found


def can_open_again(key: str) -> bool:
    """Whether a later event is told of apart where a person has said that the deadline of that key does not apply.

    Each date of a calendar is one of its own, and an incident is a person's to open.
    """
    return key.startswith((_ORGANISATION, _RUN))


def again(d: Deadline) -> Deadline:
    """The same for an event that comes when a person had said of the one before that it does not apply.

    A plan was withdrawn, and the line is met after all: a word on what was foreseen does not answer what is.
    """
    key = f"{AGAIN_PREFIX}{d.event_no}:{d.key.removeprefix(_DEADLINE)}"
    return d._replace(id=_id_of(key), key=key)


def first_key(key: str) -> str:
    """The key of the deadline that the one of `key` was opened behind; its own if it was the first."""
    if not key.startswith(AGAIN_PREFIX):
        return key
    return _DEADLINE + key.removeprefix(AGAIN_PREFIX).partition(":")[2]


def _binding_since(regime: Regime, rule: DeadlineRule, unix_ns: int) -> int:
    """From when the clock runs: not before the law binds, of which a forecast may know earlier.

    A law is in force by UTC days. Days of a calendar are counted in the rule's own zone: there the first of them begins
    on a day, and so on a date, that was before the law.
    """
    if regime.effective is None or regime.effective.year <= _EPOCH.year:
        return unix_ns
    zone = rule.timezone if rule.trigger == CALENDAR else "UTC"
    return max(unix_ns, _end_of_day(regime.effective - timedelta(days=1), zone))


def starting_types(rule: DeadlineRule) -> tuple[str, ...]:
    """Events of which types start the rule's clock; none of an incident's, which a person opens."""
    if rule.trigger == INCIDENT:
        return ()
    return (CROSSED, FORECAST) if rule.trigger in (KNOWN, CALENDAR) else (CROSSED,)


def incident(regime: Regime, rule: DeadlineRule, subject: str, unix_ns: int, at: Opening) -> Deadline:
    """What a person opens."""
    key = key_of(regime.id, rule, subject, unix_ns)
    return _deadline(regime, rule, at, key=key, subject=subject, event_no=None, trigger_unix_ns=unix_ns)


def following(was: Deadline, regime: Regime, rule: DeadlineRule, at: Opening) -> Deadline:
    """The next date of a calendar, which begins when the one before is past."""
    began = was.due_unix_ns
    key = key_of(regime.id, rule, "", began)
    return _deadline(regime, rule, at, key=key, subject="", event_no=was.event_no, trigger_unix_ns=began)


def key_of(regime_id: str, rule: DeadlineRule, subject: str, trigger_unix_ns: int) -> str:
    """What is not opened twice."""
    name = f"{regime_id}:{rule.id}"
    if rule.trigger == FIRST_COVERED:
        return f"{_ORGANISATION}{name}"
    if rule.trigger == CALENDAR:
        return f"deadline:day:{name}:{next_day(rule, trigger_unix_ns)[0]}"
    if rule.trigger == INCIDENT:
        return f"deadline:incident:{name}:{trigger_unix_ns}:{subject}"
    return f"{_RUN}{name}:{subject}"


def _id_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _deadline(
    regime: Regime,
    rule: DeadlineRule,
    at: Opening,
    *,
    key: str,
    subject: str,
    event_no: int | None,
    trigger_unix_ns: int,
    since_unix_ns: int | None = None,
) -> Deadline:
    return Deadline(
        id=_id_of(key),
        key=key,
        regime=regime.id,
        rule=rule.id,
        rule_digest=rule_digest(rule),
        text_digest=regime.digest,
        subject=subject,
        event_no=event_no,
        trigger_unix_ns=trigger_unix_ns,
        due_unix_ns=due_unix_ns(rule, trigger_unix_ns if since_unix_ns is None else since_unix_ns),
        timezone=rule.timezone,
        recipient=rule.recipient,
        act=regime.act,
        what=rule.what,
        opened_unix_ns=at.unix_ns,
        position=at.position,
    )


def rule_digest(rule: DeadlineRule) -> str:
    """SHA-256 of the rule alone, hex: what of a regime's text a deadline follows from."""
    return hashlib.sha256(canonical(asdict(rule)).encode()).hexdigest()


def rules_mark(regime: Regime) -> int:
    """A number that changes with any of the regime's rules: 62 bits of SHA-256."""
    said = canonical([regime.id, [rule_digest(rule) for rule in regime.deadlines]])
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") >> 2


# ---- when ------------------------------------------------------------------------------------------------


def due_unix_ns(rule: DeadlineRule, trigger_unix_ns: int) -> int:
    """The instant from which it is overdue: exactly so long after the trigger, or when a day of the calendar ends."""
    after_ns = rule.after_ns
    due = next_day(rule, trigger_unix_ns)[1] if after_ns is None else trigger_unix_ns + after_ns
    return min(due, MAX_UNIX_NS)


def next_day(rule: DeadlineRule, unix_ns: int) -> tuple[date, int]:
    """The first day of the rule's calendar that ends after that instant, and when it ends.

    A day that a year lacks (29 February) is the last one of its month: the earlier, safe reading.
    """
    year = local(unix_ns, rule.timezone).year
    for y in (year, year + 1):
        for month, day in rule.calendar:
            found = _day(y, month, day)
            end = _end_of_day(found, rule.timezone)
            if end > unix_ns:
                return found, end
    raise AssertionError("a day of the year after this one has not ended")


def _day(year: int, month: int, day: int) -> date:
    last = (date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)).day
    return date(year, month, min(day, last))


def _instant(text: str) -> int:
    """A time as events tell it (events.time_text), of a whole second."""
    return int(datetime.fromisoformat(text).timestamp()) * _SECOND_NS


def _end_of_day(day: date, timezone: str) -> int:
    """When the day is over there: the first instant of the next. Where its midnight is skipped, when the clock is set."""
    after = day + timedelta(days=1)
    midnight = datetime(after.year, after.month, after.day, tzinfo=_zone(timezone))
    return (midnight - _EPOCH) // timedelta(seconds=1) * _SECOND_NS


def local(unix_ns: int, timezone: str) -> datetime:
    """That second, on the clocks of the time zone."""
    return datetime.fromtimestamp(unix_ns // _SECOND_NS, UTC).astimezone(_zone(timezone))


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def leads_of(d: Deadline, leads_ns: Iterable[int]) -> tuple[int, ...]:
    """How long before its due time people are told, longest first. Of what is due in less than two weeks: in proportion."""
    whole = d.due_unix_ns - d.trigger_unix_ns
    if whole < LEADS_ARE_OF_NS:
        leads_ns = (lead * whole // LEADS_ARE_OF_NS for lead in leads_ns)
    return tuple(sorted({lead for lead in leads_ns if 0 < lead < whole}, reverse=True))


OVERDUE = 0  # as a lead


def due_lead(d: Deadline, leads_ns: Iterable[int], unix_ns: int) -> int | None:
    """What a person must be told then: the shortest lead that has begun, or OVERDUE; None: nothing yet.

    Of several that passed unseen the longer ones are no longer true, so that only the last is told.
    """
    if unix_ns >= d.due_unix_ns:
        return OVERDUE
    begun = [lead for lead in leads_of(d, leads_ns) if unix_ns >= d.due_unix_ns - lead]
    return min(begun, default=None)


def next_look(d: Deadline, leads_ns: Iterable[int], told: int | None) -> int | None:
    """When there is next something to tell, by what was `told` last (a lead, or OVERDUE); None: never."""
    if told == OVERDUE:
        return None
    left = [lead for lead in (*leads_of(d, leads_ns), OVERDUE) if told is None or lead < told]
    return d.due_unix_ns - max(left)
