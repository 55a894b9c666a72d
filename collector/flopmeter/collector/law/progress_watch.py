"""Claims of training code in the transaction of a commit: kept, and compared once an hour. On the writer's thread."""

from typing import NamedTuple

from flopmeter.collector.books import HourKey, Sums
from flopmeter.collector.figures import Model
from flopmeter.collector.ingest.group import Group
from flopmeter.collector.store.base import Books, Noted, Transaction
from flopmeter.contract.w_table import WTable

from .events import NewEvent
from .judge import Moment
from .progress import ClaimHour, ClaimKey, add_claims, progress_key, stored_claim
from .progress_measured import beside, disagreement, progress_event, span_before
from .whose import Whose

#: How the setting is called where its value is noted in the store.
MARGIN = "progress-margin-percent"
#: Comparisons per commit: each reads a day of a run, and records are waiting.
MAX_PER_COMMIT = 16
MAX_CACHED_CLAIMERS = 100_000


class Brought(NamedTuple):
    """What a group adds to what the store holds."""

    group: Group
    claims: dict[ClaimKey, ClaimHour]
    delta: dict[HourKey, Sums]


class ProgressWatch:
    """A cache of the store, dropped by `reset` after any failure."""

    def __init__(self, books: Books, whose: Whose, margin_percent: int, table: WTable) -> None:
        self._books, self._whose = books, whose
        self._margin = margin_percent
        self._table = table
        self.reset()

    def reset(self) -> None:
        """Forget all. Raises StoreError."""
        self._latest: dict[tuple[int, int], tuple[ClaimKey, ClaimHour] | None] = {}
        self._due: dict[str, int] = {}  # run -> newest hour of a claim, not compared yet
        self._seen: dict[str, int] = {}  # run -> newest hour that was compared
        self._noted = self._books.noted(MARGIN) == self._margin

    def note(self, at: Moment) -> list[Noted]:
        """What is to be noted of the margin with this commit."""
        rows = [] if self._noted else [Noted(MARGIN, self._margin, at.since_position, at.unix_ns)]
        self._noted = True
        return rows

    def add(self, group: Group, tx: Transaction) -> dict[ClaimKey, ClaimHour]:
        """The rows that the group's claims change, put into `tx`."""
        changed: dict[ClaimKey, ClaimHour] = {}
        if len(self._latest) > MAX_CACHED_CLAIMERS:
            self._latest = {}
        for index, claims in group.progress:
            r = group.records[index]
            window = (r.window_start_unix_ns, r.window_end_unix_ns)
            for workload_no, mine in claims.items():
                known = self._known(workload_no, r.agent_no)
                hour = r.slot.hour
                if known is not None:  # a clock that was set back: the claims go on where they are
                    hour = max(hour, known[0].hour)
                key = ClaimKey(workload_no, r.agent_no, hour)
                same = known is not None and known[0] == key
                current = (
                    known[1] if same and known is not None else None
                )  # a failed commit drops it: `reset`
                row = add_claims(known[1] if known is not None else None, current, mine, window)
                if row is not None:
                    self._latest[workload_no, r.agent_no] = key, row
                    changed[key] = row
        tx.progress = [stored_claim(key, row) for key, row in changed.items()]
        return changed

    def _known(self, workload_no: int, agent_no: int) -> tuple[ClaimKey, ClaimHour] | None:
        claimer = (workload_no, agent_no)
        if claimer not in self._latest:
            self._latest[claimer] = self._books.last_claim(workload_no, agent_no)
        return self._latest[claimer]

    def judge(
        self, group: Group, changed: dict[ClaimKey, ClaimHour], delta: dict[HourKey, Sums], at: Moment
    ) -> list[NewEvent]:
        """What must be raised: each run that has claims is compared once an hour."""
        if not self._margin:
            return []
        self._whose.know(key.workload_no for key in changed)
        for key in changed:
            run = self._whose.run_of(key.workload_no)
            if run and key.hour > self._seen.get(run, -1):
                self._due[run] = max(key.hour, self._due.get(run, -1))
        found: list[NewEvent] = []
        for run in sorted(self._due)[:MAX_PER_COMMIT]:
            hour = self._seen[run] = self._due.pop(run)
            if event := self._compare(run, span_before(hour), Brought(group, changed, delta), at):
                found.append(event)
        return found

    def _compare(self, run: str, span: range, brought: Brought, at: Moment) -> NewEvent | None:
        mine = self._whose.workloads_of(run)
        numbers = set(mine)
        stored = dict(self._books.claim_hours(mine, span.start)) | brought.claims
        rows = {k: row for k, row in stored.items() if k.hour in span and k.workload_no in numbers}
        if not rows:
            return None
        models = {no: Model(*names) for no, names in self._books.models().items()}
        models.update({no: Model(name, capability) for no, name, capability in brought.group.models})
        books = [*self._books.workload_hours(mine, span.start)]
        books += [(k, sums) for k, sums in brought.delta.items() if k.group.workload_no in numbers]
        hours = [
            (k, self._whose.held(k.group.workload_no).dtype, sums) for k, sums in books if k.slot.hour in span
        ]
        told = beside(rows, hours, models, self._table)
        side = disagreement(told, self._margin)
        if side is None or self._books.has_event(progress_key(run, side)):
            return None
        return progress_event(
            run,
            side,
            told,
            self._margin,
            self._table.id,
            span=span,
            at_unix_ns=at.unix_ns,
            position=at.position,
        )
