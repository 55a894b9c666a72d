"""Where a demo keeps its books: a directory that was named, or one of its own that the next demo clears away."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click

PREFIX = "flopmeter-demo-"
_LOCK = "in-use"


@dataclass(frozen=True, slots=True)
class Place:
    path: Path
    named: bool  # by the user, who then owns it


@contextmanager
def place(directory: Path | None, *, keep: bool) -> Iterator[Place]:
    """A directory for one demo. A temporary one stays behind if `keep`, until the next demo of this user."""
    if directory is not None:
        yield Place(_named(directory), named=True)
        return
    root = Path(tempfile.gettempdir())
    _clear(root)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    lock = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Place(path, named=False)
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _named(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise click.UsageError(
                f"--dir {directory}: expected an empty directory; name another, or empty it"
            )
    except OSError as e:
        raise click.ClickException(f"--dir {directory}: cannot be used: {e.strerror}") from e
    return directory


def _clear(root: Path) -> None:
    """Remove what earlier demos of this user left, unless one of them is still running."""
    for path in root.glob(PREFIX + "*"):
        with suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
