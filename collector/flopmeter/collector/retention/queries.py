"""What keeping depends on, read from a store; and a person's word on it, appended."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from flopmeter.collector.check.rederive import Difference
from flopmeter.collector.check.texts import kept_texts
from flopmeter.collector.errors import RetentionRefused, StoreError
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.registry.codec import to_entry
from flopmeter.collector.registry.lineage import Lineage
from flopmeter.collector.registry.say import read_registry
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.report.queries import Reader, reading
from flopmeter.collector.store.appending import Execute
from flopmeter.collector.store.entries import SELECT as SELECT_ENTRIES
from flopmeter.collector.store.entries import entry_rows
from flopmeter.collector.store.retention import SELECT, SqliteRetention, said_rows
from flopmeter.collector.store_path import store_file

from .until import Facts, Incident, Unresolved
from .words import RELEASE, Said, SaidRow, check_chain, check_release, next_row, said_of

#: Events that say of a run that it met a regime's line, may have, or will.
NEAR = ("threshold.crossed", "threshold.undetermined", "threshold.forecast", "plan.exceeds")
_RUNS = "SELECT run, max(last_unix_ns) FROM workloads WHERE run != '' GROUP BY run"
_NEAR = f"SELECT subject, data FROM events WHERE type IN ({', '.join('?' * len(NEAR))})"  # noqa: S608
_LAST = "SELECT coalesce(max(received_unix_ns), 0) FROM records"
_INCIDENTS = "SELECT regime, subject, trigger_unix_ns FROM deadlines WHERE event_no IS NULL"
_UNRESOLVED = """
    SELECT deadline_no, subject, regime || ': ' || what FROM deadlines WHERE deadline_no NOT IN (
        SELECT number FROM answers WHERE state = 'resolved' AND answer_no IN (
            SELECT max(answer_no) FROM answers WHERE about IN ('deadline', 'incident') GROUP BY number))"""


class Kept(NamedTuple):
    """All that says until when something is kept."""

    facts: Facts
    said: Said
    regimes: tuple[Regime, ...]


def read_kept(path: Path, regimes: Sequence[Regime]) -> Kept:
    """What the store at `path` says. Raises StoreError where its words on keeping do not hold, or a regime that it is
    judged by is neither here nor kept there: a duty that is not looked at is not one that has ended.
    """
    with reading(path) as reader:
        rows = said_rows(reader.rows(SELECT))
        fault = check_chain(rows)
        if fault is not None:
            raise StoreError(
                f"word {fault.number} on keeping: expected what was said then, got something else: it was altered",
                "keep this store as evidence; `flopmeter collector fsck` names the difference; restore a backup",
            )
        return Kept(_facts(reader), said_of(rows), (*regimes, *_judged_by(reader, regimes)))


def _judged_by(reader: Reader, regimes: Sequence[Regime]) -> list[Regime]:
    """What the collector judges by, as its files were then, where that is not among `regimes`: who asks with other files
    shortens no term by it.
    """
    here = {(r.id, r.digest) for r in regimes}
    try:
        texts, judged = kept_texts(reader, regimes)
    except Difference as e:
        raise StoreError(
            f"{e.table}, {e.key}: expected the text of a law that this store was judged by, got another",
            "keep this store as evidence; `flopmeter collector fsck` names the difference; restore a backup",
        ) from e
    found = []
    for row in judged:
        if row.until_position is not None:
            continue
        regime = texts.find(row.regime, row.text)
        if regime is None and row.regime not in {id_ for id_, _ in here}:
            raise StoreError(
                f"regime {row.regime}: expected its file, which says what must be kept; this store is judged by it",
                "name the directory that holds it with --regimes",
            )
        if regime is not None and (regime.id, regime.digest) not in here:
            found.append(regime)
    return found


def _facts(reader: Reader) -> Facts:
    registry = read_registry(reader)
    runs: dict[str, int] = dict.fromkeys(registry.declared_runs, 0)
    runs |= {run: last or 0 for run, last in reader.rows(_RUNS)}
    lineage = Lineage.of(registry)
    children: dict[str, set[str]] = {}
    for run in runs.keys() | {link.run for link in registry.links}:
        for link in lineage.parents(run):
            children.setdefault(link.parent, set()).add(run)
    near = {(str(json.loads(data).get("regime")), run) for run, data in reader.rows(_NEAR, NEAR)}
    ((last,),) = reader.rows(_LAST)
    return Facts(
        runs,
        last,
        frozenset(near),
        tuple(Incident(*r) for r in reader.rows(_INCIDENTS)),
        tuple(Unresolved(*r) for r in reader.rows(_UNRESOLVED)),
        children,
    )


def say(
    path: Path, kind: str, run: str, value: str, *, who: str, why: str, unix_ns: Callable[[], int]
) -> SaidRow:
    """Append a person's word to the store at `path`. Raises RetentionError or StoreError; then nothing was said."""

    def make(ask: Execute, before: list[SaidRow], position: int) -> SaidRow:
        last = before[-1] if before else None
        row = next_row(last, position, kind, run, value, who=who, why=why, unix_ns=unix_ns())
        if kind == RELEASE:
            check_release(said_of(before), int(value))
        if run and not _known(ask, run):
            raise RetentionRefused(
                f"run {run}: expected one of this store, found none of that name",
                "`flopmeter runs list` has them",
            )
        return row

    with SqliteRetention(store_file(path)) as log:
        return log.append_said(make)


def _known(ask: Execute, run: str) -> bool:
    if ask("SELECT 1 FROM workloads WHERE run = ? LIMIT 1", (run,)).fetchone():
        return True
    entries = entry_rows(ask(SELECT_ENTRIES, (0,)).fetchall())
    return run in Registry.of(map(to_entry, entries)).declared_runs
