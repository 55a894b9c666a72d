"""Deadline rules: from what, until when, and to whom something is owed, as `[[deadlines]]` of a regime's file. Pure.

A rule says either how long after its trigger something is due, or on which days of the year. A duration is exact:
n days are n x 86,400 s from the trigger, which is never later than a calendar's reading of "n days". A day of the year
is due at its end in the rule's time zone.
"""

import functools
import re
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

from .toml_keys import Keys

KNOWN = "known"  # the threshold is met, or it is known that it will be met: whichever event comes first
MET = "met"  # the threshold is met (threshold.crossed)
FIRST_COVERED = "first-covered"  # the first crossing by any run of the organisation
CALENDAR = "calendar"  # each of the days, for as long as a run has met the threshold or is known to meet it
INCIDENT = "incident"  # a person says that it happened
TRIGGERS = (KNOWN, MET, FIRST_COVERED, CALENDAR, INCIDENT)
HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
#: Longest duration: a hundred years.
MAX_DAYS = 36_525
_DAY_OF_YEAR = re.compile(r"(\d\d)-(\d\d)\Z")
_LEAP_YEAR = 2028  # February has 29 days in it


@dataclass(frozen=True, slots=True)
class DeadlineRule:
    """One thing that is owed. Exactly one of `after_hours`, `after_days` and `calendar` says when."""

    id: str  # of its own within the regime
    trigger: str  # one of TRIGGERS
    what: str  # in words: what is to be done
    recipient: str
    after_hours: int | None
    after_days: int | None
    calendar: tuple[tuple[int, int], ...]  # (month, day), in order
    timezone: str  # IANA name: in which a day of the calendar ends, and in which people are shown what is due
    source: str

    @property
    def after_ns(self) -> int | None:
        """From the trigger to when it is due; None: by the calendar."""
        if self.after_hours is not None:
            return self.after_hours * HOUR_NS
        return None if self.after_days is None else self.after_days * DAY_NS


def deadline_rules(keys: Keys) -> tuple[DeadlineRule, ...]:
    """The `[[deadlines]]` of a regime's file; none, if it has none."""
    found: dict[str, DeadlineRule] = {}
    for table in keys.tables("deadlines"):
        rule = _rule(table)
        if rule.id in found and table.good("id"):
            table.fault("id", "an id that no other deadline of this file has", rule.id)
        found[rule.id] = rule
    return tuple(found.values())


def _rule(keys: Keys) -> DeadlineRule:
    trigger = keys.one_of("trigger", TRIGGERS)
    given = [key for key in ("after_hours", "after_days", "calendar") if keys.has(key)]
    allowed = ("calendar",) if trigger == CALENDAR else ("after_hours", "after_days")
    if keys.good("trigger") and (len(given) != 1 or given[0] not in allowed):
        got = ", ".join(given) or "nothing"
        keys.fault("trigger", f"one of {' and '.join(allowed)} with {trigger!r}", got)
    zone = keys.text("timezone")
    if keys.good("timezone") and not is_zone(zone):
        keys.fault("timezone", 'a time zone of the IANA database ("Europe/Brussels", "UTC")', zone)
    rule = DeadlineRule(
        id=keys.id(),
        trigger=trigger,
        what=keys.text("what"),
        recipient=keys.text("recipient"),
        after_hours=keys.count("after_hours", 24 * MAX_DAYS) if "after_hours" in given else None,
        after_days=keys.count("after_days", MAX_DAYS) if "after_days" in given else None,
        calendar=_calendar(keys) if "calendar" in given else (),
        timezone=zone,
        source=keys.text("source"),
    )
    keys.none_left()
    return rule


def _calendar(keys: Keys) -> tuple[tuple[int, int], ...]:
    days = [_day_of_year(text) for text in keys.texts("calendar")]
    known = sorted({d for d in days if d is not None})
    if keys.good("calendar") and (not days or len(known) != len(days)):
        keys.fault("calendar", 'days of the year, each once ("04-15")', keys.data["calendar"])
    return tuple(known)


def _day_of_year(text: str) -> tuple[int, int] | None:
    """(month, day) of every year; None: no such day, or 29 February, which most years lack."""
    match = _DAY_OF_YEAR.match(text)
    if match is None:
        return None
    month, day = int(match[1]), int(match[2])
    try:
        date(_LEAP_YEAR, month, day)
    except ValueError:
        return None
    return None if (month, day) == (2, 29) else (month, day)


@functools.cache
def is_zone(name: str) -> bool:
    """Whether the time zone is known here."""
    try:
        ZoneInfo(name)
    except (
        KeyError,
        ValueError,
        OSError,
    ):  # ZoneInfoNotFoundError is a KeyError, a directory's name an OSError
        return False
    return True
