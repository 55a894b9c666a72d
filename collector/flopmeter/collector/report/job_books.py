"""What the books hold of one scheduler's job, and whether all of it is in them. Reads only."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from flopmeter.collector.books import SUM_FIELDS, GroupKey, Sums
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.identity_jobs import Seen, instance_of, latest_job
from flopmeter.collector.ingest.identity_rules import identities_of
from flopmeter.collector.registry.entries import JobKey
from flopmeter.collector.registry.known import job_text
from flopmeter.contract.usage import WorkloadKind

from .fleet import SILENT_AFTER_NS
from .job_summary import COMPLETE, LATE, OPEN, summary_document
from .queries import Asked, Reader
from .run_figures import run_figures
from .silence import Silence

# S608: SQL is put together from column names of this program only; values are bound.
_SUMS = ", ".join(SUM_FIELDS)
_KEY = ", ".join(GroupKey._fields)
_OWNED = f"kind NOT IN ({int(WorkloadKind.IDLE)}, {int(WorkloadKind.UNATTRIBUTED)})"
#: How Slurm writes a part of a job: what stands between the numbers, and which identities they are.
_PARTS = (("_", "slurm.array_job", "slurm.array_task"), ("+", "slurm.het_job", "slurm.het_offset"))
_NAMED_AT_MOST = 8


class _Work(NamedTuple):
    workload_no: int
    scope: str
    kind: int
    job: str
    step: str
    dtype: str
    restart: int
    run: str
    first_unix_ns: int
    last_unix_ns: int
    begun_unix_ns: int
    identities: str


_WORK = f"SELECT {', '.join(_Work._fields)} FROM workloads WHERE scope = ? AND kind = ? AND job = ? ORDER BY workload_no"  # noqa: S608


class JobBooks:
    """One state of the books, asked for job after job."""

    def __init__(self, reader: Reader, question: Asked) -> None:
        self._reader, self._question = reader, question
        self._registry = reader.registry()
        self._rules = reader.identity_rules()
        self._models = reader.models()
        self._owed = reader.owed(question)
        live = "SELECT min(window_end_unix_ns) FROM heads JOIN records USING (position) WHERE window_end_unix_ns >= ?"
        (self._told_until,) = reader.rows(live, (question.now_unix_ns - SILENT_AFTER_NS,)).fetchone()

    def find(self, text: str, cluster: str | None) -> JobKey:
        """The job that a person names. Raises StoreError if the books hold none, or several."""
        found = sorted(set(self._find(text, cluster)))
        if len(found) == 1:
            return found[0]
        shown = text if len(text) <= 80 else text[:77] + "..."
        where = "" if cluster is None else f" of cluster {cluster!r}"
        if not found:
            raise StoreError(
                f"job {shown!r}: expected a job{where} that the books hold, found none",
                "`flopmeter runs summary --recent 1d` lists those of the last day; a job is in the books with its first window",
            )
        names = [job_text(key) for key in found]
        raise StoreError(
            f"job {shown!r}: expected one job, found {len(names)}: {', '.join(names[:_NAMED_AT_MOST])}"
            + (" …" if len(names) > _NAMED_AT_MOST else ""),
            f"name the cluster with --cluster, or the job whole: {names[0]}",
        )

    def _find(self, text: str, cluster: str | None) -> Iterator[JobKey]:
        kind, _, rest = text.partition(":")
        scope, _, job = rest.rpartition("/")
        kinds = {k.label: int(k) for k in WorkloadKind}
        if scope and kind in kinds:
            sql, values = f"{_OWNED} AND kind = ? AND scope = ? AND job = ?", (kinds[kind], scope, job)
            yield from self._keys(sql, values, cluster)
            return
        found = list(self._keys(f"{_OWNED} AND job = ?", (text,), cluster))
        yield from found
        for mark, whole, part in () if found else _PARTS:
            first, _, second = text.partition(mark)
            if first.isascii() and second.isascii() and first.isdecimal() and second.isdecimal():
                named = " AND ".join(
                    f"json_extract(nullif(identities, ''), '$.\"{name}\"') = ?" for name in (whole, part)
                )
                of_slurm = f"kind = {int(WorkloadKind.SLURM)} AND {named}"
                yield from self._keys(of_slurm, (first, second), cluster)

    def _keys(self, where: str, values: tuple[Any, ...], cluster: str | None) -> Iterator[JobKey]:
        sql = f"SELECT DISTINCT scope, kind, job FROM workloads WHERE {where}"  # noqa: S608
        for row in self._reader.rows(sql, values):
            if cluster is None or row[0] == cluster:
                yield JobKey(*row)

    def recent(self, since_unix_ns: int, cluster: str | None) -> list[JobKey]:
        """Slurm's jobs that were seen since then, the one that was seen last at the end."""
        sql = (
            "SELECT scope, kind, job FROM workloads WHERE kind = ? GROUP BY scope, kind, job "
            "HAVING max(last_unix_ns) >= ? ORDER BY max(last_unix_ns), scope, job"
        )
        found = self._reader.rows(sql, (int(WorkloadKind.SLURM), since_unix_ns)).fetchall()
        return [JobKey(*row) for row in found if cluster is None or row[0] == cluster]

    def summary(self, job: JobKey) -> dict[str, Any]:
        """The document of the job that bore the id last: all its lives, none of an earlier job's."""
        rows = [_Work(*row) for row in self._reader.rows(_WORK, (job.scope, job.kind, job.job))]
        seen = [
            Seen(instance_of(identities_of(w.identities), self._rules), w.restart, w.begun_unix_ns)
            for w in rows
        ]
        works = [rows[i] for i in latest_job(seen)]
        silence = Silence(
            self._owed, {"": works}, self._question.now_unix_ns, self._models, self._question.table
        )
        missing = silence.of("")
        last = max(w.last_unix_ns for w in works)
        dtypes = {w.workload_no: w.dtype for w in works}
        figures = run_figures(self._groups(works), self._models, dtypes, self._question.table, missing)
        return summary_document(
            job_text(job),
            job.job,
            sorted({self._registry.run_of(job, w.step, w.run) for w in works}),
            figures,
            missing,
            state=self._state(last, silent=bool(missing.nodes)),
            restarts=max(w.restart for w in works),
            seen_unix_ns=(min(w.first_unix_ns for w in works), last),
        )

    def _state(self, last_unix_ns: int, *, silent: bool) -> str:
        """Whoever holds the job names it in its next record: when all have told of later time, it is over."""
        if self._told_until is not None and self._told_until <= last_unix_ns:
            return OPEN
        return LATE if silent else COMPLETE

    def _groups(self, works: Sequence[_Work]) -> dict[GroupKey, Sums]:
        sql = f"SELECT {_KEY}, {_SUMS} FROM totals WHERE workload_no = ?"  # noqa: S608
        return {
            GroupKey._make(row[:6]): [int(text) for text in row[6:]]
            for w in works
            for row in self._reader.rows(sql, (w.workload_no,))
        }
