"""The rows behind runs, as the registry sorts them: which workloads a run has, and their sums by slot."""

from collections.abc import Iterator
from typing import NamedTuple

from flopmeter.collector.books import SUM_FIELDS, GroupKey, Slot
from flopmeter.collector.report.queries import Reader

from .entries import Entry, JobKey
from .shares import Row
from .state import Registry

_SUMS = ", ".join(SUM_FIELDS)
_KEY = ", ".join(GroupKey._fields)
_ANY_SLOT = Slot(0)
_WORKLOADS = (
    "SELECT workload_no, scope, kind, job, step, run, run_rule, user, dtype, restart, first_unix_ns, last_unix_ns "
    "FROM workloads WHERE run != '' ORDER BY workload_no"
)


class Member(NamedTuple):
    """One workload of a run, and why it is of that run."""

    workload_no: int
    job: JobKey
    step: str
    user: str
    dtype: str
    restart: int
    rule: str  # that chose, before anybody assigned
    assigned: Entry | None  # the entry that overrules it
    first_unix_ns: int
    last_unix_ns: int


class RunBooks:
    """One state of the books under one registry. Raises StoreError."""

    def __init__(self, reader: Reader, registry: Registry) -> None:
        self._reader = reader
        self._registry = registry
        self._members: dict[str, list[Member]] = {}
        for no, scope, kind, job, step, chosen, rule, user, dtype, restart, first, last in reader.rows(
            _WORKLOADS
        ):
            key = JobKey(scope, kind, job)
            run = registry.run_of(key, step, chosen)
            assigned = registry.assigned_by(key, step) if run != chosen else None
            member = Member(no, key, step, user, dtype, restart, rule, assigned, first, last)
            self._members.setdefault(run, []).append(member)

    def members(self, run: str) -> list[Member]:
        """The run's workloads, by number."""
        return self._members.get(run, [])

    def rows(self, run: str) -> Iterator[Row]:
        """As Counting asks for them: by hour where the run has tagged spans, else its totals."""
        return self.hours(run) if self._registry.has_spans(run) else self._totals(run)

    def hours(self, run: str) -> Iterator[Row]:
        """The run's sums of each slot."""
        sql = f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly WHERE workload_no = ? ORDER BY hour, back"  # noqa: S608
        for m in self.members(run):
            for row in self._reader.rows(sql, (m.workload_no,)):
                yield Row(
                    m.job, Slot(*row[:2]), m.dtype, GroupKey._make(row[2:8]), [int(text) for text in row[8:]]
                )

    def _totals(self, run: str) -> Iterator[Row]:
        sql = f"SELECT {_KEY}, {_SUMS} FROM totals WHERE workload_no = ?"  # noqa: S608
        for m in self.members(run):
            for row in self._reader.rows(sql, (m.workload_no,)):
                yield Row(m.job, _ANY_SLOT, m.dtype, GroupKey._make(row[:6]), [int(text) for text in row[6:]])
