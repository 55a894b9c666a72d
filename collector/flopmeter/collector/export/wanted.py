"""What is asked for, and what is said where there is nothing of it."""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flopmeter.collector.errors import StoreError

if TYPE_CHECKING:
    from flopmeter.collector.report.queries import Reader

    from .whose import Workloads


_SHOWN = 200  # characters of a name; what is near a longer one would be looked for for minutes


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows; "" and None: all."""

    run: str = ""
    tenant: str = ""  # its id, as `flopmeter fleet tenants --json` has it
    since_unix_ns: int | None = None
    until_unix_ns: int | None = None  # the last nanosecond

    def holds(self, unix_ns: int) -> bool:
        """Whether an instant is within the time that is asked for."""
        since, until = self.since_unix_ns, self.until_unix_ns
        return (since is None or unix_ns >= since) and (until is None or unix_ns <= until)


def runs_wanted(reader: "Reader", workloads: "Workloads", wanted: Wanted) -> frozenset[str] | None:
    """The runs whose rows are wanted; None: whatever the row is about. Raises StoreError where there is no such run."""
    if not wanted.run and not wanted.tenant:
        return None
    names = workloads.runs_of(wanted.tenant) if wanted.tenant else frozenset(reader.run_names())
    if not wanted.run:
        return names
    check_run(wanted.run, names)
    return frozenset({wanted.run})


def check_run(run: str, names: frozenset[str]) -> None:
    """Raise StoreError unless `run` is one of `names`: those that whoever asks may see."""
    if run not in names:
        shown = run if len(run) <= _SHOWN else run[:_SHOWN] + "…"
        near = [] if len(run) > _SHOWN else difflib.get_close_matches(run, sorted(names), n=3, cutoff=0.4)
        raise StoreError(
            f"--run {shown}: expected a run in this store, found none of that name",
            f"did you mean {', '.join(near)}?" if near else "`flopmeter runs list` shows them all",
        )


def damaged(what: str, fault: Exception) -> StoreError:
    """A row that no collector has written."""
    return StoreError(
        f"{what}: expected a row of the books, found one that cannot be ({type(fault).__name__}: {fault})",
        "`flopmeter collector fsck` says what is wrong with the store",
    )
