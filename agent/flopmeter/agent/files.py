"""File operations whose durability matters: each says what a crash leaves."""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
from pathlib import Path

from .errors import SpoolError, SpoolFullError

log = logging.getLogger(__name__)

#: Disk full, quota used up, file size limit: the state is known, and it may pass.
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sync_directory(directory: Path) -> None:
    """Make names in `directory` (created, renamed, removed files) durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Make `path`, private, and what is missing above it. Durable on return.

    A directory whose own name a power cut takes away takes all that was synced in it along.
    """
    made = False
    for missing in reversed([p for p in (path, *path.parents) if not p.is_dir()]):
        missing.mkdir(exist_ok=True, mode=0o700 if missing == path else 0o777)
        sync_directory(missing.parent)
        made = True
    if not made and os.access(path.parent, os.R_OK):  # a start before this may have died right behind mkdir
        sync_directory(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file, durable on return; a crash leaves all of it or what was there before.

    Raises SpoolFullError for a full disk, SpoolError otherwise.
    """
    tmp = path.with_name(path.name + ".tmp")
    try:
        with tmp.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        tmp.replace(path)
        sync_directory(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):  # the next start removes it
            tmp.unlink(missing_ok=True)
        raise os_error(f"cannot write {path}", e) from e


def read_named_by_hash(path: Path) -> bytes:
    """A file whose name is the SHA-256 of its bytes. SpoolError if it is gone or damaged."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise SpoolError(f"{path}: cannot be read: {e.strerror or e}", "check the disk") from e
    if hashlib.sha256(data).hexdigest() != path.name:
        raise SpoolError(f"{path}: its bytes do not give its name", "check the disk")
    return data


def read_number(path: Path) -> int:
    """A number that was noted as a hint, 0 where there is none that can be read whole."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return 0
    return int(text) if text.endswith("\n") and text.strip().isascii() and text.strip().isdigit() else 0


def note_number(path: Path, number: int) -> bool:
    """Note a number as a hint: whole or not at all, but not durable. False, and said, if it cannot be."""
    tmp = path.with_name(path.name + ".tmp")
    try:
        tmp.write_text(f"{number}\n")
        tmp.replace(path)
    except OSError as e:
        log.warning("cannot note %d in %s: %s", number, path, e.strerror or e)
        return False
    return True


def take_lock(directory: Path) -> int:
    """Lock `directory` for this process; the lock goes with the descriptor, so a crash leaves none.

    Raises SpoolError that names who has it, OSError if the lock file cannot be opened.
    """
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 64).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise SpoolError(
            f"spool {directory} is in use by process {holder}",
            "one agent per state directory: stop that one, or name another with --state",
        ) from None
    with contextlib.suppress(OSError):  # the lock holds without our name in it, on a full disk too
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def os_error(what: str, e: OSError) -> SpoolError:
    """SpoolFullError if the disk has no room, which may pass; else SpoolError."""
    if e.errno in _FULL_ERRNOS:
        return SpoolFullError(f"{what}: {e.strerror}", "make room on the disk of the state directory")
    return SpoolError(f"{what}: {e.strerror or e}", "check the disk of the state directory")
