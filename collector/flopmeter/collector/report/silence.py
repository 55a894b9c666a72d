"""What silent agents may have done of each run, and so of every run that stands on it. Each is priced once. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from flopmeter.collector.figures import Model
from flopmeter.collector.law.profiles import profile_of
from flopmeter.collector.registry.counting import Counting
from flopmeter.contract.flop import ZERO, Figure, total
from flopmeter.contract.w_table import WTable

from .unreported import NOTHING, JobKey, Owed, Unreported, unreported


class Work(Protocol):
    """A workload, as far as it is asked what it held last."""

    @property
    def scope(self) -> str: ...
    @property
    def kind(self) -> int: ...
    @property
    def job(self) -> str: ...
    @property
    def last_unix_ns(self) -> int: ...


class Behind(NamedTuple):
    """Time of nobody's report that a regime counts of a run and of what it stands on."""

    flop: Figure
    integer_ops: Figure
    ancestors: tuple[str, ...]  # whose agents are silent


class Silence:
    """`workloads` of a run: all that the books hold; asked for only where some agent is silent."""

    def __init__(
        self,
        owed: Mapping[JobKey, list[Owed]],
        workloads: Mapping[str, Sequence[Work]],
        now_unix_ns: int,
        models: Mapping[int, Model],
        table: WTable,
    ) -> None:
        self._owed, self._workloads = owed, workloads
        self._now_unix_ns, self._models, self._table = now_unix_ns, models, table
        self._found: dict[str, tuple[Unreported, Behind]] = {}

    def of(self, run: str) -> Unreported:
        """What the run itself is charged."""
        return self._of(run)[0]

    def behind(self, counting: Counting, run: str, profile_name: str) -> Behind:
        """Of the run itself, and of each run that the profile counts of what it stands on.

        What silent agents did is of no known purpose: of what is counted at all it counts up to its bound.
        """
        if not self._owed:
            return _NOBODY
        names: list[str] = []
        profile = profile_of(profile_name) if counting.lineage.parents(run) else None
        if profile is not None:
            names = [
                r.name
                for r in counting.lineage.ancestors(run, profile)
                if r.ruling.counted and not r.declared and self.of(r.name).duration_ns
            ]
        if not names:
            return self._of(run)[1]
        each = [self._of(name)[1] for name in (run, *names)]
        return Behind(total(b.flop for b in each), total(b.integer_ops for b in each), tuple(names))

    def _of(self, run: str) -> tuple[Unreported, Behind]:
        if not self._owed:
            return NOTHING, _NOBODY
        found = self._found.get(run)
        if found is None:
            mine = self._workloads.get(run, ())
            last = max((w.last_unix_ns for w in mine), default=0)
            charged = unreported(_held(mine, self._owed), last, self._now_unix_ns, self._models)
            flop, integer_ops = charged.tally.figures(self._models, self._table)
            found = self._found[run] = charged, Behind(flop, integer_ops, ())
        return found


_NOBODY = Behind(ZERO, ZERO, ())


def _held(workloads: Iterable[Work], owed: Mapping[JobKey, list[Owed]]) -> list[Owed]:
    """What silent agents last saw a run hold; a job may have left the run before that."""
    last: dict[JobKey, int] = {}
    for w in workloads:
        job = (w.scope, w.kind, w.job)
        last[job] = max(last.get(job, 0), w.last_unix_ns)
    return [o for job in sorted(last) for o in owed.get(job, ()) if last[job] >= o.since_unix_ns]
