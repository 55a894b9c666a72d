"""`flopmeter collector fsck`: everything in the books that follows from the signed records, derived again.

In order of position, streaming: signatures, hashes, chains, inventories, anchors, then every total, hour,
head, workload, loss, fork and event. The first difference is named exactly, and ends the check.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
from flopmeter.collector.report.queries import Reader, reading
from flopmeter.collector.store.base import Noted
from flopmeter.collector.store.entries import SELECT, entry_rows
from flopmeter.collector.store.forecasts import SELECT as SELECT_FORECASTS
from flopmeter.collector.store.forecasts import forecast_rows
from flopmeter.contract.w_table import current

from .access_check import AccessCheck
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
from .outcome import outcome_document, write_outcome
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


@dataclass(frozen=True, slots=True)
class Found:
    """A difference as it is printed."""

    table: str
    key: str
    column: str
    expected: str
    got: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was checked, and the first difference if there is one."""

    store: str
    records: int
    agents: int
    totals: int
    hours: int
    events: int
    anchor_pairs: int
    entries: int  # of the run registry
    leaves: int  # of the evidence log
    checkpoints: int  # its signed heads
    attestations: int  # rows of records and of statements
    seconds: float
    difference: Found | None
    notes: tuple[str, ...] = ()
    position: int = 0  # of the last record that was read


def check_store(path: Path, regimes: Iterable[Regime], *, progress: Progress | None = None) -> Result:
    """Check the store at `path`, also while a collector writes it. Raises StoreError if it cannot be read."""
    begun = time.perf_counter()
    counts = {
        "records": 0,
        "agents": 0,
        "totals": 0,
        "hours": 0,
        "events": 0,
        "anchor_pairs": 0,
        "entries": 0,
        "leaves": 0,
        "checkpoints": 0,
        "attestations": 0,
        "position": 0,
    }
    notes: list[str] = []
    difference = None
    with reading(path) as reader:
        try:
            _check(reader, tuple(regimes), counts, notes, progress)
        except Difference as d:
            difference = Found(d.table, d.key, d.column, d.expected, d.got)
    return Result(
        str(path), **counts, seconds=time.perf_counter() - begun, difference=difference, notes=tuple(notes)
    )


def _check(
    reader: Reader,
    regimes: tuple[Regime, ...],
    counts: dict[str, int],
    notes: list[str],
    progress: Progress | None,
) -> None:
    db = reader.rows
    stored = stored_books(reader)
    texts, judgements = kept_texts(reader, regimes)
    regimes = tuple(texts.now(judgements))
    books, names, by_no = stored.books, stored.names, stored.books.agents
    counts["agents"] = len(by_no)
    check_retention(reader)
    log = LogCheck(reader)
    index_of = log.index_of if log.sound else None
    access = AccessCheck(reader, index_of)
    counts["attestations"] = check_attestations(reader, index_of)
    models = models_by_no(names.models)
    standings = Standings(books, _said(reader), _applied(reader), models, current())
    judged = [
        JudgedRow(*r)
        for r in db("SELECT regime, digest, w_table, from_position, until_position, from_unix_ns FROM judged")
    ]
    events = EventCheck(
        (
            replace(StoredEvent(*r), logged=r[0] in log.events)
            for r in db(
                "SELECT event_no, id, key, type, subject, time_unix_ns, since_position, position, data FROM events ORDER BY event_no"
            )
        ),
        regimes,
        models,
        current(),
        texts=texts,
        judged=judged,
        heads={a.agent_id.hex(): a for a in by_no.values()},
        standings=standings,
    )
    counts["events"] = len(events.events)
    methods = MethodCheck(events.events, models, current(), standings)
    noted = [Noted(*r) for r in db("SELECT name, value, from_position, from_unix_ns FROM noted")]
    forecasts = ForecastCheck(
        forecast_rows(db(SELECT_FORECASTS)),
        events.events,
        regimes,
        judged=judged,
        applied_unix_ns=dict(reader.rows("SELECT entry_no, from_unix_ns FROM applied")),
        noted=noted,
        models=models,
        table=current(),
        standings=standings,
        texts=texts,
    )
    kept = dict(db("SELECT digest, text FROM texts"))
    capacity = CapacityCheck(events.events, regimes, texts, kept, judged=judged, noted=noted, table=current())
    checks = (
        capacity,
        UnattributedCheck(events.events, nodes_of(names.workloads), noted, models, current()),
        ProgressCheck(events.events, noted, models, current(), standings),
        forecasts,
    )
    _noted(reader, noted, events.events)
    forks = forks_of(reader, by_no)

    whole = reader.rows("SELECT count(*) FROM records").fetchone()[0]
    events.at(0, 0)
    forecasts.at(books)
    for row in db(f"SELECT {RECORD_COLUMNS} FROM records ORDER BY position"):  # noqa: S608
        counts["position"] = row[0]
        books.take(row)
        if (row[2], row[3], bytes(row[6])) in forks:
            raise Difference(
                "conflicts",
                f"agent_no {row[2]}, seq {row[3]}",
                "hash",
                "another than the record's",
                bytes(row[6]),
            )
        access.record(books.position, by_no[row[2]], log.record(books.leaf))
        events.at(books.position, books.received_unix_ns)
        methods.at(books)
        for check in checks:
            check.at(books)
        counts["records"] += 1
        if progress is not None and (counts["records"] % PROGRESS_EVERY == 0 or counts["records"] == whole):
            progress(counts["records"], whole)
    counts["anchor_pairs"] = books.anchors.compared

    counts["entries"] = _entries(reader, books)
    heads_agree(reader, books)
    claims_agree(reader, books)
    models_agree(reader, names)
    workloads_agree(reader, books)
    formerly_agree(reader, books)
    counts["totals"] = compare_sums(
        "totals",
        reader.rows(f"SELECT {_KEY}, {_SUMS} FROM totals ORDER BY {_KEY}"),  # noqa: S608
        books.totals,
        GroupKey._make,
    )
    counts["hours"] = compare_sums(
        "hourly",
        reader.rows(f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly ORDER BY hour, back, {_KEY}"),  # noqa: S608
        books.hourly,
        lambda key: HourKey(Slot(*key[:2]), GroupKey._make(key[2:])),
    )
    fork_keys = {
        f"fork:{by_no[no].agent_id.hex()}:{seq}:{digest.hex()}": f"{by_no[no].name}, seq {seq}"
        for no, seq, digest in sorted(forks)
    }
    fork_keys |= {
        twice_key(
            entity, by_no[one].agent_id, by_no[two].agent_id
        ): f"{by_no[one].name} and {by_no[two].name}"
        for entity, one, two in sorted(books.claims.pairs)
    }
    fork_keys |= {
        fault_key(said): f"what was found in the log, {no}"
        for no, said in reader.rows("SELECT fault_no, said FROM log_faults")
    }
    fork_keys |= access.clone_keys({e.meant for e in events.events})
    events.finish(books.position, books.received_unix_ns, stored.loss_keys, fork_keys)
    check_applied(noted, db("SELECT entry_no, from_position, from_unix_ns FROM applied"))
    methods.finish(books.position)
    for check in checks:
        check.finish(books)
    check_claims(reader.rows(f"SELECT {CLAIM_COLUMNS} FROM progress"), books)  # noqa: S608
    check_flags(events.events, CHECK_PREFIX, check_event, books.flags)
    check_flags(events.events, LOG_PREFIX, contradiction_event, books.contradicted)
    duties = check_duties(reader, events.events, regimes, books)
    check_delivery(reader)
    check_refusals(reader.rows)
    log.finish()
    counts["leaves"], counts["checkpoints"] = log.tree.leaves, log.tree.heads
    notes += log.notes
    check_schema(
        reader
    )  # last: of what somebody got at, the rows say more than the trigger that they dropped
    if events.not_judged:
        notes.append(
            f"runs are not judged by {', '.join(events.not_judged)} (or not by this text of it, or not with this W "
            "table): the collector has not been started with it; its events were not looked for"
        )
    if books.unslotted:
        notes.append(
            f"records before position {stored.slots_from:,} that tell of more than {BRIDGE_S // 60} minutes over several "
            f"hours: {books.unslotted:,}. They stand in the last hour alone, as an older flopmeter put them, and a tag of "
            "that hour takes all of it"
        )
    later = counts["entries"] - max((a.entry_no for a in standings.applied), default=0)
    if later:
        notes.append(f"the last {later} entries were not yet judged by: no collector has committed since")
    if methods.other_tables:
        notes.append(
            f"events of methods that disagree were priced with {', '.join(sorted(methods.other_tables))} and not "
            "derived again"
        )
    if capacity.other_tables:
        notes.append(
            f"events of capacity by {', '.join(sorted(capacity.other_tables))} were not derived again"
        )
    if forecasts.not_priced:
        notes.append(
            f"{forecasts.not_priced} forecasts or plans were priced with another W table, or judged by texts that are "
            "neither here nor kept: their inputs were not derived again"
        )
    if events.unknown_regimes:
        notes.append(
            f"events of {', '.join(sorted(events.unknown_regimes))} were not derived again: the texts that they were "
            "judged by are neither here nor kept in the store (an older flopmeter kept none; --regimes names others)"
        )
    if duties.unknown_texts:
        notes.append(
            f"deadlines of {', '.join(sorted(duties.unknown_texts))} follow from texts that are not known here; they were "
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


def _noted(reader: Reader, noted: list[Noted], events: Iterable[StoredEvent]) -> None:
    db = reader.rows
    check_rules(noted, db("SELECT from_position, from_unix_ns, digest FROM identity_rules"))
    spans = db("SELECT regime, digest, from_position, from_unix_ns, until_position FROM judged")
    check_judged(noted, [JudgedSpan(*row) for row in spans], events)


def result_document(result: Result) -> dict[str, Any]:
    """`fsck --json`."""
    return {"ok": result.difference is None, **asdict(result), "notes": list(result.notes)}


def keep_outcome(result: Result, time: str, version: str) -> bool:
    """Write what it came to beside the store, where this user may. Whether it was written."""
    d = result.difference
    said = None if d is None else f"table {d.table}, {d.key}: {d.column}: expected {d.expected}, got {d.got}"
    document = outcome_document(
        said, time=time, position=result.position, records=result.records, version=version
    )
    return write_outcome(Path(result.store), document)


def result_text(result: Result) -> str:
    """What fsck says to a person."""
    if result.difference is not None:
        d = result.difference
        return (
            f"{result.store}: the books do not follow from the records.\n"
            f"First difference, after {result.records:,} good records: table {d.table}, {d.key}: {d.column}\n"
            f"  expected {d.expected}\n  got      {d.got}\n"
            "What to do: keep this store as evidence; restore a backup, and agents send again what they hold."
        )
    text = (
        f"{result.store}: good. {result.records:,} records of {result.agents:,} agents verified; "
        f"{result.totals:,} totals, {result.hours:,} hourly sums and {result.events:,} events follow from them; "
        f"usage agrees with {result.anchor_pairs:,} pairs of raw counter anchors"
        + (
            f"; {result.entries:,} entries of the run registry are as they were made"
            if result.entries
            else ""
        )
        + (f"; {result.leaves:,} leaves of the evidence log are theirs" if result.leaves else "")
        + (f", under {result.checkpoints:,} signed heads" if result.checkpoints else "")
        + (
            f"; {result.attestations:,} attestations and records are as they were made"
            if result.attestations
            else ""
        )
        + f". {result.seconds:.1f} s."
    )
    return "\n".join((text, *(f"Note: {note}" for note in result.notes)))
