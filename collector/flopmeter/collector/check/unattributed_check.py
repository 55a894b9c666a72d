"""Events of unattributed time against the books: false before, true where they rest, and none missing. Pure."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.collector.figures import Model
from flopmeter.collector.law.events import USAGE_UNATTRIBUTED
from flopmeter.collector.law.unattributed import (
    LIMIT,
    Busy,
    day_of,
    day_text,
    figures,
    node_of,
    over,
    unattributed_event,
    unattributed_key,
)
from flopmeter.collector.store.base import Noted
from flopmeter.contract.usage import WorkloadKind
from flopmeter.contract.w_table import WTable

from .event_check import StoredEvent, facts
from .rederive import Difference, Rederivation, compare


def nodes_of(workloads: Mapping[tuple[Any, ...], int]) -> dict[int, str]:
    """workload_no -> node, of unattributed time; `workloads`: by (scope, kind, job, …)."""
    return {
        number: node_of(scope, job)
        for (scope, kind, job, *_), number in workloads.items()
        if kind == WorkloadKind.UNATTRIBUTED
    }


class UnattributedCheck:
    """Told of every position; judges when the books stand there. `nodes`: workload_no -> node, of unattributed time."""

    def __init__(
        self,
        events: Iterable[StoredEvent],
        nodes: Mapping[int, str],
        noted: Iterable[Noted],
        models: Mapping[int, Model],
        table: WTable,
    ) -> None:
        self._nodes, self._models, self._table = nodes, dict(models), table
        self._numbers: dict[str, list[int]] = {}
        for number, node in nodes.items():
            self._numbers.setdefault(node, []).append(number)
        self._limits = sorted((n.from_position, n.value) for n in noted if n.name == LIMIT)
        self._waiting: dict[int, list[tuple[StoredEvent, bool]]] = {}  # position -> event, true there?
        self._keys: set[str] = set()
        for e in events:
            if e.type == USAGE_UNATTRIBUTED:
                self._keys.add(e.key)
                if e.since_position > 1:  # before the first record nothing is over any limit
                    self._waiting.setdefault(e.since_position - 1, []).append((e, False))
                self._waiting.setdefault(e.position, []).append((e, True))

    def _limit(self, position: int) -> int:
        """What was the limit at that position; 0: none was noted."""
        return next((value for since, value in reversed(self._limits) if since <= position), 0)

    def at(self, books: Rederivation) -> None:
        """The books stand at `books.position`. Raises Difference."""
        for e, there in self._waiting.pop(books.position, ()):
            self._check(e, books, there=there)

    def _check(self, e: StoredEvent, books: Rederivation, *, there: bool) -> None:
        node, day = e.subject.removeprefix("node/"), json.loads(e.data).get("day")
        found = next((d for d in self._days(node, books) if day_text(d) == day), None)
        limit = self._limit(e.position)
        told = Busy() if found is None else self._told(node, found, books)
        if not there:
            new = any(since == e.since_position for since, _ in self._limits)
            if over(told.time_ns, limit) and not new:
                raise Difference(
                    "events",
                    e.name,
                    "since_position",
                    "the first position at which it holds",
                    e.since_position,
                )
            return
        if found is None or not over(told.time_ns, limit):
            said = f"over {limit} minutes on {day}, at position {e.position}"
            raise Difference("events", e.name, "data.device_seconds", said, told.time_ns // 10**9)
        expected = unattributed_event(
            node,
            found,
            told,
            limit,
            self._table.id,
            at_unix_ns=e.time_unix_ns,
            since_position=e.since_position,
            position=e.position,
        )
        compare("events", e.name, [("key", expected.key, e.key), ("subject", expected.subject, e.subject)])
        stored, wanted = json.loads(e.data), expected.data
        if stored.get("w_table") != self._table.id:  # what another table made of it cannot be derived here
            for document in (stored, wanted):
                document.pop("flop", None)
                document.pop("w_table", None)
        compare(
            "events", e.name, [("data", *((facts(wanted), facts(stored)) if e.logged else (wanted, stored)))]
        )

    def _days(self, node: str, books: Rederivation) -> set[int]:
        mine = set(self._numbers.get(node, ()))
        return {day_of(slot) for slot, key in books.hourly if key.workload_no in mine}

    def _told(self, node: str, day: int, books: Rederivation) -> Busy:
        mine = set(self._numbers.get(node, ()))
        rows = [
            (key, sums)
            for key, sums in books.hourly.items()
            if key.group.workload_no in mine and day_of(key.slot) == day
        ]
        return figures(rows, self._models, self._table)

    def finish(self, books: Rederivation) -> None:
        """All records are in: what was owed under the limit that stands now was raised. Raises Difference."""
        for waiting in sorted(self._waiting):
            e, _ = self._waiting[waiting][0]
            raise Difference("events", e.name, "position", f"at most {books.position}", e.position)
        since = self._limits[-1][0] if self._limits else 0
        limit = self._limit(books.position) if self._limits else 0
        for (number, day), position in sorted(books.busy_unowned.items()):
            if position < since or unattributed_key(self._nodes[number], day) in self._keys:
                continue
            told = self._told(self._nodes[number], day, books)
            if over(told.time_ns, limit):
                key = unattributed_key(self._nodes[number], day)
                raise Difference(
                    "events", f"key {key}", "row", f"an event: {told.time_ns // 10**9} s", "none"
                )
