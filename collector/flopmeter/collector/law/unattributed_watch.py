"""usage.unattributed, in the transaction of the commit that makes it true. Owned by the writer, on its thread."""

from collections.abc import Iterable

from flopmeter.collector.books import HourKey, Sums
from flopmeter.collector.figures import Model
from flopmeter.collector.registry.entries import JobKey
from flopmeter.collector.store.base import Books, Noted
from flopmeter.contract.usage import WorkloadKind
from flopmeter.contract.w_table import WTable

from .events import NewEvent
from .judge import Moment
from .unattributed import (
    HOURS_A_DAY,
    LIMIT,
    counts,
    day_of,
    figures,
    node_of,
    over,
    unattributed_event,
    unattributed_key,
)
from .whose import Whose

#: Device time of a node and UTC day that is let pass: a GPU-hour, about half a percent of eight GPUs' day. Less than
#: that is a person with nvidia-smi, a health check, the minute between a job's end and its cgroup's.
UNATTRIBUTED_MINUTES = 60
#: Sums of days kept in memory; past this they are read from the store again.
MAX_CACHED_DAYS = 100_000
_UNATTRIBUTED = int(WorkloadKind.UNATTRIBUTED)


class UnattributedWatch:
    """Adds up each node's day; a cache of the store, dropped by `reset` after any failure."""

    def __init__(self, books: Books, whose: Whose, limit_minutes: int, table: WTable) -> None:
        self._books, self._whose = books, whose
        self._limit = limit_minutes
        self._table = table
        self.reset()

    def reset(self) -> None:
        """Forget all. Raises StoreError."""
        self._days: dict[tuple[JobKey, int], int | None] = {}  # (node, day) -> ns so far; None: raised
        self._noted = self._books.noted(LIMIT) == self._limit

    def note(self, at: Moment) -> list[Noted]:
        """What is to be noted of the limit with this commit, so that fsck knows what was owed since when."""
        rows = [] if self._noted else [Noted(LIMIT, self._limit, at.since_position, at.unix_ns)]
        self._noted = True
        return rows

    def judge(
        self, delta: dict[HourKey, Sums], brought: Iterable[tuple[int, str, str]], at: Moment
    ) -> list[NewEvent]:
        """What must be raised now that `delta` is added. `brought`: models that the group brings.

        Call it behind `Judge.book`: the workloads of `delta` are known then.
        """
        touched: dict[tuple[JobKey, int], list[tuple[HourKey, Sums]]] = {}
        self._whose.know(key.group.workload_no for key in delta)
        for (slot, key), sums in delta.items():
            held = self._whose.held(key.workload_no)
            if held.kind == _UNATTRIBUTED and counts(key):
                job = JobKey(held.scope, held.kind, held.job)
                touched.setdefault((job, day_of(slot)), []).append((HourKey(slot, key), sums))
        if not touched or not self._limit:
            return []
        if len(self._days) > MAX_CACHED_DAYS:
            self._days = {}
        found: list[NewEvent] = []
        for (job, day), rows in touched.items():
            before = self._before(job, day)
            if before is None:
                continue
            now_ns = before + sum(sums[0] for _, sums in rows)
            self._days[job, day] = now_ns
            if not over(now_ns, self._limit):
                continue
            models = {no: Model(*names) for no, names in self._books.models().items()}
            models.update({no: Model(name, capability) for no, name, capability in brought})
            told = figures([*self._stored(job, day), *rows], models, self._table)
            found.append(
                unattributed_event(
                    node_of(job.scope, job.job),
                    day,
                    told,
                    self._limit,
                    self._table.id,
                    at_unix_ns=at.unix_ns,
                    since_position=at.since_position,
                    position=at.position,
                )
            )
            self._days[job, day] = None
        return found

    def _before(self, job: JobKey, day: int) -> int | None:
        """The day's time before this group, or None if its event was raised."""
        if (job, day) not in self._days:
            raised = self._books.has_event(unattributed_key(node_of(job.scope, job.job), day))
            stored = sum(sums[0] for key, sums in self._stored(job, day) if counts(key.group))
            self._days[job, day] = None if raised else stored
        return self._days[job, day]

    def _stored(self, job: JobKey, day: int) -> list[tuple[HourKey, Sums]]:
        first = day * HOURS_A_DAY
        hours = self._books.workload_hours(self._whose.workloads_of_job(job), first)
        return [(key, sums) for key, sums in hours if key.slot.hour < first + HOURS_A_DAY]
