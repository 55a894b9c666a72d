"""Deadlines as an iCalendar file (RFC 5545), for the calendars that people already have. Pure.

The uid of a deadline never changes, so that importing again updates and never doubles; SEQUENCE rises with each answer.
Times are in UTC, which needs no VTIMEZONE and is the same instant everywhere; the rule's own zone is in the text.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from .answers import State
from .deadlines import Deadline, leads_of
from .notices import COVERAGE, due_text, lead_text

PRODID = "-//flopmeter//deadlines 1//EN"
CRLF = "\r\n"
#: Octets of a content line without its CRLF (RFC 5545 3.1).
MAX_OCTETS = 75
_SECOND_NS = 1_000_000_000


class Entry(NamedTuple):
    """A deadline as it is exported."""

    deadline: Deadline
    state: State
    outcome: str
    answers: int  # how many it has had
    changed_unix_ns: int  # when it was opened, or answered last


def calendar(entries: Iterable[Entry], leads_ns: Iterable[int], now_unix_ns: int) -> bytes:
    """The file. `now_unix_ns` is when it was made, which every entry says (DTSTAMP)."""
    leads = tuple(leads_ns)
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", f"PRODID:{PRODID}", "CALSCALE:GREGORIAN", "METHOD:PUBLISH"]
    for entry in entries:
        lines += _event(entry, leads, now_unix_ns)
    lines.append("END:VCALENDAR")
    return "".join(_folded(line) + CRLF for line in lines).encode()


def _event(entry: Entry, leads: tuple[int, ...], now_unix_ns: int) -> list[str]:
    d = entry.deadline
    resolved = entry.state is State.RESOLVED
    whose = f"Run {d.subject}. " if d.subject else ""
    said = f"{entry.state}{f' ({entry.outcome})' if entry.outcome else ''}"
    words = f" {COVERAGE}" if d.act == "coverage" else ""
    text = (
        f"{whose}To: {d.recipient}. Regime {d.regime}, rule {d.rule}. Due by {due_text(d)}. "
        f"State: {said}. flopmeter deadlines show {d.id[:12]}.{words}"
    )
    lines = [
        "BEGIN:VEVENT",
        f"UID:{d.id}@flopmeter",
        f"DTSTAMP:{_utc(now_unix_ns)}",
        f"LAST-MODIFIED:{_utc(entry.changed_unix_ns)}",
        f"SEQUENCE:{entry.answers}",
        f"DTSTART:{_utc(d.due_unix_ns)}",
        f"SUMMARY:{_text(f'Due: {d.what} ({d.regime})')}",
        f"DESCRIPTION:{_text(text)}",
        f"CATEGORIES:{_text(d.regime)}",
        f"STATUS:{'CANCELLED' if entry.outcome == 'not-applicable' else 'CONFIRMED'}",
        "TRANSP:TRANSPARENT",
    ]
    if not resolved:
        for lead in leads_of(d, leads):
            lines += [
                "BEGIN:VALARM",
                "ACTION:DISPLAY",
                f"DESCRIPTION:{_text(f'In {lead_text(lead)}: {d.what}')}",
                f"TRIGGER:-PT{max(1, lead // _SECOND_NS)}S",
                "END:VALARM",
            ]
    return [*lines, "END:VEVENT"]


def _utc(unix_ns: int) -> str:
    return f"{datetime.fromtimestamp(unix_ns // _SECOND_NS, UTC):%Y%m%dT%H%M%SZ}"


def _text(value: str) -> str:
    """A TEXT value (RFC 5545 3.3.11). Control characters, which it cannot hold, become spaces."""
    plain = "".join(c if c.isprintable() else " " for c in value)
    return plain.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")


def _folded(line: str) -> str:
    """At most 75 octets a line, broken between characters, each further line begun with a space."""
    parts, part, octets = [], "", 0
    for c in line:
        size = len(c.encode())
        if octets + size > MAX_OCTETS:
            parts.append(part)
            part, octets = " ", 1
        part += c
        octets += size
    return CRLF.join([*parts, part])
