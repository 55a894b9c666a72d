"""What the books name: runs and jobs, as entries refer to them. Pure: rows of the workloads table in."""

from collections.abc import Iterable
from typing import NamedTuple

from flopmeter.collector.errors import EntryRefused
from flopmeter.contract.usage import WorkloadKind

from .checks import Known, KnownJob
from .entries import JobKey
from .state import Registry

#: Columns of the workloads table, in JobRow's order; `run` is what the rules chose.
JOB_COLUMNS = "scope, kind, job, step, run"
_SHOWN = 8


class JobRow(NamedTuple):
    """One workload, as far as entries speak of it."""

    scope: str
    kind: int
    job: str
    step: str
    run: str


def known(rows: Iterable[JobRow], registry: Registry) -> Known:
    """The jobs with their steps and runs, and all runs, with what people assigned."""
    steps: dict[JobKey, set[str]] = {}
    runs: dict[JobKey, set[str]] = {}
    for row in rows:
        if row.kind in (WorkloadKind.IDLE, WorkloadKind.UNATTRIBUTED):
            continue
        key = JobKey(row.scope, row.kind, row.job)
        steps.setdefault(key, set()).add(row.step)
        run = registry.run_of(key, row.step, row.run)
        if run:
            runs.setdefault(key, set()).add(run)
    jobs = {key: KnownJob(frozenset(found), frozenset(runs.get(key, ()))) for key, found in steps.items()}
    return Known(frozenset().union(*runs.values()) if runs else frozenset(), jobs)


def job_text(job: JobKey) -> str:
    """slurm:c1/4711, as a run is called that is one job."""
    return f"{WorkloadKind(job.kind).label}:{job.scope}/{job.job}"


def find_job(text: str, books: Known) -> JobKey:
    """The job that a person names: its id alone where that is enough, else with kind and scope. Raises EntryRefused."""
    found = sorted(key for key in books.jobs if text in (key.job, job_text(key)))
    if len(found) == 1:
        return found[0]
    if found:
        names = [job_text(key) for key in found]
        shown = ", ".join(names[:_SHOWN]) + (
            f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        )
        raise EntryRefused(
            f"job {text!r}: expected one job, got {len(found)} of that id: {shown}",
            f"name it whole: --job {names[0]}",
        )
    import difflib

    near = difflib.get_close_matches(text[:300], sorted({k.job for k in books.jobs}), n=3, cutoff=0.6)
    shown = text if len(text) <= 80 else text[:77] + "..."
    raise EntryRefused(
        f"job {shown!r}: expected a job that the books hold, found none",
        (f"did you mean {', '.join(near)}? Else " if near else "")
        + "`flopmeter runs show RUN --json` names a run's jobs",
    )
