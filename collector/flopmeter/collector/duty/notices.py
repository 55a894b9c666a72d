"""`deadline.near` and `deadline.overdue`: what the collector says of a deadline, each once. Pure."""

from datetime import timedelta

from flopmeter.collector.law.events import DEADLINE_NEAR, DEADLINE_OVERDUE, NOT_RISK, NewEvent
from flopmeter.collector.law.judge import Moment
from flopmeter.collector.spelling import time_text

from .deadlines import OVERDUE, Deadline, local

#: How the keys begin.
NEAR_PREFIX, OVERDUE_PREFIX = "near:", "overdue:"
#: Said of coverage (regulations.md 13.20): being covered starts duties, and none of them is to file the figure.
COVERAGE = "The compute figure only decides who is covered; this law asks for no report of the figure itself."
_SECOND_NS = 1_000_000_000


def notice_key(d: Deadline, lead_ns: int) -> str:
    return f"{OVERDUE_PREFIX}{d.key}" if lead_ns == OVERDUE else f"{NEAR_PREFIX}{lead_ns}:{d.key}"


def told_of(key: str) -> tuple[int, str]:
    """(lead, or OVERDUE; the deadline's key) of an event's key. Raises ValueError."""
    if key.startswith(OVERDUE_PREFIX):
        return OVERDUE, key.removeprefix(OVERDUE_PREFIX)
    lead, deadline = key.removeprefix(NEAR_PREFIX).split(":", 1)
    return int(lead), deadline


def subject_of(d: Deadline) -> str:
    """The run, or the regime: an event is about something that has a name."""
    return d.subject or f"regime/{d.regime}"


def notice(d: Deadline, lead_ns: int, answers: int, at: Moment) -> NewEvent:
    """What is said of a deadline then. `answers`: the last answer that it rests on: nobody had resolved it by then."""
    overdue = lead_ns == OVERDUE
    return NewEvent(
        key=notice_key(d, lead_ns),
        type=DEADLINE_OVERDUE if overdue else DEADLINE_NEAR,
        subject=subject_of(d),
        time_unix_ns=at.unix_ns,
        since_position=min(at.since_position, at.position),
        position=at.position,
        data={
            "message": _message(d, overdue, at.unix_ns),
            "deadline": d.id,
            "regime": d.regime,
            "rule": d.rule,
            "rule_digest": d.rule_digest,
            "run": d.subject or None,
            "act": d.act,
            "what": d.what,
            "recipient": d.recipient,
            "trigger": time_text(d.trigger_unix_ns),
            "due": time_text(d.due_unix_ns),
            "due_local": due_text(d),
            "timezone": d.timezone,
            "lead_seconds": None if overdue else str(lead_ns // _SECOND_NS),
            "answers": str(answers),
            "note": NOT_RISK,
        },
    )


def _message(d: Deadline, overdue: bool, unix_ns: int) -> str:
    whose = f"Run {d.subject}: " if d.subject else ""
    when = f"was due by {due_text(d)} and nobody has resolved it"
    if not overdue:
        when = f"is due by {due_text(d)}, {duration_text(d.due_unix_ns - unix_ns)} from now"
    words = f" {COVERAGE}" if d.act == "coverage" else ""
    return f"{whose}{d.what} (to: {d.recipient}; {d.regime}, {d.rule}) {when}.{words} {NOT_RISK}"


def due_text(d: Deadline) -> str:
    """2027-01-15 18:30 CET (Europe/Brussels): the due instant in the rule's own time zone, rounded down to the minute.

    The end of a day is 24:00 of that day (ISO 8601-1:2019), as the law has it: 00:00 of the next reads as a day more.
    """
    at = local(d.due_unix_ns, d.timezone)
    name = at.strftime("%Z")
    shown = f"UTC{at.strftime('%z')}" if name[:1] in "+-" else name
    clock = f"{at:%Y-%m-%d %H:%M}"
    if clock.endswith(" 00:00") and at.second == 0:
        clock = f"{at - timedelta(days=1):%Y-%m-%d} 24:00"
    return f"{clock} {shown}" + ("" if d.timezone == shown else f" ({d.timezone})")


def duration_text(ns: int) -> str:
    """Whole days, else hours, else minutes, rounded down: what is left is never said to be more."""
    minutes = max(ns, 0) // (60 * _SECOND_NS)
    days, hours = minutes // 1440, minutes // 60
    for count, word in ((days, "day"), (hours, "hour"), (minutes, "minute")):
        if count:
            return f"{count} {word}{'' if count == 1 else 's'}"
    return "less than a minute"


def lead_text(lead_ns: int) -> str:
    """A lead time as a setting is written: 7d, 36h, 10m, 5s."""
    seconds = timedelta(microseconds=lead_ns // 1000) // timedelta(seconds=1)
    for unit, letter in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds and seconds % unit == 0:
            return f"{seconds // unit}{letter}"
    return f"{seconds}s"
