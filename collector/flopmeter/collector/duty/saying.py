"""How a person's answer gets into the store: looked up, checked and appended while nobody else can write."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from flopmeter.collector.chained_words import check_text
from flopmeter.collector.errors import DutyError, DutyRefused
from flopmeter.collector.law.deadline_rules import INCIDENT as BY_PERSON
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.store.answers import HISTORY, INSERT_DEADLINE, SqliteAnswers, answer_rows
from flopmeter.collector.store.appending import Execute

from .answers import (
    DEADLINE,
    EVENT,
    INCIDENT,
    SHORTER,
    AnswerRow,
    Last,
    State,
    answer_row,
    check_step,
    state_of,
)
from .deadlines import Deadline, Opening, incident

ID_DIGITS = 32
#: Fewer digits of an id are not looked up: somebody's typing mistake would find something.
MIN_ID_DIGITS = 4


class Person(NamedTuple):
    """Who answers, why, and whether it is to be kept (a dry run is not)."""

    who: str
    why: str
    unix_ns: int  # by the clock of this machine
    keep: bool = True


class Answered(NamedTuple):
    """An answer, and what it is about."""

    id: str
    was: State
    answer: AnswerRow


def answer(
    path: Path, about: str, prefix: str, state: State, person: Person, *, outcome: str = ""
) -> Answered:
    """Answer the event (or deadline) whose id begins so. Raises DutyError or StoreError; then nothing was said."""
    found: list[tuple[str, State]] = []

    def make(ask: Execute, last: Last) -> AnswerRow:
        number, full = look_up(ask, about, prefix)
        history = answer_rows(ask(HISTORY, (*names(about), number)).fetchall())
        was = state_of(history[-1] if history else None)
        check_step(f"{about} {full}", was, state)
        found.append((full, was))
        return answer_row(
            last,
            about,
            number,
            state,
            who=person.who,
            why=person.why,
            unix_ns=person.unix_ns,
            detail={"outcome": outcome} if outcome else None,
        )

    with SqliteAnswers(path) as log:
        row = log.append(make, keep=person.keep)
    return Answered(*found[-1], row)


def names(about: str) -> tuple[str, str]:
    """What answers about it may say that they are about: an incident's first one is about a deadline."""
    return (DEADLINE, INCIDENT) if about == DEADLINE else (EVENT, EVENT)


def look_up(ask: Callable[..., object], about: str, prefix: str) -> tuple[int, str]:
    """(number, id) of the one that has that id, or whose id alone begins so. Raises DutyError."""
    low = prefix.strip().lower()
    listed = f"`flopmeter {about}s list` shows them"
    if not MIN_ID_DIGITS <= len(low) <= ID_DIGITS or not set(low) <= set("0123456789abcdef"):
        shown = (
            prefix if len(prefix) <= ID_DIGITS + 8 else f"{prefix[:ID_DIGITS]}… ({len(prefix)} characters)"
        )
        raise DutyError(
            f"{about} {shown!r}: expected {MIN_ID_DIGITS} to {ID_DIGITS} hexadecimal digits, the beginning of an id",
            listed,
        )
    sql = f"SELECT {about}_no, id FROM {about}s WHERE id >= ? AND id < ? ORDER BY id LIMIT 3"  # noqa: S608
    rows = list(ask(sql, (low, low + "g")))  # type: ignore[call-overload]
    if not rows:
        raise DutyRefused(f"{about} {low}: expected one whose id begins so, found none", listed)
    if len(rows) > 1:
        few = ", ".join(r[1] for r in rows[:2]) + (" …" if len(rows) > 2 else "")
        raise DutyRefused(
            f"{about} {low}: expected one whose id begins so, found several: {few}", "give more digits"
        )
    return rows[0][0], rows[0][1]


def open_incident(
    path: Path, regime: Regime, rule_id: str, person: Person, *, trigger_unix_ns: int, subject: str = ""
) -> tuple[Deadline, AnswerRow]:
    """Open a deadline that only a person can know of. Raises DutyError or StoreError; then nothing was opened."""
    rule = next((r for r in regime.deadlines if r.id == rule_id), None)
    mine = [r.id for r in regime.deadlines if r.trigger == BY_PERSON]
    if rule is None or rule.trigger != BY_PERSON:
        raise DutyRefused(
            f"deadline of {regime.id}: expected a rule that a person opens ({', '.join(mine) or 'it has none'}), "
            f"got {rule_id[:80]!r}",
            "the others are opened by the event that starts them; `flopmeter regimes show` lists all",
        )
    if trigger_unix_ns > person.unix_ns:
        raise DutyError("--at: expected a time that is past, got one to come", "say when it happened")
    if subject:
        check_text(DutyError, "subject", subject, "name the run it is about", shorter=SHORTER)
    made: list[Deadline] = []

    def make(ask: Execute, last: Last) -> AnswerRow:
        deadline = incident(regime, rule, subject, trigger_unix_ns, Opening(person.unix_ns, last.position))
        if ask("SELECT 1 FROM deadlines WHERE key = ?", (deadline.key,)).fetchone():
            raise DutyRefused(
                f"deadline {deadline.id}: expected an incident that is not open yet, it is",
                "one at the same time about something else needs --subject",
            )
        number = ask(INSERT_DEADLINE, deadline).lastrowid
        assert number is not None
        made.append(deadline)
        return answer_row(
            last,
            INCIDENT,
            number,
            State.OPEN,
            who=person.who,
            why=person.why,
            unix_ns=person.unix_ns,
            detail={"deadline": deadline.id, "due_unix_ns": str(deadline.due_unix_ns)},
        )

    with SqliteAnswers(path) as log:
        row = log.append(make, keep=person.keep)
    return made[-1], row
