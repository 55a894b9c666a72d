"""`flopmeter collector fsck`: everything in the books that follows from the signed records, derived again.

In order of position, streaming: signatures, hashes, chains, inventories, anchors, then every total, hour,
head, workload, loss, fork and event. The first difference is named exactly, and ends the check.
"""

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.report.queries import reading

from .cell_types import wrong_cell
from .outcome import outcome_document, write_outcome
from .rederive import Difference
from .walk import Counts, Progress, Walk


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
    counts = Counts()
    difference = None
    with reading(path) as reader:
        try:
            walk = Walk(reader, tuple(regimes), counts)
            walk.records(progress)
            walk.sums()
            walk.rest()
        except Difference as d:
            difference = _found(d)
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, sqlite3.Error):
            wrong = wrong_cell(reader)
            if wrong is None:
                raise
            difference = _found(wrong)
    seconds = time.perf_counter() - begun
    looked_at = asdict(counts)
    notes = tuple(looked_at.pop("notes"))
    return Result(str(path), **looked_at, seconds=seconds, difference=difference, notes=notes)


def _found(d: Difference) -> Found:
    return Found(d.table, d.key, d.column, d.expected, d.got)


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
