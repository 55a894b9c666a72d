"""The JSON Lines sink: one CloudEvent a line in a file, fsynced before it is noted as delivered.

A crash between the two repeats the line, with the same id, and never loses it. A line torn by a crash is cut off.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from flopmeter.collector.errors import SinkError

from .answer import Answer, delivered, failed
from .message import Message

BATCH = 200  # events written and fsynced at once
#: How our lines begin; a file's tail that begins so and has no end was torn by a crash of ours.
_LINE_START = b'{"specversion"'

Append = Callable[[Path, bytes], None]


class FileSender:
    """Appends to `path`."""

    limit = BATCH

    def __init__(self, path: Path, append: Append | None = None) -> None:
        self._path = path
        self._append = append

    def check(self) -> None:
        """Raises SinkError."""
        try:
            append_durably(self._path, b"")
        except OSError as e:
            raise SinkError(
                f"{self._path}: expected a file that events can be added to: {e.strerror or e}",
                "name a file in a directory that exists and that this user may write in",
            ) from e

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        lines = b"".join(message.body + b"\n" for message in messages)
        try:
            (self._append or append_durably)(self._path, lines)
        except OSError as e:
            return [failed(f"{self._path}: cannot write events: {e.strerror or e}")] * len(messages)
        return [delivered(f"written to {self._path}")] * len(messages)


def append_durably(path: Path, lines: bytes) -> None:
    """Append and fsync. Opened anew each time, so that the file may be rotated away. Raises OSError.

    A line torn by a crash is cut off: its event was not noted as delivered, and comes again whole.
    """
    fresh = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        _mend(handle)
        before = os.fstat(handle).st_size
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(handle, rest) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, before)
            raise
    finally:
        os.close(handle)
    if fresh:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _mend(handle: int) -> None:
    size = os.fstat(handle).st_size
    start, tail = size, b""
    while start > 0 and b"\n" not in tail:
        step = min(65_536, start)
        start -= step
        tail = os.pread(handle, step, start) + tail
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return
    if torn.startswith(_LINE_START) or _LINE_START.startswith(torn):
        os.ftruncate(handle, size - len(torn))
    else:  # not a line of ours: leave it, and begin behind it
        os.write(handle, b"\n")
