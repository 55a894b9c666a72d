"""What the workloads of one scheduler's job share. Pure.

Weak evidence comes first, better later: rows that were booked by a weaker rule then go to the run that the stronger
one chose. A requeued job is submitted anew under its old id (reference/deploy.md 1.4; seen with Slurm 22.05), and is
the run that it was; another job that got the id when ids began again is not.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from flopmeter.contract.identity import Identities

from .identity import INHERITED, RuleList

#: Rows of one id that are further apart are of two jobs, whatever is not known of them: schedulers' ids begin again
#: after months (Slurm: at MaxJobId), and few clusters let a job wait and run for so long.
ONE_JOB_WITHIN_NS = 60 * 86_400 * 1_000_000_000

Instance = tuple[str, ...]


def instance_of(identities: Identities | Mapping[str, str], rules: RuleList) -> Instance:
    """Which submission of a job a row is of: its values of `rules.apart`, "" where not seen."""
    seen = dict(identities)
    return tuple([seen.get(name, "") for name in rules.apart])


class Row(NamedTuple):
    """One workload of a job: the run that it is booked under, and the rule behind that."""

    workload_no: int
    run: str
    rule: str


class Moved(NamedTuple):
    """A workload that goes to another run, or under a stronger rule's name, than it was booked under."""

    workload_no: int
    run: str
    rule: str
    was: str  # the run before


class Seen(NamedTuple):
    """What tells rows of one id apart."""

    instance: Instance
    restart: int  # how often the scheduler had started the job again
    begun_unix_ns: int  # start of the window that named the row first


class _Alike(NamedTuple):
    """Rows that nothing tells apart but their number and time share one of these."""

    instance: Instance
    restart: int
    run: str
    rule: str


class JobRows:
    """The workloads of one job id, as they came. `add` says how a new one stands, and which earlier ones it takes along.

    A row stands under its own choice; unless a row of the same job has one by a stronger rule, then under the first of
    the strongest; or it is of another life of a job that the same rule gave a run before, then under that run.
    """

    __slots__ = ("_rank", "_rows")

    def __init__(self, rank: Callable[[str], int | None]) -> None:
        self._rank = rank
        self._rows: dict[_Alike, list[tuple[int, int]]] = {}  # workload_no, begun_unix_ns; by number

    def know(self, row: Row, seen: Seen) -> None:
        """A row as it stands in the books; in the order of workload_no."""
        alike = _Alike(seen.instance, seen.restart, row.run, row.rule)
        self._rows.setdefault(alike, []).append((row.workload_no, seen.begun_unix_ns))

    def add(self, row: Row, seen: Seen) -> tuple[Row, list[Moved]]:
        """A new row, with what the rules chose for it alone."""
        own = self._rank(row.rule)
        assert own is not None, f"rule {row.rule} is of another list"
        known = self._one_job(seen)
        best = min(known, key=lambda alike: known[alike], default=None)
        moved: list[Moved] = []
        if best is not None and known[best][0] < own:
            row = row._replace(run=best.run, rule=best.rule.removesuffix(INHERITED) + INHERITED)
        else:
            row = row._replace(run=self._earlier_run(row, seen, known))
            for alike in [alike for alike, (rank, _) in known.items() if rank > own]:
                moved += self._move(alike, row, seen.begun_unix_ns)
        self.know(row, seen)
        return row, sorted(moved)

    def _one_job(self, seen: Seen) -> dict[_Alike, tuple[int, int]]:
        """Rows of the new one's job: the rank of their rule, and the number of the first of them."""
        began = {alike.instance for alike in self._rows if not alike.restart}
        if not seen.restart:
            began.add(seen.instance)
        found = {}
        for alike, rows in self._rows.items():
            rank = self._rank(alike.rule)
            if rank is not None and _one_job(alike, seen, began):
                first = next((number for number, begun in rows if _near(begun, seen)), None)
                if first is not None:
                    found[alike] = rank, first
        return found

    def _earlier_run(self, row: Row, seen: Seen, known: Mapping[_Alike, tuple[int, int]]) -> str:
        """The run that the same rule gave the job's other lives: its own name of it may have the submission in it."""
        lives = [
            alike for alike in known if alike.rule == row.rule and _differ(alike.instance, seen.instance)
        ]
        same = [alike for alike in known if alike.rule == row.rule and alike.instance == seen.instance]
        if not lives:
            return row.run
        return min(same or lives, key=lambda alike: known[alike]).run

    def _move(self, alike: _Alike, to: Row, unix_ns: int) -> list[Moved]:
        stay = [r for r in self._rows[alike] if abs(r[1] - unix_ns) > ONE_JOB_WITHIN_NS]
        go = [r for r in self._rows[alike] if abs(r[1] - unix_ns) <= ONE_JOB_WITHIN_NS]
        del self._rows[alike]
        if stay:
            self._rows[alike] = stay
        now = alike._replace(run=to.run, rule=to.rule + INHERITED)
        self._rows[now] = sorted(self._rows.get(now, []) + go)
        return [Moved(number, now.run, now.rule, alike.run) for number, _ in go]


def latest_job(rows: Sequence[Seen]) -> list[int]:
    """Which rows of one id, by index, are of the same job as the one that began last: its lives, and no earlier job."""
    last = max(rows, key=lambda row: row.begun_unix_ns)
    began = {row.instance for row in rows if not row.restart}
    return [i for i, row in enumerate(rows) if _near(row.begun_unix_ns, last) and _one_job(row, last, began)]


def _near(begun_unix_ns: int, seen: Seen) -> bool:
    return abs(begun_unix_ns - seen.begun_unix_ns) <= ONE_JOB_WITHIN_NS


def _differ(one: Instance, other: Instance) -> bool:
    """Whether both are known, and are two submissions."""
    return any(a != b and a and b for a, b in zip(one, other, strict=True))


def _one_job(alike: _Alike | Seen, seen: Seen, began: AbstractSet[Instance]) -> bool:
    """Whether two submissions of one id are of one job: a requeue raises the restart count, and nothing `began` between."""
    if not _differ(alike.instance, seen.instance):
        return True
    lives = (_order(alike.instance), alike.restart), (_order(seen.instance), seen.restart)
    (first, before), (last, after) = sorted(lives)
    return before < after and not any(first < _order(i) <= last for i in began)


def _order(instance: Instance) -> tuple[tuple[int, str], ...]:
    """Decimal numbers by their size: submissions are told apart by when they were made."""
    return tuple([(len(value), value) for value in instance])
