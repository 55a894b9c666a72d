"""What people answer to events and deadlines: appended, hash-chained, never changed. Pure.

An event or a deadline that nobody has answered is open. An answer says what became of it, by whom and why; a later one
replaces it and keeps it. `open` as an answer takes a resolution back; about an incident it is what opens the deadline.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from flopmeter.collector.chained_words import NO_HASH, Fault, check_text, link_fault
from flopmeter.collector.errors import DutyError, DutyRefused

#: First in the hash of every answer, so that it is the hash of nothing else.
ANSWER_DOMAIN = b"flopmeter-answer/1\0"
#: What a text that is too long is answered with.
SHORTER = "shorten it, and name the file that holds the rest"
EVENT, DEADLINE, INCIDENT = "event", "deadline", "incident"
ABOUT = (EVENT, DEADLINE, INCIDENT)
DONE, NOT_APPLICABLE = "done", "not-applicable"
OUTCOMES = (DONE, NOT_APPLICABLE)


class State(StrEnum):
    """Where an event or a deadline stands with people."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"  # somebody has seen it and takes care of it
    RESOLVED = "resolved"  # it needs nobody any more


#: What may follow what. Acknowledging twice is allowed: another person takes it over.
_NEXT = {
    State.OPEN: (State.ACKNOWLEDGED, State.RESOLVED),
    State.ACKNOWLEDGED: (State.ACKNOWLEDGED, State.RESOLVED, State.OPEN),
    State.RESOLVED: (State.OPEN,),
}
_HOW = {
    State.OPEN: "acknowledge or resolve it",
    State.ACKNOWLEDGED: "acknowledge, resolve or reopen it",
    State.RESOLVED: "reopen it first",
}


class AnswerRow(NamedTuple):
    """An answer as it is stored, in the order of the table's columns."""

    answer_no: int
    about: str  # one of ABOUT
    number: int  # event_no, or deadline_no
    unix_ns: int  # the clock of whoever answered
    position: int  # of the last record in the books then
    state: str  # one of State
    who: str
    why: str
    detail: str  # canonical JSON: {} or what else was said (a deadline's outcome, an incident's rule)
    prev_hash: bytes
    hash: bytes


class Heard(NamedTuple):
    """As much of an answer as the collector acts on."""

    answer_no: int
    about: str
    number: int
    state: str
    outcome: str  # one of OUTCOMES, or ""


class Last(NamedTuple):
    """What an answer is appended to."""

    answer_no: int  # of the last answer; 0: there is none
    hash: bytes
    position: int  # of the last record in the books


def answer_row(
    last: Last,
    about: str,
    number: int,
    state: State,
    *,
    who: str,
    why: str,
    unix_ns: int,
    detail: Mapping[str, Any] | None = None,
) -> AnswerRow:
    """The next answer. Raises DutyError where a text may not stand in the books."""
    check_text(DutyError, "who", who, "say who answers: --who", shorter=SHORTER)
    check_text(
        DutyError, "why", why, "say why, in a sentence that an auditor can follow: --why", shorter=SHORTER
    )
    values = (last.answer_no + 1, about, number, unix_ns, last.position, state.value, who, why)
    unsealed = AnswerRow(*values, canonical(detail or {}), last.hash, NO_HASH)
    return unsealed._replace(hash=answer_hash(unsealed))


def answer_hash(row: AnswerRow) -> bytes:
    """SHA-256 over the domain, the hash before, and all that the row says."""
    said = canonical([str(v) if isinstance(v, int) else v for v in row[:9]])
    return hashlib.sha256(ANSWER_DOMAIN + row.prev_hash + said.encode()).digest()


def canonical(value: Any) -> str:
    """The one JSON text of `value`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def outcome_of(detail: str) -> str:
    """Of a resolved deadline: one of OUTCOMES; else ""."""
    try:
        said = json.loads(detail)
    except (ValueError, RecursionError):
        return ""  # fsck says so
    found = said.get("outcome") if isinstance(said, dict) else None
    return found if found in OUTCOMES else ""


def state_of(row: AnswerRow | None) -> State:
    """The state after its last answer, if there is one."""
    return State.OPEN if row is None else State(row.state)


def check_step(what: str, was: State, to: State) -> None:
    """Raise DutyRefused where `what` cannot go from one state to the other."""
    if to not in _NEXT[was]:
        said = f"{what}: expected it to be {' or '.join(s for s in State if to in _NEXT[s])}, it is {was}"
        raise DutyRefused(said, _HOW[was])


def check_chain(rows: Iterable[AnswerRow], highest: Mapping[str, int]) -> Fault | None:
    """Walk the rows in order: numbers without holes, each hash over the one before, each step allowed.

    `highest`: how many events and deadlines there are that an answer can be about.
    """
    prev_hash, position = NO_HASH, 0
    states: dict[tuple[str, int], State] = {}
    for number, row in enumerate(rows, 1):
        fault = link_fault(row, number, prev_hash, answer_hash)
        if fault is not None:
            return fault
        if row.about not in ABOUT:
            return Fault(number, "about", " or ".join(ABOUT), row.about)
        about = DEADLINE if row.about == INCIDENT else row.about
        if not 1 <= row.number <= highest[about]:
            return Fault(number, "number", f"an {about} of 1 … {highest[about]}", row.number)
        if row.position < position:
            return Fault(number, "position", f"not before {position}", row.position)
        fault = _step_fault(row, states.get((about, row.number)))
        if fault is not None:
            return fault
        states[about, row.number] = State(row.state)
        prev_hash, position = row.hash, row.position
    return None


def _step_fault(row: AnswerRow, was: State | None) -> Fault | None:
    try:
        state = State(row.state)
        detail = json.loads(row.detail)
        check_text(DutyError, "who", row.who, "")
        check_text(DutyError, "why", row.why, "")
    except (ValueError, RecursionError, DutyError) as e:
        return Fault(row.answer_no, "state, who, why, detail", "those of an answer", str(e))
    if not isinstance(detail, dict) or canonical(detail) != row.detail:
        return Fault(row.answer_no, "detail", "a JSON object in its canonical text", row.detail)
    if row.about == INCIDENT:
        first = was is None and state is State.OPEN
        return None if first else Fault(row.answer_no, "state", "the first answer about it: open", row.state)
    if state not in _NEXT[was or State.OPEN]:
        return Fault(row.answer_no, "state", f"what can follow {was or State.OPEN}", row.state)
    if row.about == DEADLINE and state is State.RESOLVED and detail.get("outcome") not in OUTCOMES:
        return Fault(row.answer_no, "detail", f"an outcome of {', '.join(OUTCOMES)}", row.detail)
    return None
