"""Rows of usage: the books by the hour as they are kept, priced so that a run's rows add up to its figures."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from flopmeter.collector.api.tenancy import HIDDEN
from flopmeter.collector.books import HOUR_NS, SUM_FIELDS, GroupKey
from flopmeter.collector.figures import is_others
from flopmeter.collector.registry.when import hour_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import ALL_MEASURED, GapReason, Measured, WorkloadKind

from .columns import Row, Rows
from .prices import Growing
from .wanted import Wanted, check_run, damaged
from .whose import Whose, Workloads

if TYPE_CHECKING:
    from flopmeter.collector.report.queries import Asked, Reader

_KEY = ", ".join(GroupKey._fields)
_SUMS = ", ".join(SUM_FIELDS)
#: In the order of the table, so that nothing is sorted and any number of rows is read in no memory.
_ROWS = f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly{{}} ORDER BY hour, back, {_KEY}"  # noqa: S608
#: Fewer workloads than this are found by their index; then only their rows are sorted.
_FEW = 1_000
UNREPORTED = "unreported"
_MEASURED = {m: m.name.lower().replace("_", "-") for m in Measured if m in ALL_MEASURED and m.name}


def usage_rows(
    reader: "Reader", question: "Asked", wanted: Wanted, seen: Callable[[int], object] = lambda _: None
) -> Rows:
    """Every row, the earliest hour first, then what silent agents owe. `seen` is told of each hour. Raises StoreError."""
    workloads = Workloads(reader)
    models, table = reader.models(), question.table
    asked: frozenset[int] | None = None
    where = ""
    if wanted.run or wanted.tenant:
        asked = frozenset(workloads.numbers(wanted.run, wanted.tenant))
        if wanted.run and not asked:
            check_run(wanted.run, frozenset() if wanted.tenant else frozenset(reader.run_names()))
        if len(asked) < _FEW:
            where = f" WHERE workload_no IN ({', '.join(map(str, sorted(asked)))})"
    growing = Growing(models, table)
    named = workloads.named_to(wanted.tenant) if wanted.tenant else None

    def priced(hour: int, back: int, key: GroupKey, texts: list[str]) -> Row:
        w = workloads.of(key.workload_no)
        sums = [int(text) for text in texts]
        # What nobody declared of time that is nobody's: as `fleet list` prices it.
        flop, ops = growing.add(w.owner, key, w.dtype if w.run else "", sums)
        model = models[key.model_no]
        reason = GapReason(key.gap_reason).label if key.gap_reason else None
        return (
            (hour - back) * HOUR_NS,
            (hour + 1) * HOUR_NS,
            *_named(w if named is None or w.run in named else w._replace(run=HIDDEN)),
            model.name,
            model.compute_capability,
            *_how(key.evidence_class, key.measured, key.spread_ppm, reason),
            *sums,
            *six(flop, ops),
            table.id,
        )

    until = wanted.until_unix_ns
    for hour, back, *rest in reader.rows(_ROWS.format(where)):
        key = GroupKey._make(rest[:6])
        if asked is not None and key.workload_no not in asked:
            continue
        if until is not None and hour * HOUR_NS > until:
            break  # nothing that comes later has anything to do with what came before
        seen(hour)
        try:
            row = priced(hour, back, key, rest[6:])
        except (KeyError, ValueError, TypeError) as e:
            raise damaged(f"hourly sums of {hour_text(hour)}, workload {key.workload_no}", e) from e
        if wanted.holds(hour * HOUR_NS):
            yield row
    yield from _unreported(reader, question, wanted, workloads)


def _named(w: Whose) -> tuple[str | int | None, ...]:
    return (
        w.run or None,
        WorkloadKind(w.kind).label,
        *(text or None for text in (w.scope, w.job, w.step, w.user)),
        w.restart if w.run else None,
        w.dtype or None,
    )


@lru_cache(4096)
def _how(evidence_class: int, measured: int, spread_ppm: int, reason: str | None) -> Row:
    bits = Measured(measured)
    return (
        EvidenceClass(evidence_class).label,
        reason,
        " ".join(name for bit, name in _MEASURED.items() if bit in bits) or None,
        Measured.APPORTIONED in bits,
        is_others(measured),
        spread_ppm,
    )


def six(flop: Figure, ops: Figure) -> tuple[int, ...]:
    return flop.lower, flop.point, flop.upper, ops.lower, ops.point, ops.upper


def _unreported(reader: "Reader", question: "Asked", wanted: Wanted, workloads: Workloads) -> Iterator[Row]:
    """What each run is charged for agents that are silent now: in its upper bound, and in no record."""
    if not wanted.holds(question.now_unix_ns) or not reader.owed(question):
        return
    silence = reader.run_side(question).silence
    names = workloads.runs_of(wanted.tenant) if wanted.tenant else reader.run_names()
    models, table = reader.models(), question.table
    for run in sorted(names):
        missing = silence.of(run)
        if wanted.run not in ("", run) or not missing.duration_ns:
            continue
        for p in missing.tally.priced(models, table):
            model = models[p.key.model_no]
            yield (
                missing.since_unix_ns,
                question.now_unix_ns,
                run,
                *[None] * 7,
                model.name,
                model.compute_capability,
                *_how(p.key.evidence_class, p.key.measured, p.key.spread_ppm, UNREPORTED),
                *p.sums,
                *six(p.flop, p.integer_ops),
                table.id,
            )
