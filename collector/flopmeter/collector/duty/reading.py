"""Events and deadlines with what people answered, read from the store while a collector writes it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from flopmeter.collector.law.events import to_cloudevent
from flopmeter.collector.law.severity import Severity, severity_of
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.answers import HISTORY, LATEST, SELECT_DEADLINES, answer_rows

from .answers import DEADLINE, EVENT, AnswerRow, State, outcome_of, state_of
from .deadlines import Deadline
from .saying import names

_COLUMNS = ("event_no", "id", "key", "type", "subject", "time_unix_ns", "since_position", "position", "data")
_EVENTS = f"SELECT {', '.join(_COLUMNS)} FROM events"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; None or "": whichever."""

    kind: str | None = None  # a type, or what a type begins with: threshold, deadline
    severity: Severity | None = None  # at least so grave
    state: State | None = None
    subject: str | None = None
    regime: str | None = None
    since_unix_ns: int | None = None
    until_unix_ns: int | None = None  # the last nanosecond
    before_no: int | None = None  # older than that event

    @property
    def any(self) -> bool:
        """Whether anything is left out."""
        return self != Wanted()

    def older(self, event_no: int) -> "Wanted":
        """The same, raised before that event."""
        return replace(self, before_no=event_no)


class Found(NamedTuple):
    """An event of the store, with its last answer."""

    event_no: int
    key: str
    unix_ns: int
    cloud: dict[str, Any]  # as CloudEvents
    last: AnswerRow | None

    @property
    def state(self) -> State:
        return state_of(self.last)


class Page(NamedTuple):
    """The newest events that were wanted, oldest first; and whether there are older ones."""

    events: list[Found]
    more: bool


def events_page(reader: Reader, wanted: Wanted, limit: int) -> Page:
    """At most `limit` events (0: all), the newest."""
    found: list[Found] = []
    for event in _newest_first(reader, wanted):
        if limit and len(found) == limit:
            return Page(found[::-1], more=True)
        found.append(event)
    return Page(found[::-1], more=False)


def events_after(reader: Reader, wanted: Wanted, event_no: int) -> list[Found]:
    """What was raised behind that event, oldest first."""
    return list(_newest_first(reader, wanted, event_no))[::-1]


def last_event(reader: Reader) -> tuple[int, str]:
    """(number, id) of the newest; (0, "") if there is none."""
    row = reader.rows("SELECT event_no, id FROM events ORDER BY event_no DESC LIMIT 1").fetchone()
    return (0, "") if row is None else (row[0], row[1])


def event_by_no(reader: Reader, event_no: int) -> Found:
    row = reader.rows(f"{_EVENTS} WHERE event_no = ?", (event_no,)).fetchone()
    history = answers_about(reader, EVENT, event_no)
    return _found(dict(zip(_COLUMNS, row, strict=True)), history[-1] if history else None)


def answers_about(reader: Reader, about: str, number: int) -> list[AnswerRow]:
    """Every answer about it, oldest first."""
    return answer_rows(reader.rows(HISTORY, (*names(about), number)))


def last_answers(reader: Reader, about: str) -> dict[int, AnswerRow]:
    """By number, the last answer about each."""
    return {row.number: row for row in answer_rows(reader.rows(LATEST, names(about)))}


def _newest_first(reader: Reader, wanted: Wanted, after_no: int = 0) -> Iterator[Found]:
    last = last_answers(reader, EVENT)
    where, values = ["event_no > ?"], [after_no]
    said: list[tuple[str, Any]] = [
        ("event_no < ?", wanted.before_no),
        ("subject = ?", wanted.subject),
        ("time_unix_ns >= ?", wanted.since_unix_ns),
        ("time_unix_ns <= ?", wanted.until_unix_ns),
    ]
    for clause, value in said:
        if value is not None:
            where.append(clause)
            values.append(value)
    sql = f"{_EVENTS} WHERE {' AND '.join(where)} ORDER BY event_no DESC"
    for values_of in reader.rows(sql, tuple(values)):
        row = dict(zip(_COLUMNS, values_of, strict=True))
        if _is_wanted(row, wanted, last.get(row["event_no"])):
            yield _found(row, last.get(row["event_no"]))


def _is_wanted(row: Mapping[str, Any], wanted: Wanted, last: AnswerRow | None) -> bool:
    kind = row["type"]
    if wanted.kind is not None and kind != wanted.kind and not kind.startswith(wanted.kind + "."):
        return False
    if wanted.state is not None and state_of(last) is not wanted.state:
        return False
    if wanted.severity is None and wanted.regime is None:
        return True
    data = json.loads(row["data"])
    if wanted.regime is not None and data.get("regime") != wanted.regime:
        return False
    return wanted.severity is None or severity_of(kind, data).rank >= wanted.severity.rank


def _found(row: Mapping[str, Any], last: AnswerRow | None) -> Found:
    return Found(row["event_no"], row["key"], row["time_unix_ns"], to_cloudevent(row), last)


class Duty(NamedTuple):
    """A deadline of the store, with its last answer."""

    number: int
    deadline: Deadline
    last: AnswerRow | None
    answers: int  # how many it has had

    @property
    def state(self) -> State:
        return state_of(self.last)

    @property
    def outcome(self) -> str:
        return outcome_of(self.last.detail) if self.last is not None else ""


def duties(reader: Reader) -> list[Duty]:
    """Every deadline, the one that is due first first."""
    last = last_answers(reader, DEADLINE)
    sql = "SELECT number, count(*) FROM answers WHERE about IN ('deadline', 'incident') GROUP BY number"
    counts = dict(tuple(row) for row in reader.rows(sql))
    found = [
        Duty(row[0], Deadline._make(row[1:]), last.get(row[0]), counts.get(row[0], 0))
        for row in reader.rows(SELECT_DEADLINES)
    ]
    return sorted(found, key=lambda d: (d.deadline.due_unix_ns, d.number))
