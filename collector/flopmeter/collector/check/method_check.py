"""Events of methods that disagree, against the books: estimate and measured figure both derived again. Pure."""

import functools
import json
import operator
from collections.abc import Iterable, Mapping

from flopmeter.collector.errors import EstimateError
from flopmeter.collector.estimate.compare import Agreement
from flopmeter.collector.estimate.compare import compare as agreement
from flopmeter.collector.estimate.cut import figure_before
from flopmeter.collector.estimate.declared import Declared, from_document
from flopmeter.collector.estimate.event import method_event
from flopmeter.collector.figures import Model
from flopmeter.collector.law.cross_check import CHECK_PREFIX
from flopmeter.collector.law.events import METHOD_DISAGREES
from flopmeter.collector.law.progress import PROGRESS_PREFIX
from flopmeter.collector.spelling import time_text
from flopmeter.contract.flop import ZERO, Figure
from flopmeter.contract.w_table import WTable

from .event_check import StoredEvent
from .rederive import Difference, Rederivation, compare
from .standings import Standings


class MethodCheck:
    """Told of every position; judges an event when the books stand where it rests.

    What was declared and never disagreed is in no event, so that a missing event cannot be seen here.
    """

    def __init__(
        self,
        events: Iterable[StoredEvent],
        models: Mapping[int, Model],
        table: WTable,
        standings: Standings,
    ) -> None:
        self._standings = standings
        self._models, self._table = models, table
        self._waiting: dict[int, list[StoredEvent]] = {}
        for e in events:
            if e.type == METHOD_DISAGREES and not e.key.startswith((CHECK_PREFIX, PROGRESS_PREFIX)):
                self._waiting.setdefault(e.position, []).append(e)
        #: W tables of events that cannot be priced again with today's.
        self.other_tables: set[str] = set()

    def at(self, books: Rederivation) -> None:
        """The books stand at `books.position`. Raises Difference."""
        for e in self._waiting.pop(books.position, ()):
            self._check(e, books)

    def finish(self, position: int) -> None:
        """All records are in."""
        for e in sorted((e for events in self._waiting.values() for e in events), key=lambda e: e.event_no):
            raise Difference("events", e.name, "position", f"1 … {position}", e.position)

    def _check(self, e: StoredEvent, books: Rederivation) -> None:
        stored = json.loads(e.data)
        w_table = stored.get("w_table") if isinstance(stored, dict) else None
        if isinstance(w_table, str) and w_table != self._table.id:
            self.other_tables.add(w_table)
            return
        try:
            d = from_document(stored.get("estimate") if isinstance(stored, dict) else None, self._table)
        except EstimateError as error:
            raise Difference(
                "events", e.name, "data.estimate", "an estimate as it was declared", str(error)
            ) from error
        # By what was said at that commit: of one without a record it may have been new.
        entries = [self._standings.applied_at(e.position), *self._standings.new_at(e.position + 1)]
        could = [self._measured(d, books, n) for n in entries]
        event = functools.partial(
            method_event, d, w_table=self._table.id, at_unix_ns=e.time_unix_ns, position=e.position
        )
        made, former = [event(m) for m in could], [event(m, formerly=True) for m in could]
        which = next(
            (i for i, both in enumerate(zip(made, former, strict=True)) if operator.eq(*e.beside(*both))), 0
        )
        measured, expected = could[which], made[which]
        compare(
            "events",
            e.name,
            [
                ("key", expected.key, e.key),
                ("subject", expected.subject, e.subject),
                ("since_position", e.position, e.since_position),
                ("data", *e.beside(expected, former[which])),
                ("data.measured, agreement", Agreement.DISAGREES, agreement(measured, d.flop)),
            ],
        )
        if e.time_unix_ns < d.due_unix_ns:
            due = f"not before {time_text(d.due_unix_ns)}, when the estimate is due"
            raise Difference("events", e.name, "time_unix_ns", due, time_text(e.time_unix_ns))

    def _measured(self, d: Declared, books: Rederivation, entries: int) -> Figure:
        if d.before_hour is None:
            return self._standings.executed(d.run, entries).figures(self._models, self._table)[0]
        rows = (
            (key.slot, books.spans[no].dtype, key.group, books.hourly[key])
            for no in self._standings.workloads(d.run, entries)
            for key in books.hours.get(no, ())
        )
        return figure_before(d.before_hour, rows, self._models, self._table) or ZERO
