"""The read side: straight on the store's file, while a collector writes it and after it has stopped.

Each answer is read in one transaction, so it is one state of the books and never half a commit.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flopmeter.collector.books import SUM_FIELDS, GroupKey, Slot, Sums
from flopmeter.collector.errors import RegistryError, SettingsError, StoreError
from flopmeter.collector.figures import Model
from flopmeter.collector.ingest.decide import scope_of
from flopmeter.collector.ingest.identity import RuleList
from flopmeter.collector.ingest.identity_rules import before_lists, identities_text, of_text
from flopmeter.collector.law.events import to_cloudevent
from flopmeter.collector.law.regimes import MODIFICATION, RUN, Regime, shipped
from flopmeter.collector.law.rules import in_force
from flopmeter.collector.law.thresholds import current_key
from flopmeter.collector.registry.codec import to_entry
from flopmeter.collector.registry.counting import Counting
from flopmeter.collector.registry.entries import JobKey as Job
from flopmeter.collector.registry.shares import Row
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.store.entries import SELECT as SELECT_ENTRIES
from flopmeter.collector.store.entries import entry_rows
from flopmeter.collector.store.formerly import read_formerly
from flopmeter.collector.store.reading import one_state
from flopmeter.collector.store.sqlite import OLD_DATA
from flopmeter.collector.store_path import store_file
from flopmeter.contract.usage import Inventory, Workload
from flopmeter.contract.w_table import WTable, current

from .agent_queries import agents_until, all_agents
from .coverage import NotReporting, coverage_document, not_reporting
from .coverage_queries import booked, known_since, not_heard, taken_over
from .documents import RunRows, WorkloadRow, run_document
from .expected import ExpectedNode
from .fleet import SILENT_AFTER_NS, AgentState, fleet_document
from .inventory import inventory_document
from .progress_queries import claimers, run_progress
from .run_brief import Briefs
from .silence import Silence
from .sites import NO_SITES, Sites
from .unowned import unowned_document
from .unreported import JobKey, Owed
from .unreported import owed as owed_by

# S608: SQL is put together from column names and numbers of this program only; values are bound.
_SUMS = ", ".join(SUM_FIELDS)
_KEY = ", ".join(GroupKey._fields)
_WORKLOADS = (
    f"SELECT run, {', '.join(WorkloadRow._fields[:-1])} FROM workloads WHERE run != '' ORDER BY workload_no"  # noqa: S608
)
_FEW = 1_000  # workloads that a statement names one by one


class RunSide(NamedTuple):
    """All that lines and documents of runs are made of. `counting` asks its reader for work it has not met yet."""

    models: dict[int, Model]
    rows: list[RunRows]
    counting: Counting
    silence: Silence
    faults: Mapping[str, str]  # runs whose totals cannot be read, and why; none where that ends the reading

    def lines(self, question: "Asked") -> Briefs:
        """What makes a line of `runs list` of a run's rows."""
        binding = [r for r in question.regimes if in_force(r, question.now_unix_ns)]
        return Briefs(self.models, question.table, binding, self.counting, self.silence, question.now_unix_ns)


class _Work(NamedTuple):
    run: str
    workload: WorkloadRow


def _by_size(document: Mapping[str, Any]) -> tuple[int, str]:
    return -int(document["executed"]["flop"]["point"]), document["run"]


def _whole(rows: RunRows) -> Iterator[Row]:
    workloads = {w.workload_no: w for w in rows.workloads}
    for key, sums in rows.groups.items():
        w = workloads[key.workload_no]
        yield Row(Job(w.scope, w.kind, w.job), Slot(0), w.dtype, key, sums)


@contextmanager
def reading(path: Path) -> Iterator["Reader"]:
    """One consistent state of the store at `path`. Raises StoreError if it cannot be read."""
    file = store_file(path)
    if not file.is_file():
        raise StoreError(
            f"{file}: expected a store, found no such file",
            "name the collector's store with --store or FLOPMETER_STORE; `flopmeter demo` makes one to look at",
        )
    with one_state(file) as connection:
        yield Reader(connection, file)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is made under: the regimes and the W table, and what "now" is."""

    now_unix_ns: int
    regimes: tuple[Regime, ...]
    table: WTable
    expected: tuple[ExpectedNode, ...] = ()  # the operator's list of nodes
    modifications: tuple[Regime, ...] = ()  # regimes of that scope


def asked(
    now_unix_ns: int, regimes: tuple[Regime, ...] | None = None, expected: tuple[ExpectedNode, ...] = ()
) -> Asked:
    """`regimes` of either scope; None: the shipped ones."""
    every = (*shipped(), *shipped(MODIFICATION)) if regimes is None else regimes
    of_runs = tuple(r for r in every if r.scope == RUN)
    return Asked(
        now_unix_ns, of_runs, current(), expected, tuple(r for r in every if r.scope == MODIFICATION)
    )


def document(store_path: Path, now_unix_ns: int, regimes: tuple[Regime, ...] | None = None) -> dict[str, Any]:
    """`{"runs": [...], "events": [...], "fleet": {...}}`: the whole books, as `demo` and `replay` end with."""
    question = asked(now_unix_ns, regimes)
    with reading(store_path) as reader:
        return {
            "runs": reader.runs(question),
            "events": reader.events(),
            "fleet": reader.fleet(question),
        }


class Reader:
    """Reads of one open transaction. Raises StoreError."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        #: By digest. Whoever reads again and again keeps them: a node's inventory rarely changes.
        self.inventories: dict[bytes, Inventory] = {}

    @property
    def connection(self) -> sqlite3.Connection:
        return self._db

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        """Rows as plain tuples, one after the other (for fsck, which reads everything)."""
        cursor = self._db.cursor()
        cursor.row_factory = None
        return cursor.execute(sql, values)

    def copy_pages(
        self, into: sqlite3.Connection, pages: int, progress: Callable[[int, int, int], object]
    ) -> None:
        """Copy this one state into an empty database, `pages` at a time. Raises sqlite3.Error of either.

        The transaction is open from before the first page to behind the last, so that commits beside it neither wait
        for it nor make it begin anew, as they would a backup that reads without one.
        """
        self.rows("SELECT 1 FROM sqlite_master").fetchone()  # BEGIN alone reads nothing yet
        self._db.backup(into, pages=pages, progress=progress)

    def runs(self, question: Asked, only: str | None = None, *, series: bool = False) -> list[dict[str, Any]]:
        """Run documents, the largest first; `only` one run, `series` with its hourly curve."""
        side = self.run_side(question, only)
        rules = self.identity_rules()
        events: dict[str, list[str]] = {}
        for subject, key, data in self._db.execute(f"SELECT subject, key, {OLD_DATA} FROM events"):  # noqa: S608
            events.setdefault(subject, []).append(current_key(key, data))
        documents = [
            run_document(
                r,
                side.models,
                question.table,
                (*question.regimes, *question.modifications),
                side.counting,
                rules=rules,
                now_unix_ns=question.now_unix_ns,
                raised=frozenset(events.get(r.run, ())),
                silence=side.silence,
                hourly=self.hourly(r.run) if series else None,
            )
            for r in side.rows
        ]
        claimed = claimers(self.rows)
        for r, d in zip(side.rows, documents, strict=True):
            d["progress"] = run_progress(self.rows, r.workloads, claimed, side.models, question.table)
        documents.sort(key=_by_size)
        return documents

    def briefs(self, question: Asked) -> list[dict[str, Any]]:
        """What `runs list` shows of every run, the largest first."""
        side = self.run_side(question)
        lines = side.lines(question)
        documents = [lines.of(r) for r in side.rows]
        documents.sort(key=_by_size)
        return documents

    def run_side(self, question: Asked, only: str | None = None, *, go_on: bool = False) -> "RunSide":
        """What lines and documents of runs are made of; `only`: totals of one alone. `go_on`: totals that are no numbers
        are named in `faults`, and end the reading of no other run.
        """
        models, owed = self.models(), self.owed(question)
        registry = self.registry()
        works = self._works(registry)
        faults: dict[str, str] = {}
        rows = self._run_rows(only, works, faults if go_on else None)
        counting = Counting(registry, self._rows_of(registry, works, rows), models, question.table)
        return RunSide(models, rows, counting, self._silence(question, owed, works, models), faults)

    @staticmethod
    def _silence(
        question: Asked, owed: Mapping[JobKey, list[Owed]], works: list["_Work"], models: Mapping[int, Model]
    ) -> Silence:
        workloads: dict[str, list[WorkloadRow]] = {}
        if owed:
            for run, w in works:
                workloads.setdefault(run, []).append(w)
        return Silence(owed, workloads, question.now_unix_ns, models, question.table)

    def run_names(self) -> list[str]:
        """Every run that anything belongs to, by what people assigned."""
        return sorted({w.run for w in self._works()})

    def models(self) -> dict[int, Model]:
        rows = self._db.execute("SELECT model_no, name, compute_capability FROM models")
        return {no: Model(name, capability) for no, name, capability in rows}

    def registry(self) -> Registry:
        """What people have said of runs. Its chain is fsck's to check."""
        try:
            said = Registry.of(map(to_entry, entry_rows(self.rows(SELECT_ENTRIES, (0,)))))
        except RegistryError as e:
            raise StoreError(f"{self._path}: {e}", e.hint) from e
        return said.knowing(read_formerly(self.rows, said.mentioned))

    def run_of(self, workload: Workload, inventory: Inventory, registry: Registry) -> str:
        """The run of a workload as a batch states it; "" for nobody's, and for one that is not in the books yet."""
        scope = scope_of(workload, inventory)
        w, text = workload, identities_text(workload.identities)
        found = self.rows(
            "SELECT run FROM workloads WHERE scope = ? AND kind = ? AND job = ? AND step = ? AND run_label = ? "
            "AND user = ? AND dtype = ? AND restart = ? AND identities = ?",
            (scope, int(w.kind), w.job, w.step, w.run, w.user, w.dtype, w.restart, text),
        ).fetchone()
        if found is None or not found[0]:
            return ""
        return registry.run_of(Job(scope, int(w.kind), w.job), w.step, found[0])

    def identity_rules(self) -> RuleList:
        """The rules by which workloads are given their runs, as they were noted last."""
        row = self.rows("SELECT text FROM identity_rules ORDER BY from_position DESC LIMIT 1").fetchone()
        try:
            return before_lists() if row is None else of_text(row[0])
        except SettingsError as e:
            raise StoreError(f"{self._path}: {e}", "see what is wrong with `flopmeter collector fsck`") from e

    def counting(self, table: WTable, entries: int | None = None) -> Counting:
        """What counts of any run, by what people said up to that entry (None: up to now)."""
        registry = self.registry()
        if entries is not None:
            registry = Registry.of(registry.entries[:entries], registry.formerly)
        return Counting(registry, self._rows_of(registry, self._works(registry)), self.models(), table)

    def _works(self, registry: Registry | None = None) -> list["_Work"]:
        """Every workload that is somebody's, with the run that it belongs to."""
        registry = self.registry() if registry is None else registry
        found = []
        for row in self.rows(_WORKLOADS):
            chosen, *rest = row
            w = WorkloadRow._make((*rest, 0))
            job = Job(w.scope, w.kind, w.job)
            run = registry.run_of(job, w.step, chosen)
            by = registry.assigned_by(job, w.step) if run != chosen else None
            found.append(_Work(run, w if by is None else w._replace(assigned_by=by.number)))
        return found

    def _run_rows(
        self, only: str | None, works: list["_Work"], faults: dict[str, str] | None = None
    ) -> list[RunRows]:
        runs: dict[str, RunRows] = {}
        run_of: dict[int, str] = {}
        for run, w in works:
            if only is None or run == only:
                runs.setdefault(run, RunRows(run, [], {})).workloads.append(w)
                run_of[w.workload_no] = run
        numbers = f" WHERE workload_no IN ({', '.join(map(str, run_of))})" if len(run_of) < _FEW else ""
        for row in self.rows(f"SELECT {_KEY}, {_SUMS} FROM totals{numbers}"):  # noqa: S608
            mine = run_of.get(row[0])
            if mine is None:
                continue
            try:
                runs[mine].groups[GroupKey(*row[:6])] = [int(text) for text in row[6:]]
            except (ValueError, TypeError) as e:
                if faults is None:
                    raise
                faults[mine] = f"totals: expected numbers, got others: {e}; see `flopmeter collector fsck`"
        return [r for r in runs.values() if not faults or r.run not in faults]

    def _rows_of(
        self, registry: Registry, works: list["_Work"], read: Sequence[RunRows] = ()
    ) -> Callable[[str], Iterator[Row]]:
        """A run's sums as registry.counting asks for them: by hour where the run has tagged spans.

        `read`: runs whose totals are at hand.
        """
        at_hand = {r.run: r for r in read}
        by_run: dict[str, list[WorkloadRow]] = {}
        for run, w in works:
            by_run.setdefault(run, []).append(w)

        def rows(run: str) -> Iterator[Row]:
            by_hour = registry.has_spans(run)
            if not by_hour and run in at_hand:
                yield from _whole(at_hand[run])
                return
            table, slot = ("hourly", "hour, back") if by_hour else ("totals", "0, 0")
            sql = f"SELECT {slot}, {_KEY}, {_SUMS} FROM {table} WHERE workload_no = ?"  # noqa: S608
            for w in by_run.get(run, ()):
                for r in self.rows(sql, (w.workload_no,)):
                    job = Job(w.scope, w.kind, w.job)
                    yield Row(
                        job, Slot(*r[:2]), w.dtype, GroupKey._make(r[2:8]), [int(text) for text in r[8:]]
                    )

        return rows

    def unowned_totals(self) -> Iterator[tuple[int, GroupKey, Sums]]:
        """(workload kind, key, sums) of idle and unattributed time."""
        sql = f"SELECT kind, {_KEY}, {_SUMS} FROM totals JOIN workloads USING (workload_no) WHERE run = ''"  # noqa: S608
        for row in self._db.execute(sql):
            yield row[0], GroupKey(*row[1:7]), [int(text) for text in row[7:]]

    def hourly(self, run: str) -> list[tuple[Slot, str, GroupKey, Sums]]:
        """(slot, declared dtype, key, sums) of one run, by slot."""
        sql = f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly WHERE workload_no = ?"  # noqa: S608
        found = [
            (Slot(*r[:2]), w.dtype, GroupKey._make(r[2:8]), [int(text) for text in r[8:]])
            for name, w in self._works()
            if name == run
            for r in self.rows(sql, (w.workload_no,))
        ]
        return sorted(found, key=lambda row: row[0])

    def events(self, *, after_no: int = 0) -> list[dict[str, Any]]:
        """Every event as CloudEvents, in the order they were raised."""
        rows = self._db.execute("SELECT * FROM events WHERE event_no > ? ORDER BY event_no", (after_no,))
        return [to_cloudevent(dict(row)) for row in rows]

    def fleet(self, question: Asked) -> dict[str, Any]:
        agents, in_books = self.agents(), booked(self.rows)
        missing = self._missing(agents, question)
        now = question.now_unix_ns
        return fleet_document(agents, self.unowned(question), in_books.whole_ns, now_unix_ns=now) | {
            "coverage": coverage_document(in_books, missing),
            "not_reporting": [m.document() for m in missing],
        }

    def inventory(
        self, question: Asked, sites: Sites = NO_SITES, capacities: Sequence[Regime] = ()
    ) -> dict[str, Any]:
        """What the fleet is made of, where it stands, and what `capacities` (regimes with one) say of it."""
        agents = self.agents()
        return inventory_document(
            agents,
            self._missing(agents, question),
            question.table,
            sites=sites,
            regimes=capacities,
            now_unix_ns=question.now_unix_ns,
        )

    def _missing(self, agents: list[AgentState], question: Asked) -> list[NotReporting]:
        now = question.now_unix_ns
        over = taken_over(self.rows, not_heard(agents, now))
        return not_reporting(agents, question.expected, known_since(self.rows, agents), over, now_unix_ns=now)

    def unowned(self, question: Asked) -> dict[str, Any]:
        """Idle and unattributed time of the whole fleet, with its FLOP bounds."""
        return unowned_document(self.unowned_totals(), self.models(), question.table)

    def owed(self, question: Asked) -> dict[JobKey, list[Owed]]:
        """Per job: what agents that are not heard any more last saw it hold."""
        late = not_heard(agents_until(self, question.now_unix_ns - SILENT_AFTER_NS), question.now_unix_ns)
        gone = {n.name: n.gone_unix_ns for n in question.expected if n.gone_unix_ns is not None}
        return owed_by(late, taken_over(self.rows, late), gone)

    def agents(self) -> list[AgentState]:
        """Every admitted agent with its latest record decoded, by node."""
        return all_agents(self)
