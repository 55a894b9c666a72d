"""One state of the store, page by page, beside a collector that goes on writing; then read back and checked."""

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.check.log_walk import LogTree, walk_log
from flopmeter.collector.check.rederive import Difference
from flopmeter.collector.errors import BackupRefused, StoreError
from flopmeter.collector.report.queries import Reader, reading
from flopmeter.collector.store.migrate import check
from flopmeter.collector.store.reading import BUSY_TIMEOUT_S
from flopmeter.collector.store.told import told

from .ends import ends_of
from .place import KEYS, copy_keys, whole_or_not

#: Pages of 4 KiB that are copied between two words on progress: 4 MiB, some 10 ms of a disk.
STEP_PAGES = 1_000
_WRITING = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE")

#: (what is being done, done, of how many)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """What was written, and the state of the books that it is."""

    store: Path
    file: Path
    keys: Path | None
    key_files: tuple[str, ...]
    size_bytes: int
    sha256: str
    ends: dict[str, int]  # table -> its last number
    leaves: int  # of its evidence log
    heads: int  # … and the signed heads that hold them


def back_up(
    store: Path, target: Path, *, keys: Path | None = None, progress: Progress | None = None
) -> Backup:
    """Copy the store to `target`, and the folder `keys` beside it if it is named. Raises StoreError, BackupRefused.

    The state is that of one instant, after whole commits. Those that come while it is copied are not held up by it; the
    store's -wal grows by them.
    """
    say = progress or (lambda _what, _done, _whole: None)
    with whole_or_not(target, store) as partial:
        with _carried_over(store), reading(store) as reader:
            _copy(reader, partial, say)
            ends = ends_of(reader.rows)
        log = _check_copy(partial, ends, say)
        kept = target.with_name(target.name + KEYS) if keys is not None else None
        key_files = copy_keys(keys, kept) if keys is not None and kept is not None else []
        with partial.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        size = partial.stat().st_size
    return Backup(store, target, kept, tuple(key_files), size, digest, ends, log.leaves, log.heads)


@contextlib.contextmanager
def _carried_over(store: Path) -> Iterator[None]:
    """Afterwards the pages that waited in the -wal while they were read are carried into the store, by this process.

    Left to the collector, its next commit would carry all of them at once: some seconds a GB. Open before the reading
    ends, so that ours comes first; where this user may not write, the collector does it.
    """
    connection = None
    if store.with_name(f"{store.name}-wal").exists():
        with contextlib.suppress(sqlite3.Error):
            connection = sqlite3.connect(
                f"{store.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S
            )
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    try:
        yield
    finally:
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            connection.close()


def _copy(reader: Reader, partial: Path, say: Progress) -> None:
    into = sqlite3.connect(partial, isolation_level=None)
    try:
        # No journal and no fsync of SQLite's: the file is nobody's until it is whole, and is flushed as a whole.
        into.execute("PRAGMA journal_mode = OFF")
        into.execute("PRAGMA synchronous = OFF")
        reader.copy_pages(into, STEP_PAGES, lambda _status, left, whole: say("copied", whole - left, whole))
    except sqlite3.Error as e:
        if not e.sqlite_errorname.startswith(_WRITING):
            raise  # of the store: `reading` says so
        raise StoreError(
            f"{partial}: cannot write: {e}", "free space on its file system, or name another"
        ) from e
    finally:
        into.close()


def _check_copy(partial: Path, ends: dict[str, int], say: Progress) -> LogTree:
    """The copy opens, is sound, and holds what the store held; its log, of which every signed head is the root.

    Raises BackupRefused, StoreError.

    Read as it lies there: immutable, so that nothing is written beside it.
    """
    with (
        told(str(partial), "read"),
        contextlib.closing(
            sqlite3.connect(f"{partial.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as db,
    ):
        check(db, str(partial))
        ((sound,),) = db.execute("PRAGMA integrity_check(1)").fetchall()
        if sound != "ok":
            raise _unsound(f"a sound SQLite file, got {sound}")
        if (got := ends_of(db.execute)) != ends:
            raise _unsound(f"the last numbers {ends}, got {got}")
        whole = ends["records"]
        for number, (position, digest, record) in enumerate(
            db.execute("SELECT position, hash, record FROM records ORDER BY position"), 1
        ):
            if position != number or hashlib.sha256(record).digest() != digest:
                raise _unsound(f"record {number} with bytes of its hash, got another at position {position}")
            if number % STEP_PAGES == 0 or number == whole:
                say("checked", number, whole)
        try:
            return walk_log(db.execute)
        except Difference as d:
            raise _unsound(
                f"an evidence log of which {d.table}, {d.key}: {d.column} is {d.expected}, got {d.got}"
            ) from d


def _unsound(what: str) -> BackupRefused:
    return BackupRefused(
        f"the copy: expected {what}",
        "`flopmeter collector fsck` says whether the store itself is damaged; if it is, keep its files as evidence, by "
        "an ordinary copy while no collector runs",
    )
