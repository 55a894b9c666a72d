"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from flopmeter.cli.terminal import terminal_of

_REDRAW_S = 0.1
_PLAIN_STEPS = 4  # lines for the whole of it, where there is no terminal


def wants_colour(stream: TextIO) -> bool:
    """A terminal that nobody asked to stay plain (https://no-color.org)."""
    return terminal_of(stream).color


def bar(what: str, done: int, total: int, seconds: float, width: int) -> str:
    """One line of at most `width` columns. Pure."""
    per_second = done / seconds if seconds > 0 else 0.0
    share = min(1.0, done / total) if total > 0 else 1.0
    text = f" {share:4.0%}  {done:,} of {total:,} readings  {per_second:,.0f}/s"
    cells = max(0, min(40, width - len(what) - len(text) - 3))
    filled = int(cells * share)
    return f"{what} {'━' * filled}{'─' * (cells - filled)}{text}"[: width - 1]


class Progress:
    """`with Progress("replaying", total) as p: p.update(done)`. Costs next to nothing between redraws."""

    def __init__(
        self,
        what: str,
        total: int,
        *,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
        quiet: bool = False,
    ) -> None:
        self.what = what
        self.total = total
        self._stream = stream or sys.stderr
        self._now = now
        self._tty = self._stream.isatty()
        self._quiet = quiet
        self._start = now()
        self._next_at = 0.0
        self._plain = 1
        self.done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._tty or self._quiet:
            return
        self._draw()
        self._stream.write("\n")
        self._stream.flush()

    def update(self, done: int) -> None:
        self.done = done
        if self._quiet:
            return
        if not self._tty:
            while self._plain <= _PLAIN_STEPS and done * _PLAIN_STEPS >= self._plain * self.total > 0:
                self._stream.write(f"{self.what}: {done:,} of {self.total:,} readings\n")
                self._stream.flush()
                self._plain = done * _PLAIN_STEPS // self.total + 1
            return
        now = self._now()
        if now >= self._next_at:
            self._next_at = now + _REDRAW_S
            self._draw()

    def _draw(self) -> None:
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            width = 80
        line = bar(self.what, self.done, self.total, self._now() - self._start, width)
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()
