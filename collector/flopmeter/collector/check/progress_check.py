"""Claims of training code and the events that rest on them, derived again. Pure.

That an event is missing is not looked for: which hours a claim meets first is a matter of what came when.
"""

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from flopmeter.collector.figures import Model
from flopmeter.collector.law.events import METHOD_DISAGREES, NewEvent
from flopmeter.collector.law.progress import CLAIM_COLUMNS, PROGRESS_PREFIX, ClaimKey, stored_claim
from flopmeter.collector.law.progress_measured import COMPARED_HOURS, beside, disagreement, progress_event
from flopmeter.collector.law.progress_watch import MARGIN
from flopmeter.collector.store.base import Noted
from flopmeter.contract.w_table import WTable

from .event_check import StoredEvent
from .rederive import Difference, Rederivation, compare
from .standings import Standings


class ProgressCheck:
    """Told of every position; judges an event when the books stand where it rests."""

    def __init__(
        self,
        events: Iterable[StoredEvent],
        noted: Iterable[Noted],
        models: Mapping[int, Model],
        table: WTable,
        standings: Standings,
    ) -> None:
        self._models, self._table, self._standings = models, table, standings
        self._margins = sorted((n.from_position, n.value) for n in noted if n.name == MARGIN)
        self._waiting: dict[int, list[StoredEvent]] = {}
        for e in events:
            if e.type == METHOD_DISAGREES and e.key.startswith(PROGRESS_PREFIX):
                self._waiting.setdefault(e.position, []).append(e)

    def at(self, books: Rederivation) -> None:
        """The books stand at `books.position`. Raises Difference."""
        for e in self._waiting.pop(books.position, ()):
            self._check(e, books)

    def finish(self, books: Rederivation) -> None:
        """All records are in."""
        for position in sorted(self._waiting):
            e = self._waiting[position][0]
            raise Difference("events", e.name, "position", f"1 … {books.position}", e.position)

    def _check(self, e: StoredEvent, books: Rederivation) -> None:
        stored = json.loads(e.data)
        if stored.get("w_table") != self._table.id:
            return  # priced with another table: not to be derived here
        margin = next((value for since, value in reversed(self._margins) if since <= e.position), 0)
        # By what was said at that commit: of one without a record it may have been new.
        entries = [self._standings.applied_at(e.position), *self._standings.new_at(e.position + 1)]
        span = _span(e, stored)
        could = [self._derived(e, span, margin, books, n) for n in entries]
        made = [event for event in could if event is not None]
        if not made:
            raise Difference(
                "events", e.name, "data", "claims that the counters rule out", "claims that they allow"
            )
        expected = next((event for event in made if operator.eq(*e.beside(event))), made[0])
        compare(
            "events",
            e.name,
            [
                ("key", expected.key, e.key),
                ("since_position", e.position, e.since_position),
                ("data", *e.beside(expected)),
            ],
        )

    def _derived(
        self, e: StoredEvent, span: range, margin: int, books: Rederivation, entries: int
    ) -> NewEvent | None:
        mine = set(self._standings.workloads(e.subject, entries))
        rows = {k: r for k, r in books.claim_hours.items() if k.workload_no in mine and k.hour in span}
        hours = [
            (key, books.spans[no].dtype, books.hourly[key])
            for no in mine
            for key in books.hours.get(no, ())
            if key.slot.hour in span
        ]
        found = beside(rows, hours, self._models, self._table)
        side = disagreement(found, margin)
        if side is None:
            return None
        return progress_event(
            e.subject,
            side,
            found,
            margin,
            self._table.id,
            span=span,
            at_unix_ns=e.time_unix_ns,
            position=e.position,
        )


def _span(e: StoredEvent, stored: Mapping[str, Any]) -> range:
    try:
        first, end = (
            int(datetime.fromisoformat(stored[name]).timestamp()) // 3600 for name in ("from", "to")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Difference("events", e.name, "data.from, data.to", "two hours", str(error)) from error
    if end - first != COMPARED_HOURS:
        raise Difference("events", e.name, "data.to", f"{COMPARED_HOURS} hours behind data.from", end - first)
    return range(first, end)


def check_claims(rows: Iterable[Sequence[int | str]], books: Rederivation) -> None:
    """The stored rows are those that the records give. Raises Difference."""
    seen = set()
    for row in rows:
        key = ClaimKey(*map(int, row[:3]))
        derived = books.claim_hours.get(key)
        if derived is None:
            raise Difference("progress", str(key), "row", "none: no record claims it", "a row")
        compare(
            "progress", str(key), zip(CLAIM_COLUMNS.split(", "), stored_claim(key, derived), row, strict=True)
        )
        seen.add(key)
    for key in sorted(books.claim_hours.keys() - seen):
        raise Difference("progress", str(key), "row", "a row", "none")
