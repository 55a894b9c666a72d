"""Deleting a whole store, after everything for which it was kept has ended. Nothing less can be deleted.

Records are chains and every total derives from them: a store without some of its records could not be checked any more
(docs/adr/0010-retention.md). What goes leaves a certificate beside it: what it was, by its hash, and who deleted it.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import RetentionRefused, StoreError
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.spelling import time_text
from flopmeter.collector.store.lock import lock_store
from flopmeter.collector.store.migrate import check
from flopmeter.collector.store.reading import BUSY_TIMEOUT_S
from flopmeter.collector.store.told import told

from .queries import read_kept
from .until import STORE, Reason, first_day, kept_for, standing
from .words import earliest_day

FORMAT = "flopmeter-deletion/1"


@dataclass(frozen=True, slots=True)
class Deleted:
    """What is gone, and where that is written."""

    store: Path
    certificate: Path
    sha256: str


def check_deletable(path: Path, regimes: Sequence[Regime], now_unix_ns: int) -> None:
    """Raise RetentionRefused while anything stands for which the store must be kept, naming it and the first day on
    which it may be deleted; StoreError if what it holds cannot be trusted.
    """
    if path.is_symlink() or path.stat().st_nlink > 1:
        raise RetentionRefused(
            f"{path}: expected the store's only name, got one of several: its bytes would stay under another",
            "name the file itself, and remove its other names first",
        )
    result = check_store(path, regimes)
    if result.difference is not None:
        raise RetentionRefused(
            f"{path}: expected a store whose books follow from its records, got one that does not: what must be kept "
            "cannot be told from it",
            "`flopmeter collector fsck` names the difference; keep it as evidence",
        )
    kept = read_kept(path, regimes)
    reasons = kept_for(STORE, kept.facts, kept.said, kept.regimes)
    left = standing(reasons, earliest_day(now_unix_ns))
    if left:
        raise RetentionRefused(
            f"{path}: expected nothing for which it must be kept, got {len(left)}: {_named(left)}",
            _when(reasons),
        )


def delete_store(path: Path, regimes: Sequence[Regime], *, who: str, why: str, now_unix_ns: int) -> Deleted:
    """Delete the store at `path`, if `check_deletable` has nothing against it and no collector has it open."""
    lock = lock_store(path)
    try:
        with _alone(path) as connection:
            check_deletable(path, regimes, now_unix_ns)
            said = _whole(path, connection) | {"deleted": time_text(now_unix_ns), "who": who, "why": why}
            certificate = path.with_name(f"{path.name}.deleted-{said['sha256'][:16]}.json")
            _write(certificate, said)
            # What is deleted is written down durably before it is: a crash here leaves both, and the same command
            # goes on. A hold that somebody adds meanwhile waits, and then finds no store: it is not told as said.
            for name in (path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm", ".lock"))):
                name.unlink(missing_ok=True)
            _sync_folder(path.parent)
        return Deleted(path, certificate, said["sha256"])
    except OSError as e:
        raise StoreError(f"{path}: cannot delete: {e.strerror}", "check the directory's permissions") from e
    finally:
        os.close(lock)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection while which nobody else can write, to a store that is all in its one file."""
    with told(str(path), "open"):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S)
        connection.isolation_level = None
    try:
        with told(str(path), "read"):
            check(connection, str(path))
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise StoreError(f"{path}: another program reads it", "close it, then delete the store")
            connection.execute("BEGIN IMMEDIATE")
        yield connection
    finally:
        connection.close()


def _whole(path: Path, connection: sqlite3.Connection) -> dict[str, Any]:
    """What the store is: the hash of its file, how much it holds, and the ends of what people said."""
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists() and wal.stat().st_size:
        raise StoreError(f"{path}: another program wrote to it just now", "delete it again")
    with told(str(path), "read"):
        records, position = connection.execute(
            "SELECT count(*), coalesce(max(position), 0) FROM records"
        ).fetchone()
        agents = connection.execute("SELECT count(*) FROM agents").fetchone()[0]
        entry = connection.execute("SELECT hash FROM entries ORDER BY entry_no DESC LIMIT 1").fetchone()
        word = connection.execute("SELECT hash FROM retention ORDER BY said_no DESC LIMIT 1").fetchone()
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return {
        "format": FORMAT,
        "store": path.name,
        "sha256": digest,
        "bytes": str(path.stat().st_size),
        "records": str(records),
        "last_position": str(position),
        "agents": str(agents),
        "last_hashes": {"entries": _hex(entry), "retention": _hex(word)},
    }


def _hex(row: tuple[bytes] | None) -> str | None:
    return None if row is None else bytes(row[0]).hex()


def _write(certificate: Path, said: dict[str, Any]) -> None:
    """Durably and whole, or not at all. The name holds the store's own hash, so it is never that of another store."""
    begun = certificate.with_name(f"{certificate.name}.part")
    with begun.open("w", encoding="utf-8") as f:
        f.write(json.dumps(said, ensure_ascii=False, indent=2) + "\n")
        f.flush()
        os.fsync(f.fileno())
    begun.replace(certificate)
    _sync_folder(certificate.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _named(reasons: Iterable[Reason]) -> str:
    """The one that binds longest, in words."""
    r = next(iter(reasons))
    whose = f"run {r.run}: " if r.run else ""
    return f"{whose}{r.name} ({r.what}; {r.so_far or f'until the day before {r.first_day}'})"


def _when(reasons: Iterable[Reason]) -> str:
    day = first_day(reasons)
    how = "the first day on which it may be is not known" if day is None else f"it may be deleted from {day}"
    return f"{how}; `flopmeter collector retention` has all of them"
