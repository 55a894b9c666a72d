"""Where a copy is written: under its name only when it is whole, and never over what is there."""

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from flopmeter.collector.errors import BackupRefused, StoreError

#: What is not whole yet ends in this; a backup that was killed leaves one, and the next of its folder removes it.
PARTIAL = ".partial"
#: Beside a copy with private keys: a folder of this ending, for its owner only.
KEYS = ".keys"
#: What a file system without hard links answers to one: FAT, some network file systems.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def target_of(given: Path, store: Path, unix_ns: int) -> Path:
    """The file that `-o` names: it, or in a folder one that is named after the store and the time (UTC, to the ms)."""
    if not given.is_dir():
        return given
    at = datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC)
    ms = unix_ns // 1_000_000 % 1_000
    return given / f"{store.stem}-{at:%Y%m%dT%H%M%S}{ms:03}Z{store.suffix}"


@contextlib.contextmanager
def whole_or_not(target: Path, store: Path) -> Iterator[Path]:
    """An empty file beside `target` to write into; when the block ends well it is durable and has that name.

    Raises BackupRefused if something is there, or another backup writes into that folder; StoreError.
    """
    folder, partial = target.parent, target.with_name(target.name + PARTIAL)
    for ending in ("", "-wal", "-journal"):  # SQLite would take an old journal of that name for the copy's
        refuse_taken(target.with_name(target.name + ending))
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise StoreError(
            f"{folder}: cannot open: {e.strerror}", "name a file in a folder that is there"
        ) from e
    try:
        _alone(lock, folder)
        _clear(folder, target, store)
        try:
            os.close(
                os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            )
            yield partial
            sync(partial)
            _name(partial, target)
            os.fsync(
                lock
            )  # D2: the copy is durable under its name; a crash before this leaves at most a partial
        except OSError as e:
            raise StoreError(
                f"{target}: cannot write: {e.strerror}", "check the folder's free space and permissions"
            ) from e
        finally:
            partial.unlink(missing_ok=True)
    finally:
        os.close(lock)


def refuse_taken(path: Path) -> None:
    """Raises BackupRefused if anything has that name."""
    if os.path.lexists(path):
        raise BackupRefused(
            f"{path}: expected a name that nothing has yet, found a file of it",
            "a backup never overwrites: name another file, or a folder, in which each gets its own name",
        )


def sync(path: Path) -> None:
    """Flush a file or a folder to its disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_keys(keys: Path, into: Path) -> list[str]:
    """Copy the private keys' folder, files only; their names. Raises StoreError, BackupRefused."""
    refuse_taken(into)
    begun = into.with_name(into.name + PARTIAL)
    names = []
    try:
        begun.mkdir(mode=0o700)
        for key in sorted(keys.iterdir()):
            if key.is_dir() and not key.is_symlink():
                continue
            source = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(source, "rb") as f:
                if not stat.S_ISREG(os.fstat(source).st_mode):
                    continue
                raw = f.read()
            made = os.open(begun / key.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(made, "wb") as f:
                f.write(raw)
                f.flush()
                os.fsync(made)
            names.append(key.name)
        sync(begun)
        begun.rename(into)
        sync(into.parent)
    except OSError as e:
        _remove_folder(begun)
        raise StoreError(
            f"{e.filename or into}: cannot copy the keys: {e.strerror}",
            "run it as the collector's user, or root",
        ) from e
    return names


def _alone(folder_handle: int, folder: Path) -> None:
    """One backup a folder at a time, so that an unfinished one that is found there is nobody's."""
    try:
        fcntl.flock(folder_handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise BackupRefused(
            f"{folder}: another backup is being written into it", "wait until it has ended"
        ) from e
    except OSError:  # a network file system without this lock: then it is only not cleared of what was killed
        return


def _clear(folder: Path, target: Path, store: Path) -> None:
    """Remove what backups of this store left unfinished when they were killed."""
    timed = re.compile(
        rf"{re.escape(store.stem)}-\d{{8}}T\d{{9}}Z{re.escape(store.suffix)}({re.escape(KEYS)})?{re.escape(PARTIAL)}"
    )
    mine = {target.name + PARTIAL, target.name + KEYS + PARTIAL}
    for path in folder.iterdir():
        if path.name in mine or timed.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                _remove_folder(path)
            else:
                path.unlink(missing_ok=True)


def _remove_folder(path: Path) -> None:
    """A folder that copy_keys began: files only."""
    with contextlib.suppress(OSError):
        for file in path.iterdir():
            file.unlink(missing_ok=True)
        path.rmdir()


def _name(partial: Path, target: Path) -> None:
    """Give it its name, unless something has that name by now."""
    try:
        os.link(partial, target, follow_symlinks=False)
    except FileExistsError:
        refuse_taken(target)
        raise
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        refuse_taken(target)
        partial.rename(target)
