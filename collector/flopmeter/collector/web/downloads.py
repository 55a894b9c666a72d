"""Files that take long to make: the command that makes them runs as a child, and its output is the answer.

What somebody downloads is what the command writes, to the byte; and its work is not the collector's.
"""

import asyncio
import logging
import os
import re
import shutil
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO

from .exchange import CHUNK_BYTES, Flowing
from .office import ended
from .says import Refused

log = logging.getLogger(__name__)
#: -P: what lies in the working directory is not imported.
PROGRAM = (sys.executable, "-P", "-c", "from flopmeter.cli.main import main; main()")
AT_ONCE = 2
#: Between two pieces of it.
PIECE_S = 120.0
#: For one that comes whole.
FILE_S = 600.0
_PREFIX = ".flopmeter-file-"
_SAID_BYTES = 4_000
_UNSAFE = re.compile(r"[^0-9A-Za-z._-]+")


class Downloads:
    """On the HTTP port's event loop only."""

    def __init__(
        self, program: Sequence[str] = PROGRAM, *, at_once: int = AT_ONCE, piece_s: float = PIECE_S
    ) -> None:
        self._program, self._at_once, self._piece_s = tuple(program), at_once, piece_s
        self.running = 0

    async def stream(
        self, arguments: Sequence[str], kind: str, filename: str, *, tells: bool = True
    ) -> Flowing:
        """What the command writes to its standard output. Raises Refused if it ends before it writes anything.

        `tells`: whether who asks is told why the books cannot be read, and so where they lie.
        """
        self._take()
        child: Process | None = None
        said = bytearray()
        listening: asyncio.Task[None] | None = None

        async def end() -> None:
            self.running -= 1
            if listening is not None:
                listening.cancel()
            if child is not None:
                await ended(child)

        try:
            child = await self._start(arguments, stdout=PIPE)
            listening = asyncio.create_task(_listen(child, said))
            first = await self._piece(child)
            if not first:
                code = await child.wait()
                await listening
                if code:
                    raise _refused(code, said, tells=tells)
            return Flowing(kind, self._pieces(child, first, said), end, _as_file(filename))
        except BaseException:
            await end()
            raise

    async def file(self, arguments: Sequence[str], store: Path, kind: str, filename: str) -> Flowing:
        """The file that the command writes where `-o` says. Raises Refused."""
        self._take()
        child: Process | None = None
        said = bytearray()
        folder: Path | None = None
        try:
            folder = _folder(store)
            output = folder / "file"
            child = await self._start([*arguments[:2], "-o", str(output), *arguments[2:]], stdout=DEVNULL)
            try:
                async with asyncio.timeout(FILE_S):
                    await _listen(child, said)
                    code = await child.wait()
            except TimeoutError as e:
                raise _too_slow(FILE_S) from e
            if code:
                raise _refused(code, said)
            file = output.open("rb")  # closed when it is sent
        finally:
            self.running -= 1
            if child is not None:
                await ended(child)
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # what is open stays until it is closed

        async def end() -> None:
            file.close()

        length = ("content-length", str(os.fstat(file.fileno()).st_size))
        return Flowing(kind, _read(file), end, (*_as_file(filename), length), 201)

    def _take(self) -> None:
        if self.running >= self._at_once:
            raise Refused(
                503,
                f"{self._at_once} files are being made already",
                "ask again in a minute",
                {"Retry-After": "30"},
            )
        self.running += 1

    async def _start(self, arguments: Sequence[str], *, stdout: int) -> Process:
        # A signer that it is told of by FLOPMETER_SIGNER is the collector's, so that it has the whole environment.
        environment = {**os.environ, "NO_COLOR": "1"}
        environment.pop("NOTIFY_SOCKET", None)
        return await asyncio.create_subprocess_exec(
            *self._program,
            *arguments,
            stdin=DEVNULL,
            stdout=stdout,
            stderr=PIPE,
            env=environment,
            start_new_session=True,
        )

    async def _piece(self, child: Process) -> bytes:
        assert child.stdout is not None
        try:
            async with asyncio.timeout(self._piece_s):
                return await child.stdout.read(CHUNK_BYTES)
        except TimeoutError as e:
            raise _too_slow(self._piece_s) from e

    async def _pieces(self, child: Process, first: bytes, said: bytearray) -> AsyncIterator[bytes]:
        piece = first
        while piece:
            yield piece
            piece = await self._piece(child)
        code = await child.wait()
        if code:  # half a file must not look like a whole one: the connection breaks off
            raise _refused(code, said)


async def _listen(child: Process, said: bytearray) -> None:
    """What it says on its standard error; the end of it where it says much."""
    assert child.stderr is not None
    while piece := await child.stderr.read(4_096):
        said += piece
        del said[:-_SAID_BYTES]


def _refused(code: int, said: bytearray, *, tells: bool = True) -> Refused:
    """Exit codes are those of every command: 1 the answer is no, 2 usage, 3 cannot be read."""
    text = bytes(said).decode("utf-8", "replace")
    status = {1: 409, 2: 400, 3: 503}.get(code, 500)
    if status == 500:
        log.error("a command that makes a file ended with %d: %s", code, _plain(text))
        return Refused(status, "the command that makes the file failed; the collector's log says how")
    if status == 503 and not tells:
        log.warning("a command that makes a file: %s", _plain(text))
        return Refused(
            status, "the books cannot be read now", "ask again; if it stays so, ask who runs the collector"
        )
    # After whatever it warned of: what was expected and got, and what to do (cli/main.py).
    detail, _, hint = text.partition("\nHint: ")
    return Refused(status, _plain(detail).removeprefix("Error: "), _plain(hint))


def _plain(text: str) -> str:
    """As one line."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _too_slow(seconds: float) -> Refused:
    return Refused(
        503, f"the file was not made within {seconds:.0f} s", "ask for less, or run the command itself"
    )


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, 16 * CHUNK_BYTES):
        yield piece


def sweep(store: Path) -> None:
    """Take away what a collector that was killed left half made. A store has one collector."""
    for folder in store.parent.glob(f"{_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _folder(store: Path) -> Path:
    """A place that this program alone reads, on the disk that the books are on: where temporary files are, there may be little room."""
    try:
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=store.parent))
    except OSError as e:
        raise Refused(503, f"the file cannot be made: {e.strerror}", "look at the disk of the store") from e


def _as_file(filename: str) -> tuple[tuple[str, str], ...]:
    return (
        ("content-disposition", f'attachment; filename="{filename}"'),
        ("cache-control", "no-store"),
    )


def safe_name(text: str) -> str:
    """A run's name as it may stand in a file's: nothing that a shell, a header or a file system reads."""
    return _UNSAFE.sub("-", text).strip("-.")[:80] or "run"
