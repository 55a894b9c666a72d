"""Where an export goes: standard output, or a file that is there whole or not at all."""

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flopmeter.collector.errors import ExportError

_BUFFER = 1 << 18


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """Descriptor 1, past Python's own buffer, so that nothing is left in it when the reader has gone away."""
    to = io.BufferedWriter(io.FileIO(os.dup(1), "wb"), _BUFFER)
    try:
        yield to
        to.flush()
    finally:
        with contextlib.suppress(OSError):
            to.detach().close()  # what could not be written is not tried again


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once it is whole and durable. Raises ExportError, OSError.

    What is no regular file, a pipe or /dev/null for one, is written to as it is.
    """
    if path.exists() and not path.is_file():
        with _opened(path, path, os.O_WRONLY) as to:
            yield to
        return
    fresh = path.with_name(f".flopmeter-export-{secrets.token_hex(4)}.part")
    to = _opened(path, fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with to:
            yield to
            to.flush()
            os.fsync(to.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _opened(path: Path, file: Path, flags: int) -> BinaryIO:
    try:
        return os.fdopen(os.open(file, flags | os.O_CLOEXEC, 0o666), "wb", buffering=_BUFFER)
    except OSError as e:
        raise ExportError(
            f"-o {path}: cannot write: {e.strerror}", "name a file in a directory that exists and is yours"
        ) from e
