"""Events of fleet.capacity against the inventories of record: false before, true where they rest, and none missing. Pure.

The laws and the file of sites are those that the events name, as the store kept their texts.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.law.events import FLEET_CAPACITY, NewEvent
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.law.standing import text_of
from flopmeter.collector.report.capacity_event import SITES_PREFIX, capacity_events
from flopmeter.collector.report.capacity_watch import Standing
from flopmeter.collector.report.sites import NO_SITES, Sites, parse_sites
from flopmeter.collector.store.base import Noted
from flopmeter.contract.w_table import WTable

from .event_check import JudgedRow, StoredEvent
from .rederive import Difference, Rederivation, compare
from .texts import Texts

_HOUR_NS = 3_600_000_000_000


class CapacityCheck:
    """Told of every position; judges when the books stand there."""

    def __init__(
        self,
        events: Iterable[StoredEvent],
        regimes: Iterable[Regime],
        laws: Texts,
        texts: Mapping[str, str],
        *,
        judged: Iterable[JudgedRow],
        noted: Iterable[Noted],
        table: WTable,
    ) -> None:
        """`regimes`: by which is judged now; `laws` finds those of then; `texts`: what is kept, by digest."""
        self._regimes = [r for r in regimes if r.capacity is not None]
        self._laws, self._texts, self._table = laws, texts, table
        self._noted: dict[int, set[str]] = {}  # position -> digests of the files that held from there on
        for n in noted:
            if n.name.startswith(SITES_PREFIX):
                self._noted.setdefault(n.from_position, set()).add(n.name.removeprefix(SITES_PREFIX))
        self._judged: dict[
            str, set[int]
        ] = {}  # regime -> first positions of its texts, under today's W table
        self._judged_now: set[tuple[str, str]] = set()
        for row in judged:
            if row.w_table == table.id:
                self._judged.setdefault(row.regime, set()).add(row.from_position)
                if row.until_position is None:
                    self._judged_now.add((row.regime, row.digest))
        self._waiting: dict[int, list[tuple[StoredEvent, bool]]] = {}  # position -> event, true there?
        self._keys: set[str] = set()
        self.other_tables: set[str] = set()
        for e in events:
            if e.type == FLEET_CAPACITY:
                self._keys.add(e.key)
                if e.since_position > 1:  # before the first record there is no inventory of record
                    self._waiting.setdefault(e.since_position - 1, []).append((e, False))
                self._waiting.setdefault(e.position, []).append((e, True))

    def at(self, books: Rederivation) -> None:
        """The books stand at `books.position`. Raises Difference."""
        for e, there in self._waiting.pop(books.position, ()):
            if there:
                self._true_at(e, books)
            else:
                self._false_before(e, books)

    def _true_at(self, e: StoredEvent, books: Rederivation) -> None:
        data = json.loads(e.data)
        if data.get("w_table") != self._table.id:  # what another table made of it cannot be derived here
            self.other_tables.add(str(data.get("w_table")))
            return
        regime, sites = self._regime(e, data), self._sites(e, data)
        # A commit of no record notes what holds from the next one on.
        allowed = self._noted.get(e.position + 1, set()) | self._held(e.position)
        if sites.digest not in allowed:
            raise Difference(
                "events", e.name, "data.sites_digest", " or ".join(sorted(allowed)), sites.digest
            )
        found = self._derived(regime, sites, books, e)
        expected = found.get(e.key)
        if expected is None:
            said = next(iter(found), f"no event of {regime.id} at position {e.position}")
            raise Difference("events", e.name, "key", said, e.key)
        compare("events", e.name, [("subject", expected.subject, e.subject), ("data", *e.beside(expected))])

    def _false_before(self, e: StoredEvent, books: Rederivation) -> None:
        data = json.loads(e.data)
        if data.get("w_table") != self._table.id:
            return
        regime, sites = self._regime(e, data), self._sites(e, data)
        # Late by right: the law's text, or the file of sites, was new to the collector at this event, or the law in force.
        begun = self._judged.get(regime.id, set()) | self._noted.keys()
        if begun & {e.since_position, e.position + 1} or not in_force(regime, books.received_unix_ns):
            return
        if e.key in self._derived(regime, sites, books, e):
            said = f"the first position at which it holds, not after {e.since_position - 1}"
            raise Difference("events", e.name, "since_position", said, e.since_position)

    def _derived(
        self, regime: Regime, sites: Sites, books: Rederivation, e: StoredEvent
    ) -> dict[str, NewEvent]:
        return self._events([regime], sites, books, e.time_unix_ns)

    def _events(
        self, regimes: Iterable[Regime], sites: Sites, books: Rederivation, at_unix_ns: int
    ) -> dict[str, NewEvent]:
        standing = Standing(sites)
        for agent_no in sorted(books.agents):
            inventory = books.agents[agent_no].inventory
            if inventory is not None:
                standing.tell(agent_no, inventory)
        found = capacity_events(
            regimes,
            standing.counts,
            sites,
            self._table,
            at_unix_ns=at_unix_ns,
            since_position=0,
            position=0,
        )
        return {event.key: event for event in found}

    def _regime(self, e: StoredEvent, data: Mapping[str, Any]) -> Regime:
        name, text = str(data.get("regime")), str(data.get("regime_text"))
        regime = self._laws.find(name, text)
        if regime is None or regime.capacity is None:
            raise Difference("events", e.name, "data.regime_text", f"the kept text of {name}'s line", text)
        return regime

    def _sites(self, e: StoredEvent, data: Mapping[str, Any]) -> Sites:
        return self._file(str(data.get("sites_digest")))

    def _file(self, digest: str) -> Sites:
        """The kept file of sites. Raises Difference."""
        if not digest:
            return NO_SITES
        text = self._texts.get(digest)
        if text is None:
            raise Difference(
                "texts", f"digest {digest}", "row", "the file of sites that was judged by", "none"
            )
        try:
            return parse_sites("texts", text.encode())
        except CollectorError as error:
            raise Difference("texts", f"digest {digest}", "text", "a file of sites", str(error)) from error

    def finish(self, books: Rederivation) -> None:
        """All records are in: what holds at the end, under what is judged by now, was raised. Raises Difference."""
        for waiting in sorted(self._waiting):
            e, _ = self._waiting[waiting][0]
            raise Difference("events", e.name, "position", f"at most {books.position}", e.position)
        owed = [
            r
            for r in self._regimes
            # Its commit may have been a little later, and by then a law may have lapsed.
            if (r.id, text_of(r)) in self._judged_now
            and in_force(r, books.received_unix_ns)
            and in_force(r, books.received_unix_ns + _HOUR_NS)
        ]
        if not owed or not self._noted:
            return
        # Of several starts at one position nobody knows which was last: owed is what holds by each of their files.
        held = [
            self._events(owed, self._file(digest), books, books.received_unix_ns).keys()
            for digest in sorted(self._held(books.position + 1))
        ]
        for key in sorted(set.intersection(*map(set, held)) - self._keys):
            raise Difference("events", f"key {key}", "row", "an event: it holds at the end", "none")

    def _held(self, position: int) -> set[str]:
        """Digests of the files of sites that may have held at that position."""
        since = max((at for at in self._noted if at <= position), default=None)
        return set() if since is None else self._noted[since]
