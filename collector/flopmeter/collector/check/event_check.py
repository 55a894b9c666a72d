"""Events against the books: each false before, true at its position, and none missing. Pure."""

import json
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

from flopmeter.collector.books import Slot
from flopmeter.collector.duty.notices import NEAR_PREFIX, OVERDUE_PREFIX
from flopmeter.collector.figures import Model
from flopmeter.collector.forecast.events import FORECAST_PREFIX, PLAN_PREFIX
from flopmeter.collector.ingest.silence import is_silent, silent_after_ns
from flopmeter.collector.law.agent_events import silent_event
from flopmeter.collector.law.cross_check import CHECK_PREFIX
from flopmeter.collector.law.early import APPROACHING_PREFIX
from flopmeter.collector.law.events import (
    AGENT_SILENT,
    COVERAGE_LOST,
    DEADLINE_NEAR,
    DEADLINE_OVERDUE,
    EVIDENCE_FORK,
    FLEET_CAPACITY,
    METHOD_DISAGREES,
    PLAN_EXCEEDS,
    THRESHOLD_APPROACHING,
    THRESHOLD_CROSSED,
    THRESHOLD_FORECAST,
    THRESHOLD_UNDETERMINED,
    USAGE_UNATTRIBUTED,
    NewEvent,
    event_id,
)
from flopmeter.collector.law.late import met_since
from flopmeter.collector.law.log_contradiction import LOG_PREFIX
from flopmeter.collector.law.progress import PROGRESS_PREFIX
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.law.run_events import run_events
from flopmeter.collector.law.standing import text_of
from flopmeter.collector.law.thresholds import current_key
from flopmeter.collector.report.capacity_event import CAPACITY_PREFIX
from flopmeter.collector.spelling import time_text
from flopmeter.contract.w_table import WTable

from .rederive import AgentBooks, Difference, compare
from .standings import Standings
from .texts import Texts

_HOUR_NS = 3_600_000_000_000

_THRESHOLD_TYPES = (THRESHOLD_UNDETERMINED, THRESHOLD_CROSSED, THRESHOLD_APPROACHING)
_PREFIX: Mapping[str, str | tuple[str, ...]] = {
    THRESHOLD_UNDETERMINED: ("threshold:", "modification:"),
    THRESHOLD_CROSSED: ("threshold:", "modification:"),
    THRESHOLD_APPROACHING: APPROACHING_PREFIX,
    THRESHOLD_FORECAST: FORECAST_PREFIX,
    PLAN_EXCEEDS: PLAN_PREFIX,
    COVERAGE_LOST: "loss:",
    EVIDENCE_FORK: "fork:",
    AGENT_SILENT: "silent:",
    METHOD_DISAGREES: ("method:", CHECK_PREFIX, PROGRESS_PREFIX),
    USAGE_UNATTRIBUTED: "unattributed:",
    DEADLINE_NEAR: NEAR_PREFIX,
    DEADLINE_OVERDUE: OVERDUE_PREFIX,
    FLEET_CAPACITY: CAPACITY_PREFIX,
}
#: Sentences for people. A later flopmeter words them otherwise; that they are those of then, the log says.
PROSE = ("message", "note")
#: What a threshold event says that follows from the books alone, whatever the regime file's wording was.
_FROM_BOOKS = ("run", "regime", "verdict", "estimate", "flop", "integer_ops")


class JudgedRow(NamedTuple):
    """A row of the judged table."""

    regime: str
    digest: str
    w_table: str
    from_position: int
    until_position: int | None
    from_unix_ns: int


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A row of the events table."""

    event_no: int
    id: str
    key: str
    type: str
    subject: str
    time_unix_ns: int
    since_position: int
    position: int
    data: str
    logged: bool = False  # its leaf is under a head that the log's key signed (log_check)

    def beside(self, derived: NewEvent, formerly: NewEvent | None = None) -> tuple[str, str]:
        """(derived, stored) data, as they must agree: letter by letter, or, once a signed head holds its sentences, but
        for those. `formerly`: the same, as a flopmeter before this one worded it: of a store that came from one, the
        last events may be under no head yet.
        """
        if formerly is not None and self.data == formerly.data_json:
            return self.data, self.data
        if not self.logged or self.data == derived.data_json:
            return derived.data_json, self.data
        stored = json.loads(self.data)
        if not isinstance(stored, dict):
            return derived.data_json, self.data
        return facts(derived.data), facts(stored)

    @property
    def name(self) -> str:
        return f"event {self.event_no} ({self.key})"

    @property
    def meant(self) -> str:
        """Its key as it would be made today."""
        return current_key(self.key, self.data)


def facts(data: Mapping[str, Any]) -> str:
    """What an event says, without its sentences."""
    return json.dumps(
        {k: v for k, v in data.items() if k not in PROSE},
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
    )


class EventCheck:
    """Told of every position that an event rests on; judges when the books stand there."""

    def __init__(
        self,
        events: Iterable[StoredEvent],
        regimes: Iterable[Regime],
        models: Mapping[int, Model],
        table: WTable,
        *,
        texts: Texts,
        judged: Iterable[JudgedRow],
        heads: Mapping[str, AgentBooks],
        standings: Standings,
    ) -> None:
        """`regimes`: as they hold now; `texts` finds those of older events. `heads`, by agent id in hex, and `standings` are derived: they move between the calls of `at`."""
        self._standings = standings
        self._regimes = {r.id: r for r in regimes}
        self._models, self._table, self._texts = models, table, texts
        self.events = tuple(events)
        self._before: dict[int, list[StoredEvent]] = {}
        self._at: dict[int, list[StoredEvent]] = {}
        self._silences: dict[int, list[StoredEvent]] = {}
        self._begin: dict[
            int, list[StoredEvent]
        ] = {}  # threshold events by the first position of their commit
        #: What the records of its commit tell of, so far, by event.
        self._brought: dict[int, list[tuple[Slot, AbstractSet[int]]]] = {}
        self._heads = heads
        #: (regime, digest) -> first positions judged by it, under today's W table; and those that still are.
        self._judged_from: dict[tuple[str, str], set[int]] = {}
        self._judged_now: set[tuple[str, str]] = set()
        self._judged: set[tuple[str, str]] = set()  # by any W table
        for row in judged:
            self._judged.add((row.regime, row.digest))
            if row.w_table == table.id:
                self._judged_from.setdefault((row.regime, row.digest), set()).add(row.from_position)
                if row.until_position is None:
                    self._judged_now.add((row.regime, row.digest))
        self.unknown_regimes: set[str] = set()
        for number, e in enumerate(self.events, 1):
            self._check_row(number, e)
            if e.type in _THRESHOLD_TYPES:
                self._before.setdefault(self._last_false(e), []).append(e)
                self._at.setdefault(e.position, []).append(e)
                self._begin.setdefault(e.since_position, []).append(e)
            elif e.type == AGENT_SILENT:
                self._silences.setdefault(e.position, []).append(e)

    def _check_row(self, number: int, e: StoredEvent) -> None:
        name = f"event {number}"
        compare("events", name, [("event_no", number, e.event_no)])
        prefix = _PREFIX.get(e.type)
        if prefix is None or not e.key.startswith(prefix):
            raise Difference("events", e.name, "type", f"that of key {e.key}", e.type)
        compare("events", e.name, [("id", event_id(e.key), e.id)])
        if not 0 <= e.since_position <= e.position:
            raise Difference("events", e.name, "since_position", f"0 … {e.position}", e.since_position)
        try:
            data = json.loads(e.data)
        except (ValueError, RecursionError) as error:
            raise Difference("events", e.name, "data", "JSON", str(error)) from error
        if not isinstance(data, dict):
            raise Difference("events", e.name, "data", "a JSON object", e.data)

    @property
    def not_judged(self) -> list[str]:
        """Regimes that this store's collector does not judge by, as they are here: their events are not owed."""
        return sorted(r.id for r in self._regimes.values() if (r.id, text_of(r)) not in self._judged_now)

    def at(self, position: int, received_unix_ns: int) -> None:
        """The books stand at `position`, whose record came at that time. Raises Difference."""
        for e in self._begin.pop(position, ()):
            self._brought[e.event_no] = []
        for brought in self._brought.values():
            brought.append(self._standings.work)
        for e in self._before.pop(position, ()):
            self._false_before(e, received_unix_ns)
        for e in self._at.pop(position, ()):
            self._true_at(e)
        for e in self._silences.pop(position, ()):
            self._silent_at(e)

    def _silent_at(self, e: StoredEvent) -> None:
        """Derived again from the agent's head at that position, but for the node's name of then."""
        agent_id = e.subject.removeprefix("agent/")
        agent = self._heads.get(agent_id)
        if agent is None:
            raise Difference("events", e.name, "subject", "an admitted agent", e.subject)
        head, stored = agent.head, json.loads(e.data)
        expected = silent_event(
            agent.agent_id,
            str(stored.get("node")),
            head.last_seq,
            head.window_end_unix_ns,
            head.received_unix_ns,
            at_unix_ns=e.time_unix_ns,
            position=e.position,
        )
        compare("events", e.name, [("key", expected.key, e.key), ("data", *e.beside(expected))])
        if not is_silent(head, e.time_unix_ns):
            limit_s = silent_after_ns(head) / 1e9
            since = time_text(head.received_unix_ns)
            said = f"over {limit_s:.0f} s after {since}, and no stop on purpose"
            raise Difference("events", e.name, "time_unix_ns", said, time_text(e.time_unix_ns))

    def _regime(self, e: StoredEvent) -> Regime | None:
        """The regime of an event as it was; None, and noted, if its text is neither here nor kept.

        Raises Difference if runs were never judged by that text.
        """
        regime_id = e.key.split(":")[1]
        stored = json.loads(e.data)
        counted_by = stored.get("countable")
        profile = counted_by.get("profile_digest") if isinstance(counted_by, dict) else None
        text = f"{stored.get('regime_digest')}" + (f"+{profile}" if profile else "")
        if (regime_id, text) not in self._judged:
            known = ", ".join(sorted(t for r, t in self._judged if r == regime_id)) or "none of that regime"
            raise Difference("events", e.name, "data.regime_digest", f"a text judged by: {known}", text)
        regime = self._texts.find(regime_id, text)
        if regime is None:
            self.unknown_regimes.add(regime_id)
        return regime

    @staticmethod
    def _said(e: StoredEvent) -> Any:
        return json.loads(e.data).get("entries", "0")

    def _entries(self, e: StoredEvent) -> int:
        """Up to which entry the event says that it was judged. Raises Difference if none of its commit's."""
        said = self._said(e)
        here = self._standings.applied_at(e.position)
        # A commit of no record judges by what was said since, at the position that the commit before left.
        allowed = [here, *self._standings.new_at(e.position + 1)]
        if said not in map(str, allowed):
            raise Difference("events", e.name, "data.entries", " or ".join(map(str, allowed)), said)
        return int(said)

    def _last_false(self, e: StoredEvent) -> int:
        """The position at which the event did not hold yet, under what had been said before its commit.

        A commit of no record follows the whole one before it: what held halfway through that was never judged.
        """
        alone = e.since_position == e.position and self._said(e) in map(
            str, self._standings.new_at(e.position + 1)
        )
        return e.position if alone else e.since_position - 1

    def _keys(
        self, run: str, entries: int, regime: Regime, at_unix_ns: int, met_since_unix_ns: int | None = None
    ) -> dict[str, NewEvent]:
        stands = self._standings.of(run, entries, [regime])
        if stands is None:
            return {}
        derived = run_events(
            stands,
            [regime],
            frozenset(),
            at_unix_ns=at_unix_ns,
            since_position=0,
            position=0,
            met_since_unix_ns=met_since_unix_ns,
        )
        return {event.key: event for event in derived}

    def _met_since(self, e: StoredEvent, entries: int) -> int | None:
        """When that was done which its commit brought to the run, if it was long ago."""
        brought = self._brought.pop(e.event_no)
        if e.since_position == e.position and json.loads(e.data).get("met_since") is None:
            return None  # it may be of a commit of no record, behind that of the one at its position
        family = self._standings.family(e.subject, entries)
        return met_since((slot for slot, numbers in brought if numbers & family), e.time_unix_ns)

    def _false_before(self, e: StoredEvent, received_unix_ns: int) -> None:
        regime = self._regime(e)
        if regime is None:
            return
        entries = self._entries(e)
        at = {e.since_position, e.since_position + 1}
        if any(entries in self._standings.new_at(position) for position in at):
            entries = self._standings.before(entries)  # what was said last is what may have made it true
        if e.meant not in self._keys(e.subject, entries, regime, received_unix_ns):
            return
        # Late by right: this text of the regime (or this W table) was new to the collector at this event. From then
        # on every commit judged by it.
        if self._judged_from.get((regime.id, text_of(regime)), set()) & at:
            return
        raise Difference(
            "events",
            e.name,
            "since_position",
            f"the first position at which it holds, not after {e.since_position - 1}",
            e.since_position,
        )

    def _true_at(self, e: StoredEvent) -> None:
        regime = self._regime(e)
        if regime is None:
            self._brought.pop(e.event_no, None)
            return
        entries = self._entries(e)
        derived = self._keys(e.subject, entries, regime, e.time_unix_ns, self._met_since(e, entries))
        expected = derived.get(e.meant)
        if expected is None:
            tally = self._standings.executed(e.subject, entries)
            flop = tally.figures(self._models, self._table)[0]
            said = f"lower {flop.lower}, point {flop.point}, upper {flop.upper} at position {e.position}"
            raise Difference("events", e.name, "key", next(iter(derived), f"no event: {said}"), e.key)
        compare("events", e.name, [("type", expected.type, e.type)])
        stored = json.loads(e.data)
        same = stored.get("regime_digest") == regime.digest and stored.get("w_table") == self._table.id
        if same and "entries" in stored:
            compare("events", e.name, [("data", *e.beside(expected))])
        for field in _FROM_BOOKS:
            if field in expected.data:
                compare("events", e.name, [(f"data.{field}", expected.data[field], stored.get(field))])

    def finish(
        self,
        position: int,
        received_unix_ns: int,
        loss_keys: Mapping[str, str],
        fork_keys: Mapping[str, str],
    ) -> None:
        """All records are in, the last at that time. `loss_keys` and `fork_keys`: the event key that each such row must have."""
        for waiting in (self._before, self._at, self._silences):
            for e in sorted((e for events in waiting.values() for e in events), key=lambda e: e.event_no):
                raise Difference("events", e.name, "position", f"at most {position}", e.position)
        keys = {e.meant for e in self.events}
        self._none_missing(keys, received_unix_ns)
        for kind, wanted, rows in (
            (COVERAGE_LOST, loss_keys, "losses"),
            (EVIDENCE_FORK, fork_keys, "conflicts"),
        ):
            for key, row in wanted.items():
                if key not in keys:
                    raise Difference(
                        "events", f"key {key}", "row", f"an event for the {rows} row of {row}", "none"
                    )
            for e in self.events:
                if e.type == kind and e.key not in wanted and not e.key.startswith(LOG_PREFIX):  # check_flags
                    raise Difference(rows, e.name, "row", "the row that this event is about", "none")

    def _none_missing(self, keys: set[str], received_unix_ns: int) -> None:
        """What holds at the end, of any run, under a regime in force when the last record came, was raised."""
        owed = [
            r
            for r in self._regimes.values()
            # Its commit may have been a little later, and by then a regime may have lapsed.
            if (r.id, text_of(r)) in self._judged_now
            and in_force(r, received_unix_ns)
            and in_force(r, received_unix_ns + _HOUR_NS)
        ]
        entries = max((a.entry_no for a in self._standings.applied), default=0)
        for run in self._standings.runs(entries):
            stands = self._standings.of(run, entries, owed)
            if stands is None:
                continue
            for event in run_events(
                stands, owed, keys, at_unix_ns=received_unix_ns, since_position=0, position=0
            ):
                flop = stands.executed.flop
                said = f"an event: lower {flop.lower}, point {flop.point}, upper {flop.upper}"
                raise Difference("events", f"key {event.key}", "row", said, "none")


def check_flags(
    events: Iterable[StoredEvent],
    prefix: str,
    make: Callable[..., NewEvent],
    owed: Mapping[str, tuple[Any, int]],
) -> None:
    """Each event whose key begins with `prefix` is owed as it stands, and none that is owed is missing. Raises Difference.

    `owed`: by key, what `make` makes the event of, and the position of the first record that told of it.
    """
    seen = set()
    for e in events:
        if not e.key.startswith(prefix):
            continue
        if e.key not in owed:
            raise Difference("events", e.name, "key", "a record with a notice that tells of it", "none")
        flag, position = owed[e.key]
        expected = make(flag, at_unix_ns=e.time_unix_ns, position=position)
        compare(
            "events",
            e.name,
            [
                ("type", expected.type, e.type),
                ("subject", expected.subject, e.subject),
                ("since_position", position, e.since_position),
                ("position", position, e.position),
                ("data", *e.beside(expected)),
            ],
        )
        seen.add(e.key)
    for key, (_, position) in owed.items():
        if key not in seen:
            raise Difference("events", f"key {key}", "row", f"an event of the record at {position}", "none")
