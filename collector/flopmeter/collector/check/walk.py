"""The books derived again, record by record in order of position, and all that is in the store held against them.

Whatever does not follow raises Difference, the first one named exactly; so the order of the checks is part of the answer.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from flopmeter.collector.books import BRIDGE_S, SUM_FIELDS, GroupKey, HourKey, Slot
from flopmeter.collector.law.agent_events import twice_key
from flopmeter.collector.law.cross_check import CHECK_PREFIX, check_event
from flopmeter.collector.law.log_contradiction import LOG_PREFIX, contradiction_event
from flopmeter.collector.law.log_fault import fault_key
from flopmeter.collector.law.progress import CLAIM_COLUMNS
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.registry.chain import check_chain
from flopmeter.collector.registry.checks import Known, KnownJob
from flopmeter.collector.registry.codec import to_entry
from flopmeter.collector.registry.entries import Assign, Entry, External, JobKey
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.base import Noted
from flopmeter.collector.store.entries import SELECT, entry_rows
from flopmeter.collector.store.forecasts import SELECT as SELECT_FORECASTS
from flopmeter.collector.store.forecasts import forecast_rows
from flopmeter.contract.w_table import current

from .access_check import AccessCheck
from .agent_words import agent_words
from .attestation_check import check_attestations
from .capacity_check import CapacityCheck
from .delivery_check import check_delivery
from .duties import check_duties
from .event_check import EventCheck, JudgedRow, StoredEvent, check_flags
from .forecast_check import ForecastCheck
from .kept_rows import (
    claims_agree,
    compare_sums,
    forks_of,
    formerly_agree,
    heads_agree,
    models_agree,
    workloads_agree,
)
from .log_check import LogCheck
from .method_check import MethodCheck
from .noted_check import JudgedSpan, check_applied, check_judged, check_rules
from .progress_check import ProgressCheck, check_claims
from .rederive import RECORD_COLUMNS, Difference, Rederivation, models_by_no
from .refusal_check import check_refusals
from .retention_check import check_retention
from .schema_check import check_schema
from .standings import Applied, Standings
from .stored import stored_books
from .texts import kept_texts
from .unattributed_check import UnattributedCheck, nodes_of

_SUMS = ", ".join(SUM_FIELDS)
_KEY = ", ".join(GroupKey._fields)
PROGRESS_EVERY = 500

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Counts:
    """How much was looked at."""

    records: int = 0
    agents: int = 0
    totals: int = 0
    hours: int = 0
    events: int = 0
    anchor_pairs: int = 0
    entries: int = 0  # of the run registry
    leaves: int = 0  # of the evidence log
    checkpoints: int = 0  # its signed heads
    attestations: int = 0  # rows of records and of statements
    position: int = 0  # of the last record that was read
    notes: list[str] = field(default_factory=list)


class Walk:
    """One check of one state of the store."""

    def __init__(self, reader: Reader, regimes: tuple[Regime, ...], counts: Counts) -> None:
        """What people said, the evidence log and what keeps are looked at here; the records not yet."""
        db = reader.rows
        self._rows, self._reader, self._counts = db, reader, counts
        self._stored = stored = stored_books(reader)
        texts, judgements = kept_texts(reader, regimes)
        self._regimes = regimes = tuple(texts.now(judgements))
        self._books, names, self._agents = stored.books, stored.names, stored.books.agents
        counts.agents = len(self._agents)
        check_retention(reader)
        self._log = log = LogCheck(reader)
        index_of = log.index_of if log.sound else None
        self._access = AccessCheck(reader, index_of)
        counts.attestations = check_attestations(reader, index_of)
        models, table = models_by_no(names.models), current()
        self._standings = standings = Standings(stored.books, _said(reader), _applied(reader), models, table)
        judged = [
            JudgedRow(*r)
            for r in db(
                "SELECT regime, digest, w_table, from_position, until_position, from_unix_ns FROM judged"
            )
        ]
        self._events = events = EventCheck(
            (
                replace(StoredEvent(*r), logged=r[0] in log.events)
                for r in db(
                    "SELECT event_no, id, key, type, subject, time_unix_ns, since_position, position, data FROM events ORDER BY event_no"
                )
            ),
            regimes,
            models,
            table,
            texts=texts,
            judged=judged,
            heads={a.agent_id.hex(): a for a in self._agents.values()},
            standings=standings,
        )
        counts.events = len(events.events)
        self._methods = MethodCheck(events.events, models, table, standings)
        self._noted = noted = [
            Noted(*r) for r in db("SELECT name, value, from_position, from_unix_ns FROM noted")
        ]
        self._forecasts = ForecastCheck(
            forecast_rows(db(SELECT_FORECASTS)),
            events.events,
            regimes,
            judged=judged,
            applied_unix_ns=dict(db("SELECT entry_no, from_unix_ns FROM applied")),
            noted=noted,
            models=models,
            table=table,
            standings=standings,
            texts=texts,
        )
        kept = dict(db("SELECT digest, text FROM texts"))
        self._capacity = CapacityCheck(
            events.events, regimes, texts, kept, judged=judged, noted=noted, table=table
        )
        self._checks = (
            self._capacity,
            UnattributedCheck(events.events, nodes_of(names.workloads), noted, models, table),
            ProgressCheck(events.events, noted, models, table, standings),
            self._forecasts,
        )
        _check_noted(reader, noted, events.events)
        self._forks = forks_of(reader, self._agents)

    def records(self, progress: Progress | None) -> None:
        """Take every record, and look at what should have been raised by it."""
        counts, books = self._counts, self._books
        whole = self._rows("SELECT count(*) FROM records").fetchone()[0]
        self._events.at(0, 0)
        self._forecasts.at(books)
        for row in self._rows(f"SELECT {RECORD_COLUMNS} FROM records ORDER BY position"):  # noqa: S608
            counts.position = row[0]
            books.take(row)
            if (row[2], row[3], bytes(row[6])) in self._forks:
                raise Difference(
                    "conflicts",
                    f"agent_no {row[2]}, seq {row[3]}",
                    "hash",
                    "another than the record's",
                    bytes(row[6]),
                )
            self._access.record(books.position, self._agents[row[2]], self._log.record(books.leaf))
            self._events.at(books.position, books.received_unix_ns)
            self._methods.at(books)
            for check in self._checks:
                check.at(books)
            counts.records += 1
            if progress is not None and (counts.records % PROGRESS_EVERY == 0 or counts.records == whole):
                progress(counts.records, whole)
        counts.anchor_pairs = books.anchors.compared

    def sums(self) -> None:
        """What the records add up to is what the store holds."""
        reader, books, counts = self._reader, self._books, self._counts
        counts.entries = _entries(reader, books)
        heads_agree(reader, books)
        claims_agree(reader, books)
        models_agree(reader, self._stored.names)
        workloads_agree(reader, books)
        formerly_agree(reader, books)
        counts.totals = compare_sums(
            "totals",
            self._rows(f"SELECT {_KEY}, {_SUMS} FROM totals ORDER BY {_KEY}"),  # noqa: S608
            books.totals,
            GroupKey._make,
        )
        counts.hours = compare_sums(
            "hourly",
            self._rows(f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly ORDER BY hour, back, {_KEY}"),  # noqa: S608
            books.hourly,
            lambda key: HourKey(Slot(*key[:2]), GroupKey._make(key[2:])),
        )

    def rest(self) -> None:
        """Events that no record raises by itself, and what follows from events: duties, deliveries, the log's heads."""
        db, books, events, counts = self._rows, self._books, self._events, self._counts
        events.finish(books.position, books.received_unix_ns, self._stored.loss_keys, self._fork_keys())
        check_applied(self._noted, db("SELECT entry_no, from_position, from_unix_ns FROM applied"))
        self._methods.finish(books.position)
        for check in self._checks:
            check.finish(books)
        check_claims(db(f"SELECT {CLAIM_COLUMNS} FROM progress"), books)  # noqa: S608
        check_flags(events.events, CHECK_PREFIX, check_event, books.flags)
        check_flags(events.events, LOG_PREFIX, contradiction_event, books.contradicted)
        duties = check_duties(self._reader, events.events, self._regimes, books)
        check_delivery(self._reader)
        check_refusals(db)
        self._log.finish()
        counts.leaves, counts.checkpoints = self._log.tree.leaves, self._log.tree.heads
        counts.notes += self._log.notes
        counts.notes += agent_words(self._reader, books)
        # Last: of what somebody got at, the rows say more than the trigger that they dropped.
        check_schema(self._reader)
        counts.notes += self._notes(duties.unknown_texts)

    def _fork_keys(self) -> dict[str, str]:
        """Key -> who, of every event of a fork that must be there."""
        agents = self._agents
        keys = {
            f"fork:{agents[no].agent_id.hex()}:{seq}:{digest.hex()}": f"{agents[no].name}, seq {seq}"
            for no, seq, digest in sorted(self._forks)
        }
        keys |= {
            twice_key(
                entity, agents[one].agent_id, agents[two].agent_id
            ): f"{agents[one].name} and {agents[two].name}"
            for entity, one, two in sorted(self._books.claims.pairs)
        }
        keys |= {
            fault_key(said): f"what was found in the log, {no}"
            for no, said in self._rows("SELECT fault_no, said FROM log_faults")
        }
        return keys | self._access.clone_keys({e.meant for e in self._events.events})

    def _notes(self, unknown_texts: Iterable[str]) -> Iterator[str]:
        """What could not be derived again, and why: none of it is a difference."""
        events, counts = self._events, self._counts
        if events.not_judged:
            yield (
                f"runs are not judged by {', '.join(events.not_judged)} (or not by this text of it, or not with this W "
                "table): the collector has not been started with it; its events were not looked for"
            )
        if self._books.unslotted:
            yield (
                f"records before position {self._stored.slots_from:,} that tell of more than {BRIDGE_S // 60} minutes over several "
                f"hours: {self._books.unslotted:,}. They stand in the last hour alone, as an older flopmeter put them, and a tag of "
                "that hour takes all of it"
            )
        later = counts.entries - max((a.entry_no for a in self._standings.applied), default=0)
        if later:
            yield (f"the last {later} entries were not yet judged by: no collector has committed since")
        if self._methods.other_tables:
            yield (
                f"events of methods that disagree were priced with {', '.join(sorted(self._methods.other_tables))} and not "
                "derived again"
            )
        if self._capacity.other_tables:
            yield (
                f"events of capacity by {', '.join(sorted(self._capacity.other_tables))} were not derived again"
            )
        if self._forecasts.not_priced:
            yield (
                f"{self._forecasts.not_priced} forecasts or plans were priced with another W table, or judged by texts that are "
                "neither here nor kept: their inputs were not derived again"
            )
        if events.unknown_regimes:
            yield (
                f"events of {', '.join(sorted(events.unknown_regimes))} were not derived again: the texts that they were "
                "judged by are neither here nor kept in the store (an older flopmeter kept none; --regimes names others)"
            )
        if unknown_texts:
            yield (
                f"deadlines of {', '.join(sorted(unknown_texts))} follow from texts that are not known here; they were "
                "not derived again"
            )


def _said(reader: Reader) -> list[Entry]:
    """What people said, as it was chained."""
    rows = entry_rows(reader.rows(SELECT, (0,)))
    fault = check_chain(rows)
    if fault is not None:
        raise Difference("entries", f"entry_no {fault.number}", fault.column, fault.expected, fault.got)
    return [to_entry(row) for row in rows]


def _applied(reader: Reader) -> list[Applied]:
    return [Applied(*r) for r in reader.rows("SELECT entry_no, from_position FROM applied ORDER BY entry_no")]


def _entries(reader: Reader, books: Rederivation) -> int:
    """What people said is what they said, in that order, and was admissible then; how many entries there are.

    Of runs and jobs that an entry names it is only asked whether the books ever held them: a run that weak evidence
    had named may be gone by now, and one that was named after a model came later.
    """
    runs = set(books.runs)
    jobs: dict[JobKey, set[str]] = {}
    for span in books.spans.values():
        jobs.setdefault(JobKey(*span.job), set()).add(span.step)
    books_known = Known(runs, {job: KnownJob(steps, runs) for job, steps in jobs.items()})
    given: list[str] = []

    def known(e: Entry) -> Known | None:
        runs.update(given)  # a run that a job was assigned to is one, whatever became of its declaration
        given[:] = [e.statement.run] if isinstance(e.statement, Assign) else []
        return None if isinstance(e.statement, External) else books_known

    rows = entry_rows(reader.rows(SELECT, (0,)))
    fault = check_chain(rows, known)
    if fault is not None:
        raise Difference("entries", f"entry_no {fault.number}", fault.column, fault.expected, fault.got)
    return len(rows)


def _check_noted(reader: Reader, noted: list[Noted], events: Iterable[StoredEvent]) -> None:
    db = reader.rows
    check_rules(noted, db("SELECT from_position, from_unix_ns, digest FROM identity_rules"))
    spans = db("SELECT regime, digest, from_position, from_unix_ns, until_position FROM judged")
    check_judged(noted, [JudgedSpan(*row) for row in spans], events)
