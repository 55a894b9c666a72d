"""How a person's word gets into the store: read what holds, check, append; again if somebody else was quicker."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.errors import EntryRefused, StoreChangedError, StoreError
from flopmeter.collector.report.queries import Reader, reading
from flopmeter.collector.store.base import LastEntry
from flopmeter.collector.store.entries import SELECT, SqliteEntries, entry_rows
from flopmeter.collector.store.formerly import read_formerly

from .checks import Known, check_entry
from .codec import EntryRow, entry_hash, to_entry, to_row
from .entries import Entry, Statement
from .known import JOB_COLUMNS, JobRow, known
from .state import Registry

#: Two people's commands meet within milliseconds; ten in a row is a program that never lets go.
TRIES = 10

#: What is to be said, once it is known what holds.
Make = Callable[[Known], Statement]


class Said(NamedTuple):
    """A statement, by whom and why."""

    statement: Statement
    who: str
    why: str


class _Overtaken(Exception):  # noqa: N818
    """Another entry was appended since the registry was read."""


def read_registry(reader: Reader) -> Registry:
    """The registry in a store. Raises StoreError where its chain does not hold: nothing may be built on that."""
    rows = entry_rows(reader.rows(SELECT, (0,)))
    said = Registry.of(_checked(rows))
    return said.knowing(read_formerly(reader.rows, said.mentioned))


def read_known(reader: Reader, registry: Registry) -> Known:
    """What the store's books name."""
    rows = reader.rows(f"SELECT DISTINCT {JOB_COLUMNS} FROM workloads")  # noqa: S608
    return known(map(JobRow._make, rows), registry)


def say(path: Path, make: Make, who: str, why: str, unix_ns: Callable[[], int]) -> Entry:
    """Append what `make` returns to the store at `path`. Raises RegistryError or StoreError; then nothing was said."""
    for _ in range(TRIES):
        try:
            with reading(path) as reader:
                registry = read_registry(reader)
                books = read_known(reader, registry)
        except StoreChangedError:  # somebody else's command, or a collector that starts
            continue
        statement = make(books)
        with SqliteEntries(path) as log:
            try:
                return to_entry(log.append_entry(_next(registry, books, Said(statement, who, why), unix_ns)))
            except _Overtaken:
                continue
    raise EntryRefused(
        f"entry: {TRIES} times somebody else made an entry first",
        "another program makes entries without end: stop it",
    )


def _next(
    registry: Registry, books: Known, said: Said, unix_ns: Callable[[], int]
) -> Callable[[LastEntry], EntryRow]:
    def make(last: LastEntry) -> EntryRow:
        if last.entry_no != len(registry.entries):
            raise _Overtaken
        entry = Entry(last.entry_no + 1, unix_ns(), last.position, said.who, said.why, said.statement)
        check_entry(registry, entry, books)
        return to_row(entry, last.hash)

    return make


def draft(registry: Registry, books: Known, said: Said, unix_ns: int) -> Entry:
    """The entry that `say` would append, checked, and not appended."""
    last = registry.entries[-1] if registry.entries else None
    position = 0 if last is None else last.position
    entry = Entry(len(registry.entries) + 1, unix_ns, position, said.who, said.why, said.statement)
    check_entry(registry, entry, books)
    return entry


def _checked(rows: Sequence[EntryRow]) -> Iterator[Entry]:
    prev_hash = NO_HASH
    for number, row in enumerate(rows, 1):
        entry = to_entry(row)
        if (row.entry_no, row.prev_hash) != (number, prev_hash) or row.hash != entry_hash(prev_hash, entry):
            raise StoreError(
                f"entry {number} of the run registry: expected what was said then, got something else: it was altered",
                "keep this store as evidence; `flopmeter collector fsck` names the difference; restore a backup",
            )
        prev_hash = row.hash
        yield entry
