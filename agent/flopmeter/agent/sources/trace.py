"""Recorded readings of one node: the `trace` source, and the writer behind `flopmeter agent record`."""

import contextlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from flopmeter.agent.errors import SourceError, TraceError
from flopmeter.agent.reading import Happening, HappeningKind, NodeFacts, Reading
from flopmeter.contract.limits import MAX_TRACE_LINE_BYTES

from . import trace_lines, trace_text
from .compressed import damage_errors, deflater, expanded
from .trace_lines import LineError, LineParser, NotJsonError

_HINT = "see docs/trace-format.md; cut or mend the line, or record again with `flopmeter agent record`"
_WRITE_AT = 1 << 16  # bytes collected before a write that nobody asked for


class TraceFile:
    """A Recording. Plain, gzip or zstd, told by its first bytes; read once, from front to back.

    `truncated` tells after the last item that the file ends in a half-written line, which was dropped;
    `refused` counts values that a driver would not return, by name: each is a failed read of that value.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.truncated = False
        self.refused: Counter[str] = Counter()
        self.line_number = 0
        self._parser = LineParser(self._refuse)
        self._last_ns: dict[str, int] = {}  # entity -> t_boot_ns of its last line
        self._last_reading_ns: dict[str, int] = {}
        self._started = False
        try:
            # Closed by close(); the buffered reader owns it.
            raw = open(self.path, "rb")  # noqa: PTH123, SIM115
        except OSError as e:
            raise SourceError(
                f"cannot open the trace {self.path}: {e.strerror}", "name a readable file"
            ) from e
        try:
            self._stream, self._expanded = expanded(raw)
            line = self._next_line()
            if line is None:
                raise self._error("expected a first line that describes the node, got an empty file")
            self._facts = trace_lines.parse_header(line)
        except BaseException as e:
            raw.close()
            if isinstance(e, LineError):
                raise self._error(str(e)) from None
            if isinstance(e, OSError):
                raise SourceError(f"cannot read the trace {self.path}: {e}", "name a readable file") from e
            raise
        self._entities = {d.entity for d in self._facts.devices}

    def facts(self) -> NodeFacts:
        """The node as of the last item: a reboot or a MIG change in the trace changes it."""
        return self._facts

    def items(self) -> Iterator[Reading | Happening]:
        """Readings and happenings in the order recorded. Raises TraceError, with the line, at the first bad one."""
        if self._started:
            raise TraceError(f"{self.path}: a trace is read once", "open it again")
        self._started = True
        parse = self._parser.parse
        while (line := self._next_line()) is not None:
            try:
                item = parse(line)
            except LineError as e:
                if isinstance(e, NotJsonError) and not line.endswith(
                    b"\n"
                ):  # the writer was stopped within it
                    self.truncated = True
                    return
                raise self._error(str(e)) from None
            self._check_order(item)
            if type(item) is Happening:
                self._follow(item)
            yield item

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_line(self) -> bytes | None:
        """The next line that is not blank; None at the end. Never holds more than the line limit."""
        while True:
            self.line_number += 1
            try:
                line = self._stream.readline(MAX_TRACE_LINE_BYTES + 1)
            except OSError as e:
                raise SourceError(f"cannot read the trace {self.path}: {e}", "name a readable file") from e
            except ValueError as e:  # also ExpansionError
                raise self._error(f"the compressed stream {e}") from e
            except Exception as e:
                if isinstance(e, damage_errors()):
                    raise self._error(f"the compressed stream is damaged ({e})") from e
                raise
            if not line:
                if self._expanded is not None and self._expanded.cut:
                    self.truncated = True
                return None
            if len(line) > MAX_TRACE_LINE_BYTES:
                raise self._error(f"expected lines of at most {MAX_TRACE_LINE_BYTES} bytes, got a longer one")
            if not line.isspace():
                return line

    def _check_order(self, item: Reading | Happening) -> None:
        entity = item.entity
        if type(item) is Reading:
            if entity not in self._entities:
                raise self._error(
                    f"expected an entity among the node's devices, got {entity[:80]!r}; list it in the first line"
                )
            if item.t_boot_ns <= self._last_reading_ns.get(entity, -1):
                raise self._error(
                    f"{entity}: expected t_boot_ns after {self._last_reading_ns[entity]}, got {item.t_boot_ns}"
                )
            self._last_reading_ns[entity] = item.t_boot_ns
        if item.t_boot_ns < self._last_ns.get(entity, -1) and not (
            type(item) is Happening and item.kind is HappeningKind.REBOOT
        ):
            raise self._error(
                f"{entity or 'node'}: expected t_boot_ns from {self._last_ns[entity]} on, got {item.t_boot_ns}"
            )
        self._last_ns[entity] = item.t_boot_ns

    def _follow(self, item: Happening) -> None:
        if item.kind is HappeningKind.REBOOT:  # CLOCK_BOOTTIME starts again
            self._last_ns.clear()
            self._last_reading_ns.clear()
            self._facts = replace(self._facts, boot_id=item.boot_id)
        elif item.kind is HappeningKind.MIG_CHANGE:
            self._entities = {d.entity for d in item.devices}
            self._facts = replace(self._facts, devices=item.devices)

    def _refuse(self, name: str) -> None:
        self.refused[name] += 1

    def _error(self, message: str) -> TraceError:
        return TraceError(f"{self.path}, line {self.line_number}: {message}", _HINT)


class TraceWriter:
    """Writes a trace, compressed by suffix (.gz, .zst). What `flush` returned from survives a kill, whole lines."""

    def __init__(self, path: str | os.PathLike[str], facts: NodeFacts, *, overwrite: bool = False) -> None:
        self.path = Path(path)
        self._deflater, self._sync = deflater(self.path.suffix)
        self._pending = bytearray()
        self._closed = False
        try:
            # Closed by close().
            self._file: io.RawIOBase = open(self.path, "wb" if overwrite else "xb", buffering=0)  # noqa: PTH123, SIM115
        except FileExistsError as e:
            raise SourceError(
                f"{self.path} exists already", "name another file, or ask to overwrite it"
            ) from e
        except OSError as e:
            raise SourceError(f"cannot write {self.path}: {e.strerror}", "choose a writable place") from e
        self._pending += trace_text.header_line(facts)
        try:
            self.flush()
        except SourceError:
            self._file.close()
            raise

    def write(self, item: Reading | Happening) -> None:
        self._pending += trace_text.item_line(item)
        if len(self._pending) >= _WRITE_AT:
            self.flush()

    def flush(self) -> None:
        """Hand all whole lines to the kernel, so that they are read back even if this process is killed."""
        if self._pending:
            data = bytes(self._pending)
            self._pending.clear()
            if self._deflater is not None:
                data = self._deflater.compress(data) + self._deflater.flush(self._sync)
            self._put(data)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            if self._deflater is not None:
                self._put(self._deflater.flush())
        finally:
            self._file.close()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as e:
            raise SourceError(
                f"cannot write {self.path}: {e.strerror}", "free some space, then record again"
            ) from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # the first error is the one to tell
            with contextlib.suppress(SourceError):
                self.close()
