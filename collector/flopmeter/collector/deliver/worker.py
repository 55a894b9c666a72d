"""One sink's thread: takes what is due from the outbox, hands it over, notes what was answered.

It has a connection of its own and holds no lock while it talks, so that a sink that hangs delays neither a commit, nor
another sink, nor the stop. Nothing is lost when it dies: what was not noted is delivered again, with the same id.
"""

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import randbelow

from flopmeter.collector.errors import SinkError

from . import outbox
from .answer import SECOND_NS, Answer, Kind, Pick, after_failure, refused, retry_delay_ns
from .message import Message
from .outbox import Noted, Row, Standing
from .sender import Sender, Stoppable
from .settings import Alertmanager, SinkSettings

log = logging.getLogger(__name__)

POLL_S = 5.0  # the outbox is looked at this often even if nobody says that something happened
#: After so many failures in a row nobody is there: the others wait, instead of a timeout each.
FAILURES_A_ROUND = 3
#: Such a rest grows as the first retries of one delivery do, and no further: 40 s. Somebody may be there again.
REST_STEPS = 3
_HOUR_NS = 3_600 * SECOND_NS


@dataclass(slots=True)
class SinkCounters:
    """Written by the worker; read by a scrape at any time."""

    attempts: Counter[str] = field(default_factory=Counter)  # by what became of them: Kind's words
    standing: Standing = field(default_factory=Standing)
    gone: bool = False


class Worker:
    """Delivers the outbox rows of one sink. `unix_ns` dates what is noted; `pick` spreads the retries."""

    def __init__(
        self,
        store: Path,
        settings: SinkSettings,
        sender: Sender,
        *,
        unix_ns: Callable[[], int] = time.time_ns,
        pick: Pick = randbelow,
    ) -> None:
        self.settings, self.counters = settings, SinkCounters()
        self._store, self._sender = store, sender
        self._unix_ns, self._pick = unix_ns, pick
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed_rounds = 0
        self._rests_until_ns = 0
        self._said = ""
        self._told_ns = 0  # when open alerts were last told of

    def start(self) -> None:
        """Deliver in a thread of its own until `stop`."""
        name = f"flopmeter-sink-{self.settings.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There may be new events. Never blocks."""
        self._wake.set()

    def ask_to_stop(self) -> None:
        """End soon, after one more turn over what is due. Never blocks."""
        self._stop.set()
        self._wake.set()

    def join(self, timeout_s: float) -> None:
        """Wait for its end, at most this long. What remains is delivered at the next start."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def leave_behind(self) -> None:
        """The process ends: a command that still runs must not outlive who gives it the event again."""
        if isinstance(self._sender, Stoppable):
            self._sender.abandon()

    def deliver(self) -> int:
        """One turn: deliver what is due now; how many were. Raises SinkError if the store cannot be worked with."""
        if self.counters.gone:
            return 0
        with outbox.opened(self._store) as db:
            name = self.settings.name
            outbox.introduce(db, name, self.settings.target.type, self._unix_ns())
            outbox.take_answers(db, name, follow=self.settings.follows_states)
            self.counters.standing = outbox.standing(db, name)
            if self._unix_ns() < self._rests_until_ns <= self._unix_ns() + _HOUR_NS:
                return 0
            try:
                done = self._turn(db)
                if not self._failed_rounds and not self.counters.gone:
                    self._tell_open(db)
            finally:
                self.counters.standing = outbox.standing(db, name)
        return done

    def _turn(self, db: sqlite3.Connection) -> int:
        done = failures = 0
        bad: Answer | None = None
        while rows := outbox.due(db, self.settings.name, self._unix_ns(), self._sender.limit):
            answers = self._attempt(db, rows)
            for answer in answers:
                self.counters.attempts[answer.kind] += 1
            done += sum(answer.delivered for answer in answers)
            bad = next((a for a in answers if not a.delivered), None)
            if bad is None:
                failures = 0
                self._recovered(db)
                continue
            if bad.kind is Kind.GONE:
                self._leave(bad)
                return done
            failures = failures + 1 if not any(a.delivered for a in answers) else 1
            if failures >= FAILURES_A_ROUND or bad.retry_after_ns is not None or self._stop.is_set():
                self._rest(bad)
                return done
        if failures and bad is not None:
            self._say(bad)
        return done

    def _attempt(self, db: sqlite3.Connection, rows: Sequence[Row]) -> list[Answer]:
        """Hand rows over and note each answer. What cannot even be written down is refused, and blocks no other."""
        found = {row: self._message(db, row.event_no, row.answer_no) for row in rows}
        messages = [m for m in found.values() if isinstance(m, Message)]
        said = iter(self._send(messages) if messages else [])
        answers = [next(said) if isinstance(m, Message) else m for m in found.values()]
        outbox.note(
            db, self.settings.name, [self._noted(row, a) for row, a in zip(rows, answers, strict=True)]
        )
        return answers

    def _message(self, db: sqlite3.Connection, event_no: int, answer_no: int) -> Message | Answer:
        """What is handed over; or a refusal of ours: whatever stands in an event, the next one is delivered."""
        try:
            message = outbox.message_of(db, event_no, answer_no, self.settings.redaction)
            message.body  # noqa: B018 - so that what cannot be encoded fails alone
        except sqlite3.Error:
            raise
        except Exception as e:  # noqa: BLE001
            return refused(f"the event cannot be written: {type(e).__name__}: {e}")
        return message

    def _send(self, messages: Sequence[Message]) -> list[Answer]:
        try:
            return self._sender.send(messages)
        except Exception as e:
            log.exception("sink %s: its sender failed", self.settings.name)
            return [refused(f"the sender failed: {type(e).__name__}: {e}")] * len(messages)

    def _noted(self, row: Row, answer: Answer) -> Noted:
        now = self._unix_ns()
        first = now if row.first_unix_ns is None else row.first_unix_ns
        is_refused = answer.kind is Kind.REFUSED
        if answer.delivered:
            return Noted(row, is_refused, first, now, now, None, "")
        after = after_failure(
            answer,
            attempts=row.attempts + 1,
            refusals=row.refusals + is_refused,
            first_unix_ns=first,
            now_unix_ns=now,
            give_up_ns=self.settings.give_up_hours * _HOUR_NS,
            pick=self._pick,
        )
        if after.dead:
            log.error(
                "sink %s: event_no %d is put aside after %d attempts: %s; flopmeter events dead lists it",
                self.settings.name,
                row.event_no,
                row.attempts + 1,
                answer.said,
            )
        return Noted(
            row, is_refused, first, after.due_unix_ns, None, now if after.dead else None, answer.said
        )

    def _tell_open(self, db: sqlite3.Connection) -> None:
        """Alertmanager forgets what it is not told again. A telling that fails comes again; nothing is noted of it."""
        target = self.settings.target
        if not isinstance(target, Alertmanager):
            return
        now = self._unix_ns()
        if 0 <= now - self._told_ns < target.repost_s * SECOND_NS:
            return
        numbers = outbox.open_events(db, self.settings.name)
        for at in range(0, len(numbers), self._sender.limit):
            if self._stop.is_set():
                return
            some = numbers[at : at + self._sender.limit]
            messages = [m for n in some if isinstance(m := self._message(db, n, 0), Message)]
            answers = self._send(messages) if messages else []
            bad = next((a for a in answers if not a.delivered), None)
            if bad is not None:
                self._rest(bad)
                return
        self._told_ns = now

    def _rest(self, bad: Answer) -> None:
        """Nobody is there: nothing is tried for a while."""
        self._failed_rounds += 1
        wait_ns = retry_delay_ns(min(self._failed_rounds, REST_STEPS), self._pick, bad.retry_after_ns)
        self._rests_until_ns = self._unix_ns() + wait_ns
        self._say(bad)

    def _say(self, bad: Answer) -> None:
        """Once, until something is delivered again: a sink that is down for a day does not fill the log."""
        if not self._said:
            log.warning("sink %s: %s; tried again, nothing is lost", self.settings.name, bad.said)
        self._said = bad.said

    def _recovered(self, db: sqlite3.Connection) -> None:
        if self._failed_rounds:
            outbox.hurry(db, self.settings.name)
        if self._said:
            log.info("sink %s: it takes events again", self.settings.name)
        self._failed_rounds, self._said = 0, ""

    def _leave(self, bad: Answer) -> None:
        self.counters.gone = True
        log.error(
            "sink %s: %s: it wants no more; its events wait. Change or remove the sink, and start the collector again",
            self.settings.name,
            bad.said,
        )

    def _run(self) -> None:
        store_retry_s = 0.0
        while True:
            stopping = self._stop.is_set()
            self._wake.clear()
            try:
                self.deliver()
                store_retry_s = 0.0
            except SinkError as e:
                if not store_retry_s:
                    log.warning("sink %s: %s; %s", self.settings.name, e, e.hint)
                store_retry_s = min(60.0, max(1.0, store_retry_s * 2))
            except Exception:
                # A defect, shown whole; the events are in the outbox, and the thread goes on.
                log.exception("sink %s: a turn failed", self.settings.name)
                store_retry_s = 60.0
            if stopping:
                return
            if store_retry_s:
                self._stop.wait(store_retry_s)
            else:
                self._wake.wait(self._pause_s())

    def _pause_s(self) -> float:
        """Until the next delivery is due, at most POLL_S: people answer events behind our back."""
        due = self.counters.standing.next_due_unix_ns
        if due is None or self.counters.gone:
            return POLL_S
        wait = max(due, self._rests_until_ns) - self._unix_ns()
        return min(POLL_S, max(0.05, wait / SECOND_NS))
