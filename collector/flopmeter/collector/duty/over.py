"""Whether what an event said is still so, derived from the books of today. The event stays whatever comes out."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from flopmeter.collector.law.agent_events import silent_key
from flopmeter.collector.law.events import (
    AGENT_SILENT,
    DEADLINE_NEAR,
    DEADLINE_OVERDUE,
    THRESHOLD_CROSSED,
    THRESHOLD_UNDETERMINED,
)
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.law.run_events import run_events
from flopmeter.collector.law.standing import standing
from flopmeter.collector.law.thresholds import current_key
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.report.laws_then import regimes_now
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.answers import LATEST, SELECT_DEADLINES, answer_rows
from flopmeter.contract.flop import total
from flopmeter.contract.w_table import WTable, current

from .answers import DEADLINE, AnswerRow, State
from .deadlines import Deadline
from .notices import told_of
from .reading import Found
from .saying import names


class Over(NamedTuple):
    """That an event's condition ceased."""

    because: str
    since_unix_ns: int | None  # None: it cannot be told
    entry_no: int = 0  # of the run registry, whose words it tells; 0: it tells of none


def condition_of(reader: Reader, directory: Path | None, now_unix_ns: int) -> "Condition":
    """By the files that a person names; without, by those that the collector judges by. Raises RegimeError."""
    judged = regimes_now(reader, read_laws(None).binding)
    given = () if directory is None else read_laws(directory).binding
    return Condition(reader, (*judged, *given), now_unix_ns)  # of two of a name the latter


class Condition:
    """Asks one state of the store, and keeps what several events need."""

    def __init__(self, reader: Reader, regimes: Iterable[Regime], now_unix_ns: int) -> None:
        self._reader, self._now = reader, now_unix_ns
        self._regimes = {r.id: r for r in regimes}
        self._table: WTable = current()
        self._counting: dict[int | None, Counting] = {}  # by up to which entry
        self._keys: dict[tuple[str, str, int | None], frozenset[str]] = {}
        self._deadlines: dict[str, tuple[Deadline, AnswerRow | None]] | None = None

    def over(self, event: Found) -> Over | None:
        """Why and since when it is no longer so; None: it is, or is a fact that cannot cease."""
        asks: dict[str, Callable[[Found], Over | None]] = {
            THRESHOLD_CROSSED: self._threshold,
            THRESHOLD_UNDETERMINED: self._threshold,
            AGENT_SILENT: self._silence,
            DEADLINE_NEAR: self._deadline,
            DEADLINE_OVERDUE: self._deadline,
        }
        ask = asks.get(event.cloud["type"])
        return None if ask is None else ask(event)

    # ---- thresholds ----------------------------------------------------------------------------------------

    def _threshold(self, event: Found) -> Over | None:
        data = event.cloud["data"]
        regime, run = self._regimes.get(str(data.get("regime"))), event.cloud["subject"]
        if regime is None:
            return Over("runs are no longer judged by a regime of that name", None)
        if not in_force(regime, self._now):
            return Over(f"{regime.id} does not bind now", None)
        keys = self._raised(run, regime, None)
        mine = current_key(event.key, json.dumps(data))
        if mine in keys:
            return None
        for estimate in ("crossed", "below"):
            if mine.replace(f":undetermined:{estimate}:", ":crossed:crossed:") in keys:
                return Over("the line is crossed for certain now, which is another event", None)
        return self._since(mine, event, regime)

    def _since(self, mine: str, event: Found, regime: Regime) -> Over:
        """By whose word, or else that the line or the price of a cycle changed."""
        run, entries = event.cloud["subject"], str(event.cloud["data"].get("entries", "0"))
        said = self._reader.registry().entries
        first = int(entries) if entries.isdigit() else 0
        low, high = first, len(said)
        if low < high and mine in self._raised(run, regime, low):
            # Each is a pass over the books: by halves, so that years of entries take some. Up to `low` it was so.
            while high - low > 1:
                middle = (low + high) // 2
                if mine in self._raised(run, regime, middle):
                    low = middle
                else:
                    high = middle
            if mine not in self._raised(run, regime, high):
                entry = said[high - 1]
                return Over(
                    f"entry {entry.number} of the run registry, by {entry.who}: {entry.why}",
                    entry.unix_ns,
                    entry.number,
                )
        noted = self._reader.rows(
            "SELECT max(from_unix_ns) FROM judged WHERE regime = ? AND until_position IS NULL", (regime.id,)
        ).fetchone()[0]
        changed = noted if noted is not None and noted > event.unix_ns else None
        return Over("the regime's text, the W table or the names of the run's work changed", changed)

    def _raised(self, run: str, regime: Regime, entries: int | None) -> frozenset[str]:
        """What the run would raise under that regime, by what was said up to that entry."""
        asked = (run, regime.id, entries)
        if asked not in self._keys:
            counting = self._counted_by(entries)
            shares = counting.shares(run)
            executed = (total(s.flop for s in shares), total(s.integer_ops for s in shares))
            stands = standing(counting, run, executed, [regime])
            found = run_events(
                stands, [regime], frozenset(), at_unix_ns=self._now, since_position=0, position=0
            )
            self._keys[asked] = frozenset(e.key for e in found)
        return self._keys[asked]

    def _counted_by(self, entries: int | None) -> Counting:
        """One pass over the books for all runs that are asked about; of earlier entries the last one asked is kept."""
        if entries not in self._counting:
            today: dict[int | None, Counting] = {n: c for n, c in self._counting.items() if n is None}
            self._counting = {**today, entries: self._reader.counting(self._table, entries)}
        return self._counting[entries]

    # ---- the rest ------------------------------------------------------------------------------------------

    def _silence(self, event: Found) -> Over | None:
        data = event.cloud["data"]
        agent = str(data.get("agent"))
        row = self._reader.rows(
            "SELECT r.seq, r.window_end_unix_ns, r.agent_no FROM agents a JOIN heads USING (agent_no) "
            "JOIN records r USING (position) WHERE a.agent_id = ?",
            (bytes.fromhex(agent),),
        ).fetchone()
        if row is None or silent_key(agent, row[0], row[1]) == event.key:
            return None
        back = self._reader.rows(
            "SELECT received_unix_ns FROM records WHERE position > ? AND agent_no = ? ORDER BY position LIMIT 1",
            (int(event.cloud["position"]), row[2]),
        ).fetchone()
        return Over("the agent reported again", None if back is None else back[0])

    def _deadline(self, event: Found) -> Over | None:
        if self._deadlines is None:
            last = {a.number: a for a in answer_rows(self._reader.rows(LATEST, names(DEADLINE)))}
            rows = [(r[0], Deadline._make(r[1:])) for r in self._reader.rows(SELECT_DEADLINES)]
            self._deadlines = {d.key: (d, last.get(number)) for number, d in rows}
        lead, key = told_of(event.key)
        d, answer = self._deadlines.get(key, (None, None))
        if d is None:
            return None
        if answer is not None and answer.state == State.RESOLVED:
            return Over(f"the deadline was resolved by {answer.who}: {answer.why}", answer.unix_ns)
        if self._now < d.due_unix_ns - lead:
            return Over("the collector's clock was ahead when it was raised: it is not due yet", None)
        if lead and self._now >= d.due_unix_ns:
            return Over("it is overdue now, which is another event", d.due_unix_ns)
        return None
