"""A terminal that shows one picture after the other in place, and is left as it was found."""

import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TextIO

from flopmeter.cli.terminal import size, terminal_of

from .progress import wants_colour
from .view import Picture, draw

_ENTER = "\x1b[?1049h\x1b[?25l"  # other screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _LINE_END, _REST = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """`with Screen() as screen: screen.show(picture)`. Off a terminal it shows nothing."""

    def __init__(self, stream: TextIO | None = None, *, wanted: bool = True) -> None:
        self._stream = stream or sys.stdout
        self.on = wanted and terminal_of(self._stream).live
        self.colour = wants_colour(self._stream)

    def __enter__(self) -> Self:
        if self.on:
            self._write(_ENTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.on:
            self._write(_LEAVE)

    def show(self, picture: Callable[[], Picture]) -> None:
        """Draw in place; `picture` is only taken where there is a screen for it."""
        if not self.on:
            return
        columns, lines_high = size()
        lines = draw(picture(), columns, colour=self.colour, height=lines_high - 1)
        self._write(_HOME + "".join(f"{line}{_LINE_END}\n" for line in lines) + _REST)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def final(picture: Picture, stream: TextIO) -> Sequence[str]:
    """The picture as it stays on the screen, or in a file."""
    return draw(picture, size()[0], colour=wants_colour(stream))
