"""Names that work was once booked under, as the writer and the reports read them: one way for both."""

from collections.abc import Iterable

from flopmeter.collector.registry.entries import JobKey
from flopmeter.collector.registry.formerly import Once, formerly

from .reading import Rows

#: More names than these are picked out of all rows; fewer are looked up one by one.
FEW_NAMES = 500
_LOST = "SELECT DISTINCT run FROM formerly WHERE run = ?"
_ALL_LOST = "SELECT DISTINCT run FROM formerly"
_ROWS = """
    SELECT scope, kind, job, step, workloads.run FROM formerly JOIN workloads USING (workload_no)
        WHERE formerly.run = ?1
    UNION SELECT scope, kind, job, step, run FROM workloads WHERE run = ?1"""


def read_formerly(rows: Rows, names: Iterable[str]) -> dict[str, tuple[Once, ...]]:
    """Of `names`, those that some work has lost, with where it is."""
    asked = {*names}
    if len(asked) > FEW_NAMES:
        lost = asked & {run for (run,) in rows(_ALL_LOST, ())}
    else:
        lost = {name for name in asked for _ in rows(_LOST, (name,))}
    return formerly(
        sorted(lost),
        lambda name: (
            Once(JobKey(scope, kind, job), step, run) for scope, kind, job, step, run in rows(_ROWS, (name,))
        ),
    )
