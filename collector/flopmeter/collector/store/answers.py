"""Answers and deadlines in the store: read by whoever asks, appended by a person's command while a collector runs."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.duty.answers import AnswerRow, Heard, Last, outcome_of
from flopmeter.collector.duty.deadlines import Deadline, Trigger, trigger_of

from .appending import Appender, Execute, blob

_COLUMNS = ", ".join(AnswerRow._fields)
INSERT = f"INSERT INTO answers ({_COLUMNS}) VALUES ({', '.join('?' * len(AnswerRow._fields))})"  # noqa: S608
#: Answers behind a number, in order.
SELECT = f"SELECT {_COLUMNS} FROM answers WHERE answer_no > ? ORDER BY answer_no"  # noqa: S608
#: The last answer about each event (or deadline, which an incident is): by its number.
LATEST = f"""
    SELECT {_COLUMNS} FROM answers WHERE answer_no IN (
        SELECT max(answer_no) FROM answers WHERE about = ? OR about = ? GROUP BY number)"""  # noqa: S608
#: What the collector must hear: answers about deadlines behind a number, and the last of all, whatever it is about. In
#: one statement, so that what was heard is one state.
HEARD = """
    SELECT answer_no, about, number, state, detail FROM answers WHERE answer_no > ?1 AND (
        about IN ('deadline', 'incident') OR answer_no = (SELECT max(answer_no) FROM answers)) ORDER BY answer_no"""
#: All answers about one, in order.
HISTORY = f"SELECT {_COLUMNS} FROM answers WHERE about IN (?, ?) AND number = ? ORDER BY answer_no"  # noqa: S608
#: The number is the table's own: a person may open one while the collector makes its next.
DEADLINE_COLUMNS = ", ".join(Deadline._fields)
SELECT_DEADLINES = f"SELECT deadline_no, {DEADLINE_COLUMNS} FROM deadlines ORDER BY deadline_no"  # noqa: S608
INSERT_DEADLINE = (
    f"INSERT INTO deadlines ({DEADLINE_COLUMNS}) VALUES ({', '.join('?' * len(Deadline._fields))})"  # noqa: S608
)
#: Keys of deadline.near and deadline.overdue (duty/notices.py): ";" follows ":".
TOLD = """
    SELECT key FROM events WHERE key >= 'near:' AND key < 'near;'
    UNION ALL SELECT key FROM events WHERE key >= 'overdue:' AND key < 'overdue;'"""
TRIGGERS = "SELECT event_no, type, data, subject, time_unix_ns FROM events WHERE type = ? ORDER BY event_no"
_LAST = (
    "SELECT coalesce(max(answer_no), 0), (SELECT hash FROM answers ORDER BY answer_no DESC LIMIT 1), "
    "(SELECT coalesce(max(position), 0) FROM records) FROM answers"
)


def answer_rows(rows: Iterable[Any]) -> list[AnswerRow]:
    """What SELECT, LATEST or HISTORY found."""
    return [AnswerRow._make((*r[:9], blob(r[9]), blob(r[10]))) for r in rows]


def heard_rows(rows: Iterable[Any]) -> list[Heard]:
    """What HEARD found."""
    return [Heard(no, about, number, state, outcome_of(detail)) for no, about, number, state, detail in rows]


def trigger_rows(rows: Iterable[Any]) -> list[Trigger]:
    """What TRIGGERS found, as far as it starts clocks."""
    found = (trigger_of(no, kind, subject, at, json.loads(data)) for no, kind, data, subject, at in rows)
    return [t for t in found if t is not None]


class SqliteAnswers(Appender):
    """A person's connection, of its own. Use as a context manager."""

    def append(self, make: Callable[[Execute, Last], AnswerRow], *, keep: bool = True) -> AnswerRow:
        """Append what `make` returns, and nothing if it raises. On return it is durable. Raises StoreError.

        `make` runs while nobody else can write, so that what it asks holds when it answers; it must not take long: a
        collector's commit waits for it. `keep` False: all of it is taken back again, which is what a dry run shows.
        """
        with self._writing(keep=keep) as execute:
            number, last_hash, position = execute(_LAST).fetchone()
            row = make(execute, Last(number, NO_HASH if last_hash is None else bytes(last_hash), position))
            execute(INSERT, row)
        return row
