"""Kept forecasts and the events that rest on them or on a plan, derived again. Pure.

A forecast follows from its own inputs whatever has changed since; and its inputs follow from the books where it rests,
if they can still be priced and judged as they were: with the same W table, and the same texts of the regimes.

Which hour a run was asked in is a matter of what came when: that a forecast is missing is not looked for, but that an
event of one that is kept, or of a plan, is.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from flopmeter.collector.books import BRIDGE
from flopmeter.collector.figures import Model
from flopmeter.collector.forecast.document import Document, again, forecast_document
from flopmeter.collector.forecast.events import BY_PLAN, SAY, Say, When, forecast_events, known_by_plan
from flopmeter.collector.forecast.history import Past, Work, grown, span_of
from flopmeter.collector.forecast.keep import to_text
from flopmeter.collector.forecast.project import DAY_NS, METHOD, MIN_BLOCKS
from flopmeter.collector.forecast.settings import Outlook
from flopmeter.collector.forecast.watch import CONFIDENCE, HORIZON
from flopmeter.collector.law.events import PLAN_EXCEEDS, THRESHOLD_FORECAST, NewEvent
from flopmeter.collector.law.lines import target
from flopmeter.collector.law.regimes import Regime, in_order
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.law.standing import text_of
from flopmeter.collector.registry.lineage import Lineage
from flopmeter.collector.store.base import Noted
from flopmeter.collector.store.forecasts import ForecastRow
from flopmeter.contract.w_table import WTable

from .event_check import JudgedRow, StoredEvent
from .rederive import Difference, Rederivation, compare
from .standings import Standings
from .texts import Texts

#: How sentences said figures until 2026-11: every digit.
FORMERLY: Say = str


class ForecastCheck:
    """Told of every position; derives what rests there when the books stand there."""

    def __init__(
        self,
        rows: Iterable[ForecastRow],
        events: Iterable[StoredEvent],
        regimes: Iterable[Regime],
        *,
        judged: Sequence[JudgedRow],
        applied_unix_ns: Mapping[int, int],
        noted: Iterable[Noted],
        models: Mapping[int, Model],
        table: WTable,
        standings: Standings,
        texts: Texts,
    ) -> None:
        """`regimes`: as they hold now; `texts` finds them as they were. `applied_unix_ns`: by entry, when runs were first
        judged by what had been said up to it.
        """
        self._regimes = tuple(regimes)
        self._judged, self._applied_unix_ns = judged, applied_unix_ns
        self._models, self._table, self._standings, self._texts = models, table, standings, texts
        noted = [*noted]
        self._noted = [n for n in noted if n.name in (CONFIDENCE, HORIZON)]
        #: Whether a flopmeter that holds plans against lines has committed: with its first commit it notes both.
        self._held = any(n.name in (CONFIDENCE, HORIZON, BRIDGE) for n in noted)
        #: Forecasts and events of plans whose figures cannot be derived from the books any more.
        self.not_priced = 0
        self._rows: dict[int, list[ForecastRow]] = {}
        self._documents: dict[int, Document] = {}
        self._position: dict[int, int] = {}
        self._last_position = 0
        for number, row in enumerate(rows, 1):
            self._check_row(number, row)
        self._plans: dict[int, list[StoredEvent]] = {}
        self._keys: set[str] = set()
        for e in events:
            if e.type in (THRESHOLD_FORECAST, PLAN_EXCEEDS):
                self._keys.add(e.key)
                if json.loads(e.data).get("basis") == BY_PLAN:
                    self._plans.setdefault(e.position, []).append(e)
                else:
                    self._rests(e)
        self._none_missing()

    # --- what needs no books ---

    def _check_row(self, number: int, row: ForecastRow) -> None:
        name = _name(row)
        compare("forecasts", name, [("forecast_no", number, row.forecast_no)])
        if row.position < self._last_position:
            raise Difference("forecasts", name, "position", f"not before {self._last_position}", row.position)
        self._last_position = row.position
        try:
            document = json.loads(row.data)
            derived = to_text(again(document)) if document["method"] == METHOD else row.data
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise Difference("forecasts", name, "data", "a forecast", repr(error)) from error
        compare(
            "forecasts",
            name,
            [
                ("data", derived, row.data),
                ("data.run", row.run, document["run"]),
                ("data.unix_ns", str(row.unix_ns), document["unix_ns"]),
                ("data.method", row.method, document["method"]),
            ],
        )
        self._documents[number], self._position[number] = document, row.position
        self._rows.setdefault(row.position, []).append(row)

    def _rests(self, e: StoredEvent) -> None:
        """An event of a forecast is what that forecast raises."""
        said = json.loads(e.data).get("forecast")
        number = int(said) if isinstance(said, str) and said.isdecimal() else 0
        document = self._documents.get(number)
        if document is None:
            raise Difference("events", e.name, "data.forecast", "a forecast that is kept", said)
        when = When(e.time_unix_ns, e.position)
        expected = self._made(number, document, when).get(e.key)
        if expected is None:
            if any(line["regime"] and self._regime(line) is None for line in document["lines"]):
                self.not_priced += 1  # its text is neither here nor kept
                return
            raise Difference("events", e.name, "key", f"what forecast {number} raises", e.key)
        compare(
            "events",
            e.name,
            [
                ("type", expected.type, e.type),
                ("subject", expected.subject, e.subject),
                ("position", self._position[number], e.position),
                ("since_position", e.position, e.since_position),
                ("data", *e.beside(expected, self._made(number, document, when, FORMERLY)[e.key])),
                ("time_unix_ns", int(document["unix_ns"]), e.time_unix_ns),
            ],
        )

    def _regime(self, line: Mapping[str, str]) -> Regime | None:
        """The regime of a line by the text that it was drawn by."""
        return self._texts.find(line["regime"], line["digest"])

    def _made(self, number: int, document: Document, when: When, say: Say = SAY) -> dict[str, NewEvent]:
        regimes = {x["regime"]: r for x in document["lines"] if x["regime"] and (r := self._regime(x))}
        made = forecast_events(number, document, regimes, frozenset(), when, say=say)
        return {event.key: event for event in made}

    def _none_missing(self) -> None:
        """What a kept forecast makes known was raised, by it or before it."""
        for rows in self._rows.values():
            for row in rows:
                document = self._documents[row.forecast_no]
                when = When(row.unix_ns, row.position)
                for key in self._made(row.forecast_no, document, when):
                    if key not in self._keys:
                        raise Difference(
                            "events", f"key {key}", "row", f"an event of forecast {row.forecast_no}", "none"
                        )

    # --- what follows from the books ---

    def at(self, books: Rederivation) -> None:
        """The books stand at `books.position`. Raises Difference."""
        for row in self._rows.pop(books.position, ()):
            self._derive(row, books)
        for e in self._plans.pop(books.position, ()):
            self._planned(e)

    def finish(self, books: Rederivation) -> None:
        """All records are in."""
        for position in sorted(self._rows):
            row = self._rows[position][0]
            raise Difference("forecasts", _name(row), "position", f"0 … {books.position}", row.position)
        for position in sorted(self._plans):
            e = self._plans[position][0]
            raise Difference("events", e.name, "position", f"0 … {books.position}", e.position)
        self._no_plan_missing(books)

    def _entries(self, said: int, table: str, name: str, position: int) -> int:
        """Up to which entry it was made: that of its commit; of one without a record it may have been new."""
        allowed = [self._standings.applied_at(position), *self._standings.new_at(position + 1)]
        if said not in allowed:
            raise Difference(table, name, "data.entries", " or ".join(map(str, allowed)), said)
        return said

    def _judged_at(self, position: int) -> list[list[Regime]] | None:
        """By which regimes runs were judged there: in the commit of that record, or in one without any behind it.

        None: another W table, or texts that are not known here.
        """
        found = []
        for at in (position, position + 1):
            texts = {
                (j.regime, j.digest)
                for j in self._judged
                if j.from_position <= at and (j.until_position is None or at <= j.until_position)
            }
            tables = {j.w_table for j in self._judged if j.from_position <= at}
            here = [r for text in sorted(texts) if (r := self._texts.find(*text)) is not None]
            if len(here) == len(texts) and tables <= {self._table.id}:
                found.append(list(in_order(here)))  # as the writer has them
        return found or None

    def _meanwhile(self, position: int, document: Document) -> list[list[Regime]]:
        """Where law files changed behind that record, and again before the next: by which texts runs were judged in
        between only the forecast itself says. What did not change was judged by all the time.
        """
        here = [
            j
            for j in self._judged
            if j.from_position <= position + 1 and (j.until_position is None or position <= j.until_position)
        ]
        stayed = {
            (j.regime, j.digest)
            for j in here
            if j.from_position <= position and (j.until_position is None or position < j.until_position)
        }
        named = {(x["regime"], x["digest"]) for x in document["lines"] if x["regime"]}
        if len(stayed) == len(here) or not named <= {(j.regime, j.digest) for j in here}:
            return []
        ids = {regime for regime, _ in named}
        texts = named | {text for text in stayed if text[0] not in ids}
        found = [r for text in sorted(texts) if (r := self._texts.find(*text)) is not None]
        return [list(in_order(found))] if len(found) == len(texts) else []

    def _outlooks(self, position: int) -> list[Outlook]:
        """The settings that were noted for that position, and for a commit without a record behind it."""
        found = []
        for at in (position, position + 1):
            values = {n.name: n.value for n in self._noted if n.from_position <= at}
            if len(values) == 2:
                found.append(Outlook(values[CONFIDENCE], values[HORIZON]))
        return found

    def _derive(self, row: ForecastRow, books: Rederivation) -> None:
        document, name = self._documents[row.forecast_no], _name(row)
        judged = self._judged_at(row.position)
        if document["w_table"] != self._table.id or judged is None or document["method"] != METHOD:
            self.not_priced += 1
            return
        entries = self._entries(document["entries"], "forecasts", name, row.position)
        outlook = Outlook(document["confidence_percent"], document["horizon_days"])
        allowed = self._outlooks(row.position)
        if outlook not in allowed:
            said = " or ".join(map(str, allowed)) or "settings that were noted"
            raise Difference("forecasts", name, "data.confidence_percent, horizon_days", said, str(outlook))
        judged += self._meanwhile(row.position, document)
        made = [self._made_again(row, books, entries, regimes, outlook) for regimes in judged]
        if row.data not in made:
            compare("forecasts", name, _apart(json.loads(made[0]) if made[0] else {}, document))
            raise Difference("forecasts", name, "data", made[0] or "none: too young", row.data)

    def _made_again(
        self,
        row: ForecastRow,
        books: Rederivation,
        entries: int,
        regimes: Sequence[Regime],
        outlook: Outlook,
    ) -> str:
        standings, registry = self._standings, self._standings.registry(entries)
        mine = standings.workloads(row.run, entries)
        since = min((books.spans[no].first_unix_ns for no in mine), default=None)
        if since is None:
            return ""
        span = span_of(row.unix_ns, since)
        if span.blocks < MIN_BLOCKS:
            return ""
        stands = standings.stands(row.run, entries, regimes)
        rows = functools.partial(standings.slots, entry_no=entries, from_hour=span.first_hour)
        work = Work(registry, self._models, self._table)
        past = Past(row.run, row.unix_ns, since, span, stands, grown(work, row.run, rows, regimes, span))
        return to_text(forecast_document(past, registry, regimes, outlook, self._table.id))

    # --- plans ---

    def _planned(self, e: StoredEvent) -> None:
        stored = json.loads(e.data)
        profile = stored.get("profile_digest")
        text = f"{stored.get('regime_digest')}" + (f"+{profile}" if profile else "")
        regime = self._texts.find(str(stored.get("regime")), text)
        if stored.get("w_table") != self._table.id or regime is None:
            self.not_priced += 1
            return
        said = stored.get("entries")
        entries = self._entries(
            int(said) if isinstance(said, str) and said.isdecimal() else -1, "events", e.name, e.position
        )
        when = When(e.time_unix_ns, e.position)
        made = self._by_plan(e.subject, entries, [regime], when)
        expected = made.get(e.key)
        if expected is None:
            raise Difference(
                "events", e.name, "key", next(iter(made), "no event: no plan meets that line"), e.key
            )
        compare(
            "events",
            e.name,
            [
                ("type", expected.type, e.type),
                ("since_position", e.position, e.since_position),
                (
                    "data",
                    *e.beside(expected, self._by_plan(e.subject, entries, [regime], when, FORMERLY)[e.key]),
                ),
            ],
        )
        self._not_late(e, entries, expected, regime)

    def _not_late(self, e: StoredEvent, entries: int, made: NewEvent, regime: Regime) -> None:
        """By the budget alone it was known when the plan was heard of, if the regime was judged by and in force then."""
        heard = self._applied_unix_ns.get(entries)
        if heard is None or e.time_unix_ns == heard or not _alone(made) or not in_force(regime, heard):
            return
        here = [a.from_position for a in self._standings.applied if a.entry_no == entries]
        if here and self._asked(regime, min(here), heard) and not self._renamed(e.subject, entries):
            raise Difference("events", e.name, "time_unix_ns", heard, e.time_unix_ns)

    def _asked(self, regime: Regime, position: int, unix_ns: int) -> bool:
        """Whether the commit of then surely judged by that text, and looked at plans: an older flopmeter did not.

        Several commits without a record between them note one position: of those only the one of that very time.
        """
        text = regime.id, text_of(regime)
        judged = any(
            (j.regime, j.digest) == text
            and _by(j.from_position, j.from_unix_ns, position, unix_ns)
            and (j.until_position is None or position <= j.until_position)
            for j in self._judged
        )
        return judged and any(_by(n.from_position, n.from_unix_ns, position, unix_ns) for n in self._noted)

    def _renamed(self, run: str, entries: int) -> bool:
        """Whether what is said of the run, or the work of its family, came or went with a name: when is not known here."""
        registry = self._standings.registry(entries)
        family = {run, *Lineage.of(registry).above(run)}
        return any(
            name in family or any(o.run in family for o in once) for name, once in registry.formerly.items()
        )

    def _by_plan(
        self, run: str, entries: int, regimes: Sequence[Regime], when: When, say: Say = SAY
    ) -> dict[str, NewEvent]:
        stands = self._standings.stands(run, entries, regimes)
        registry = self._standings.registry(entries)
        made = known_by_plan(stands, registry, regimes, frozenset(), when=when, table=self._table.id, say=say)
        return {event.key: event for event in made}

    def _no_plan_missing(self, books: Rederivation) -> None:
        """What a budget alone makes known under a regime that was in force the day before was raised.

        What a run stands on may have grown since its plan was looked at last, which is once a day.
        """
        if not self._held:
            return
        entries = max((a.entry_no for a in self._standings.applied), default=0)
        registry = self._standings.registry(entries)
        now = {(j.regime, j.digest) for j in self._judged if j.until_position is None}
        owed = [
            r
            for r in self._regimes
            if (r.id, text_of(r)) in now and in_force(r, books.received_unix_ns - DAY_NS)
        ]
        for run in registry.declared_runs:
            made = self._by_plan(run, entries, owed, When(books.received_unix_ns, books.position))
            for key, event in made.items():
                if _alone(event) and key not in self._keys:
                    raise Difference("events", f"key {key}", "row", event.data["message"], "none")


def _by(noted_position: int, noted_unix_ns: int, position: int, unix_ns: int) -> bool:
    """Whether what was noted there was surely so in the commit of that position and time: clocks step back."""
    return noted_position < position or (noted_position, noted_unix_ns) == (position, unix_ns)


def _alone(event: NewEvent) -> bool:
    """Whether the plan meets the line without what the run stands on, which grows at any time."""
    data = event.data
    goal = target(Fraction(data["line"]["upper"]), data["comparison"])
    return int(data["planned"]["lower"]) - int(data["stands_on"]["lower"]) >= goal


def _apart(derived: Document, stored: Document) -> list[tuple[str, object, object]]:
    """The first thing that differs, by name."""
    for name in sorted({*derived, *stored}):
        one, other = derived.get(name), stored.get(name)
        if name in ("series", "lines") and isinstance(one, list) and isinstance(other, list):
            for i, (a, b) in enumerate(zip(one, other, strict=False)):
                if isinstance(b, dict):
                    found = [(f"data.{name}[{i}].{k}", v, b.get(k)) for k, v in a.items() if v != b.get(k)]
                    if found:
                        return found
        if one != other:
            return [(f"data.{name}", one, other)]
    return []


def _name(row: ForecastRow) -> str:
    return f"forecast_no {row.forecast_no} ({row.run})"
