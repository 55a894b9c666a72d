"""All that the books hold of a run at one position, read once: what an attestation's record is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flopmeter.collector.books import SUM_FIELDS, GroupKey, Sums
from flopmeter.collector.estimate.compare import Agreement, compare
from flopmeter.collector.estimate.declared import Declared
from flopmeter.collector.figures import Model, Priced, tally
from flopmeter.collector.law.events import EVIDENCE_FORK
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.thresholds import current_key
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.lineage import Lineage
from flopmeter.collector.registry.run_books import Member, RunBooks
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.report.coverage_queries import not_heard, taken_over
from flopmeter.collector.report.queries import Asked, Reader
from flopmeter.collector.report.run_figures import RunFigures, run_figures
from flopmeter.collector.report.silence import Silence
from flopmeter.collector.report.unreported import Owed, Unreported, owed, until_unix_ns
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import NoticeKind
from flopmeter.contract.w_table import WTable

from .batches import RunBatches, first_and_last
from .errors import AttestRefused

_SUMS = ", ".join(SUM_FIELDS)
_KEY = ", ".join(GroupKey._fields)
_TOTALS = f"SELECT {_KEY}, {_SUMS} FROM totals WHERE workload_no = ?"  # noqa: S608
_EVENTS = "SELECT event_no, key, type, subject, time_unix_ns, data FROM events ORDER BY event_no"
_DEADLINES = "SELECT regime, min(due_unix_ns) FROM deadlines WHERE subject = ? GROUP BY regime"


@dataclass(frozen=True, slots=True)
class Event:
    """An event, as far as an attestation refers to it."""

    number: int
    key: str
    type: str
    subject: str
    unix_ns: int
    data: str


@dataclass(slots=True)
class Seen:
    """What the run's records show, one after the other."""

    records: int = 0
    first_position: int = 0
    last_position: int = 0
    first_unix_ns: int = 0
    last_unix_ns: int = 0
    gaps: int = 0
    longest_gap_ns: int = 0
    ahead_ns: int = 0  # the most that an agent's clock was ahead of the collector's when its record came
    clock_steps: int = 0
    devices: dict[str, str] = field(default_factory=dict)  # entity -> model
    agents: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Gathered:
    """One run at one state of the books."""

    run: str
    position: int  # of the last record in the books
    document: Mapping[str, Any]  # `runs show --json`, as of the run's last record
    members: Sequence[Member]
    models: Mapping[int, Model]
    table: WTable
    figures: RunFigures
    booked: tuple[Priced, ...]  # one a leaf of the sum tree, in its order
    owed: tuple[Priced, ...]  # the same of silent agents
    unreported: Unreported
    longest_owed_ns: int
    silent_devices: int
    seen: Seen
    agent_ids: Mapping[int, bytes]  # of the run's agents, by number
    silent_ids: tuple[str, ...]  # those of them that are silent now, hex
    owing_ids: tuple[str, ...]  # those whose silence within the run is in its upper bound
    losses: int  # holes in their numbers
    forks: int
    unattributed_upper: int
    not_reporting: int  # devices known to exist that nobody meters
    registry: Registry
    counting: Counting
    events: Sequence[Event]
    due: Mapping[str, int]  # regime -> the first thing due for it, Unix ns
    regimes: tuple[Regime, ...]
    second: tuple[Declared, Figure, Agreement] | None
    now_unix_ns: int

    @property
    def closed(self) -> bool:
        """Whether the run is over as far as anybody can see now, and nobody of it fell silent."""
        return bool(self.document["over"])

    @property
    def first_unix_ns(self) -> int:
        """When the first window with any of its work began: a workload may have been named before."""
        return self.seen.first_unix_ns

    @property
    def last_unix_ns(self) -> int:
        return self.seen.last_unix_ns


def gather(reader: Reader, run: str, question: Asked, estimates: Sequence[Declared] = ()) -> Gathered:
    """All of it. `question.now_unix_ns` is now. Raises AttestRefused where nothing of the run is metered."""
    registry = reader.registry()
    books = RunBooks(reader, registry)
    members = books.members(run)
    if not members:
        raise _nothing(reader, registry, run)
    last = max(m.last_unix_ns for m in members)
    # Nothing is said of time behind the run's last record, so that silence is looked at from there.
    asked = Asked(last, question.regimes, question.table, question.expected, question.modifications)
    document = dict(reader.runs(asked, run)[0])
    document["over"] = reader.runs(question, run)[0]["status"] == "stopped"
    models = reader.models()
    groups = _groups(reader, members)
    if not groups:
        raise _nothing(reader, registry, run)
    owes = _owed_then(reader, members, asked)
    unreported = Silence(owes, {run: [_Work.of(m) for m in members]}, last, models, question.table).of(run)
    dtypes = {m.workload_no: m.dtype for m in members}
    figures = run_figures(groups, models, dtypes, question.table, unreported)
    seen = _seen(reader, members)
    agent_ids = {
        no: bytes(found)
        for no, found in reader.rows("SELECT agent_no, agent_id FROM agents")
        if no in seen.agents
    }
    agents = [a for a in reader.agents() if bytes.fromhex(a.agent_id) in agent_ids.values()]
    events = [
        Event(no, current_key(key, data), kind, subject, at, data)
        for no, key, kind, subject, at, data in reader.rows(_EVENTS)
    ]
    return Gathered(
        run=run,
        position=reader.rows("SELECT coalesce(max(position), 0) FROM records").fetchone()[0],
        document=document,
        members=members,
        models=models,
        table=question.table,
        figures=figures,
        booked=in_order(tally(groups, dtypes).priced(models, question.table), models),
        owed=in_order(unreported.tally.priced(models, question.table), models),
        unreported=unreported,
        longest_owed_ns=max(
            (until_unix_ns(o, last, last) - o.since_unix_ns for o in _of_run(owes, members)), default=0
        ),
        silent_devices=len({(o.node, o.device.entity) for o in _of_run(owes, members)}),
        seen=seen,
        agent_ids=agent_ids,
        silent_ids=tuple(a.agent_id for a in agents if a.status(question.now_unix_ns) == "silent"),
        owing_ids=tuple(a.agent_id for a in agents if a.node in unreported.nodes),
        losses=_count(reader, "SELECT agent_no FROM losses", seen.agents),
        forks=_forks(events, agent_ids, seen),
        unattributed_upper=int(reader.unowned(asked)["unattributed"]["flop"]["upper"]),
        not_reporting=sum(n["gpus"] or 0 for n in reader.fleet(question)["not_reporting"]),
        registry=registry,
        counting=Counting(registry, books.rows, models, question.table, Lineage.of(registry)),
        events=events,
        due=dict(reader.rows(_DEADLINES, (run,))),
        regimes=question.regimes,
        second=_second(figures.booked_flop, run, estimates),
        now_unix_ns=question.now_unix_ns,
    )


def in_order(priced: Sequence[Priced], models: Mapping[int, Model]) -> tuple[Priced, ...]:
    """By what they are, not by the numbers that this store gave to models."""
    return tuple(sorted(priced, key=lambda g: (*models[g.key.model_no], *g.key[1:])))


def first_record_position(reader: Reader, members: Sequence[Member]) -> tuple[int, int]:
    """Positions between which all of the run's records lie."""
    return first_and_last(reader, min(m.first_unix_ns for m in members), max(m.last_unix_ns for m in members))


def _groups(reader: Reader, members: Sequence[Member]) -> dict[GroupKey, Sums]:
    return {
        GroupKey(*row[:6]): [int(text) for text in row[6:]]
        for m in members
        for row in reader.rows(_TOTALS, (m.workload_no,))
    }


@dataclass(frozen=True, slots=True)
class _Work:
    scope: str
    kind: int
    job: str
    last_unix_ns: int

    @classmethod
    def of(cls, m: Member) -> "_Work":
        return cls(m.job.scope, m.job.kind, m.job.job, m.last_unix_ns)


def _owed_then(
    reader: Reader, members: Sequence[Member], asked: Asked
) -> dict[tuple[str, int, str], list[Owed]]:
    late = not_heard(reader.agents(), asked.now_unix_ns)
    gone = {n.name: n.gone_unix_ns for n in asked.expected if n.gone_unix_ns is not None}
    jobs = {(m.job.scope, m.job.kind, m.job.job) for m in members}
    found = owed(late, taken_over(reader.rows, late), gone)
    return {job: held for job, held in found.items() if job in jobs}


def _of_run(owes: Mapping[tuple[str, int, str], list[Owed]], members: Sequence[Member]) -> list[Owed]:
    last: dict[tuple[str, int, str], int] = {}
    for m in members:
        job = (m.job.scope, m.job.kind, m.job.job)
        last[job] = max(last.get(job, 0), m.last_unix_ns)
    return [o for job, held in owes.items() for o in held if last[job] >= o.since_unix_ns]


def _seen(reader: Reader, members: Sequence[Member]) -> Seen:
    seen = Seen()
    for found in RunBatches(reader, (m.workload_no for m in members)).between(
        *first_record_position(reader, members)
    ):
        seen.records += 1
        seen.first_position = seen.first_position or found.position
        seen.last_position = found.position
        begin = found.batch.window_start_unix_ns
        seen.first_unix_ns = min(seen.first_unix_ns or begin, begin)
        seen.last_unix_ns = max(seen.last_unix_ns, found.batch.window_end_unix_ns)
        seen.agents.add(found.agent_no)
        seen.ahead_ns = max(seen.ahead_ns, found.batch.window_end_unix_ns - found.received_unix_ns)
        seen.clock_steps += sum(n.kind == NoticeKind.CLOCK_STEPPED for n in found.batch.notices)
        for u in found.batch.usage:
            if u.workload_index not in found.workload_nos:
                continue
            device = found.inventory.devices[u.entity_index]
            seen.devices[device.entity] = device.name
            if u.evidence_class == EvidenceClass.GAP and u.duration_ns:
                seen.gaps += 1
                seen.longest_gap_ns = max(seen.longest_gap_ns, u.duration_ns)
    if not seen.records:
        raise AttestRefused(
            "records: expected those that the run's totals rest on, found none",
            "see what is wrong with `flopmeter collector fsck`",
        )
    return seen


def _count(reader: Reader, sql: str, agents: set[int]) -> int:
    return sum(no in agents for (no,) in reader.rows(sql))


def _forks(events: Sequence[Event], agent_ids: Mapping[int, bytes], seen: Seen) -> int:
    """Events that tell of two under one name: about an agent of the run, or one of its GPUs."""
    names = [a.hex() for a in agent_ids.values()] + list(seen.devices)
    return sum(
        e.type == EVIDENCE_FORK and any(name in e.subject or name in e.key for name in names) for e in events
    )


def _second(
    measured: Figure, run: str, estimates: Sequence[Declared]
) -> tuple[Declared, Figure, Agreement] | None:
    """The estimate of the whole run that was declared last."""
    mine = [d for d in estimates if d.run == run and d.as_of_unix_ns is None]
    if not mine:
        return None
    last = max(mine, key=lambda d: d.at_unix_ns)
    return last, Figure(last.flop, last.flop, last.flop), compare(measured, last.flop)


def _nothing(reader: Reader, registry: Registry, run: str) -> AttestRefused:
    import difflib

    if run in registry.declared_runs:
        return AttestRefused(
            f"run {run!r}: expected some metered work, found a declaration and nothing else",
            "attest it when its agents have reported: `flopmeter fleet list` shows them",
        )
    near = difflib.get_close_matches(run, reader.run_names(), n=3, cutoff=0.4)
    return AttestRefused(
        f"run {run!r}: expected a run of the books, found none of that name",
        f"did you mean {', '.join(near)}?" if near else "`flopmeter runs list` shows them all",
    )
