"""Events against the books: each false before, true at its position, and none missing. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from flopmeter.contract.flop import ZERO
from flopmeter.contract.limits import MAX_CLOCK_AHEAD_NS
from flopmeter.contract.w_table import WTable

from .events import (
    AGENT_SILENT,
    COVERAGE_LOST,
    EVIDENCE_FORK,
    THRESHOLD_CROSSED,
    THRESHOLD_UNDETERMINED,
    event_id,
    threshold_events,
    threshold_key,
    threshold_state,
)
from .figures import Model, Tally
from .rederive import Difference, compare
from .regimes import Regime
from .rules import in_force

_THRESHOLD_TYPES = (THRESHOLD_UNDETERMINED, THRESHOLD_CROSSED)
_PREFIX = {
    THRESHOLD_UNDETERMINED: "threshold:",
    THRESHOLD_CROSSED: "threshold:",
    COVERAGE_LOST: "loss:",
    EVIDENCE_FORK: "fork:",
    AGENT_SILENT: "silent:",
}
#: What a threshold event says that follows from the books alone, whatever the regime file's wording was.
_FROM_BOOKS = ("run", "regime", "verdict", "estimate", "flop", "integer_ops")


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

    @property
    def name(self) -> str:
        return f"event {self.event_no} ({self.key})"


class EventCheck:
    """Told of every position that an event rests on; judges when the books stand there."""

    def __init__(
        self,
        events: Iterable[StoredEvent],
        regimes: Iterable[Regime],
        models: Mapping[int, Model],
        table: WTable,
    ) -> None:
        self._regimes = {r.id: r for r in regimes}
        self._models, self._table = models, table
        self.events = tuple(events)
        self._before: dict[int, list[StoredEvent]] = {}
        self._at: dict[int, list[StoredEvent]] = {}
        self.unknown_regimes: set[str] = set()
        for number, e in enumerate(self.events, 1):
            self._check_row(number, e)
            if e.type in _THRESHOLD_TYPES:
                self._before.setdefault(e.since_position - 1, []).append(e)
                self._at.setdefault(e.position, []).append(e)

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
            json.loads(e.data)
        except ValueError as error:
            raise Difference("events", e.name, "data", "JSON", str(error)) from error

    def at(self, position: int, tallies: Mapping[str, Tally], window_end_unix_ns: int) -> None:
        """The books stand at `position`. Raises Difference."""
        for e in self._before.pop(position, ()):
            self._false_before(e, tallies, window_end_unix_ns)
        for e in self._at.pop(position, ()):
            self._true_at(e, tallies)

    def _figures(self, run: str, tallies: Mapping[str, Tally]) -> Any:
        tally = tallies.get(run)
        return (ZERO, ZERO) if tally is None else tally.figures(self._models, self._table)

    def _regime(self, e: StoredEvent) -> Regime | None:
        regime_id = e.key.split(":")[1]
        regime = self._regimes.get(regime_id)
        if regime is None:
            self.unknown_regimes.add(regime_id)
        return regime

    def _false_before(self, e: StoredEvent, tallies: Mapping[str, Tally], window_end_unix_ns: int) -> None:
        regime = self._regime(e)
        if regime is None:
            return
        flop, ops = self._figures(e.subject, tallies)
        state = threshold_state(flop, regime, ops)
        if state is None or threshold_key(regime.id, e.subject, *state) != e.key:
            return
        # A regime that came into force, or whose file was written, after that record was late by right.
        if _day_ns(max(regime.effective, regime.status_as_of)) > window_end_unix_ns - MAX_CLOCK_AHEAD_NS:
            return
        raise Difference(
            "events",
            e.name,
            "since_position",
            f"the first position at which it holds, not after {e.since_position - 1}",
            e.since_position,
        )

    def _true_at(self, e: StoredEvent, tallies: Mapping[str, Tally]) -> None:
        regime = self._regime(e)
        if regime is None:
            return
        flop, ops = self._figures(e.subject, tallies)
        derived = threshold_events(
            e.subject,
            flop,
            [regime],
            frozenset(),
            at_unix_ns=e.time_unix_ns,
            since_position=e.since_position,
            position=e.position,
            integer_ops=ops,
        )
        expected = derived[0] if derived else None
        if expected is None or expected.key != e.key:
            said = f"lower {flop.lower}, point {flop.point}, upper {flop.upper} at position {e.position}"
            raise Difference(
                "events", e.name, "key", expected.key if expected else f"no event: {said}", e.key
            )
        compare("events", e.name, [("type", expected.type, e.type)])
        stored = json.loads(e.data)
        if stored.get("regime_digest") == regime.digest and stored.get("w_table") == self._table.id:
            compare("events", e.name, [("data", expected.data_json, e.data)])
        for field in _FROM_BOOKS:
            compare("events", e.name, [(f"data.{field}", expected.data[field], stored.get(field))])

    def finish(
        self,
        position: int,
        tallies: Mapping[str, Tally],
        run_ends_unix_ns: Mapping[str, int],
        loss_keys: Mapping[str, str],
        fork_keys: Mapping[str, str],
    ) -> None:
        """All records are in. `loss_keys` and `fork_keys`: the event key that each such row must have."""
        for waiting in (self._before, self._at):
            for e in sorted((e for events in waiting.values() for e in events), key=lambda e: e.event_no):
                raise Difference("events", e.name, "position", f"at most {position}", e.position)
        keys = {e.key for e in self.events}
        self._none_missing(keys, tallies, run_ends_unix_ns)
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
                if e.type == kind and e.key not in wanted:
                    raise Difference(rows, e.name, "row", "the row that this event is about", "none")

    def _none_missing(
        self, keys: set[str], tallies: Mapping[str, Tally], run_ends_unix_ns: Mapping[str, int]
    ) -> None:
        """What holds at the end, under a regime in force while the run was reported, was raised."""
        for run in sorted(tallies):
            flop, ops = self._figures(run, tallies)
            seen_ns = run_ends_unix_ns[run] - MAX_CLOCK_AHEAD_NS
            for regime in self._regimes.values():
                state = threshold_state(flop, regime, ops)
                if state is None or seen_ns < 0 or not in_force(regime, seen_ns):
                    continue
                key = threshold_key(regime.id, run, *state)
                if key not in keys:
                    said = f"an event: lower {flop.lower}, point {flop.point}, upper {flop.upper}"
                    raise Difference("events", f"key {key}", "row", said, "none")


def _day_ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000
