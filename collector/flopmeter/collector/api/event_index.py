"""What lists of events are filtered and counted by, read once: an event never changes, and answers are only appended."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

from flopmeter.collector.duty.answers import EVENT, State
from flopmeter.collector.law.events import THRESHOLD_CROSSED
from flopmeter.collector.law.severity import Severity, severity_of
from flopmeter.collector.law.thresholds import current_key
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.sqlite import OLD_DATA

log = logging.getLogger(__name__)
_EVENTS = f"SELECT event_no, id, key, type, subject, time_unix_ns, data, {OLD_DATA} FROM events WHERE event_no > ? ORDER BY event_no"  # noqa: S608
_ANSWERS = "SELECT answer_no, about, number, state FROM answers WHERE answer_no > ? ORDER BY answer_no"
#: In falling order, as pages show them.
BY_GRAVITY = tuple(reversed(Severity))
_STATES = frozenset(State)


class Listed(NamedTuple):
    """As much of an event as lists ask for."""

    event_no: int
    id: str
    type: str
    subject: str
    severity: Severity
    regime: str | None
    sound: bool = True  # else its row says nothing that can be read: it counts, as grave as can be


@dataclass(slots=True)
class EventIndex:
    """Every event by number, and where each stands. Threads may share it."""

    events: list[Listed] = field(default_factory=list)
    by_id: dict[str, Listed] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)  # of those that were answered
    last_answer: int = 0
    crossed: dict[tuple[str, str], int] = field(default_factory=dict)  # run, regime: when last, Unix ns
    _raised: dict[str, set[str]] = field(default_factory=dict)
    _open: dict[str, dict[Severity, int]] = field(default_factory=dict)
    _numbered: dict[int, Listed] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @property
    def last_event(self) -> int:
        return self.events[-1].event_no if self.events else 0

    def update(self, reader: Reader) -> int:
        """Read what was raised and answered since. How many rows that were."""
        with self._lock:
            count = 0
            for event_no, name, key, kind, subject, at_unix_ns, text, old in reader.rows(
                _EVENTS, (self.last_event,)
            ):
                count += 1
                try:
                    if not isinstance(subject, str) or not isinstance(at_unix_ns, int):
                        raise TypeError("its subject is no text, or its time no number")
                    data = json.loads(text)
                    raised = current_key(key, old)
                    listed = Listed(
                        event_no, name, kind, subject, severity_of(kind, data), data.get("regime")
                    )
                except Exception as e:  # noqa: BLE001 - whatever is wrong with it, the others stand
                    log.warning("event %d cannot be read: %s: %s", event_no, type(e).__name__, e)
                    self._note(
                        Listed(event_no, str(name), str(kind), str(subject), BY_GRAVITY[0], None, sound=False)
                    )
                    continue
                self._note(listed)
                if kind == THRESHOLD_CROSSED and listed.regime is not None:
                    self.crossed[subject, listed.regime] = at_unix_ns
                self._raised.setdefault(subject, set()).add(raised)
            for answer_no, about, number, state in reader.rows(_ANSWERS, (self.last_answer,)):
                self.last_answer = answer_no
                count += 1
                found = self._numbered.get(number) if about == EVENT else None
                if found is not None and state in _STATES:
                    self._answered(found, State(state))
            return count

    def state(self, event_no: int) -> State:
        return self.states.get(event_no, State.OPEN)

    def raised(self, subject: str) -> frozenset[str]:
        """Keys of the subject's events, as they are called today."""
        return frozenset(self._raised.get(subject, ()))

    def unresolved(self, subject: str) -> Mapping[str, int]:
        """How many of the subject's are not resolved, by severity."""
        return _counts(self._open.get(subject, {}))

    def unresolved_of(self, subjects: Iterator[str] | None) -> Mapping[str, int]:
        """The same of several; None: of all."""
        whole: dict[Severity, int] = {}
        for subject in list(self._open) if subjects is None else subjects:
            for severity, count in self._open.get(subject, {}).items():
                whole[severity] = whole.get(severity, 0) + count
        return _counts(whole)

    def newest_first(self) -> Iterator[Listed]:
        return reversed(self.events)

    def _note(self, listed: Listed) -> None:
        self.events.append(listed)
        self.by_id[listed.id] = self._numbered[listed.event_no] = listed
        self._count(listed, 1)

    def _answered(self, listed: Listed, state: State) -> None:
        was = self.state(listed.event_no)
        self.states[listed.event_no] = state
        if (was is State.RESOLVED) != (state is State.RESOLVED):
            self._count(listed, -1 if state is State.RESOLVED else 1)

    def _count(self, listed: Listed, by: int) -> None:
        of = self._open.setdefault(listed.subject, {})
        of[listed.severity] = of.get(listed.severity, 0) + by


def _counts(found: Mapping[Severity, int]) -> dict[str, int]:
    return {s.value: found.get(s, 0) for s in BY_GRAVITY}
