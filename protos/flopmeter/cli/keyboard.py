"""A terminal that is watched: its keys one by one, its size as it changes, and Ctrl-Z without leaving a mess behind."""

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from flopmeter.contract.clock import Clock

#: The other screen without a cursor, cleared; and back.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[?25h\x1b[?1049l"
RESIZED = "resized"
END = "end"  # the terminal is gone
#: How long the rest of an escape sequence may take, of a key that is one: ssh may cut it in two.
_REST_S = 0.05
#: What terminals send for keys that are no character (xterm's and the VT220's).
_NAMED = {
    **dict.fromkeys((b"\x1b[A", b"\x1bOA"), "up"),
    **dict.fromkeys((b"\x1b[B", b"\x1bOB"), "down"),
    **dict.fromkeys((b"\x1b[5~",), "page-up"),
    **dict.fromkeys((b"\x1b[6~",), "page-down"),
    **dict.fromkeys((b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"\x1b[7~"), "first"),
    **dict.fromkeys((b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"\x1b[8~"), "last"),
    b"\x1b": "escape",
}
_KEY = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[@-~])|\x1b|[\x00-\x7f]|[\x80-\xff]+", re.DOTALL)
_PART = re.compile(rb"\x1b(?:\[[0-9;?]*|O)?\Z")


def keys_of(data: bytes) -> list[str]:
    """Names of keys; what is no key of ours is left out."""
    found = []
    for match in _KEY.finditer(data):
        key = match[0]
        if key in _NAMED:
            found.append(_NAMED[key])
        elif len(key) == 1 and key.isascii():
            found.append(key.decode())
    return found


class Keyboard:
    """Between `attended` and its end. `wait` gives keys as they come."""

    def __init__(self, stdin: int | None, wake: int) -> None:
        self._stdin = stdin
        self._wake = wake
        self.resized = False

    def wait(self, seconds: float) -> list[str]:
        """Keys pressed, RESIZED, END; empty when the time is over or a signal came."""
        watched = [self._wake] if self._stdin is None else [self._wake, self._stdin]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        found: list[str] = []
        if self._wake in ready:
            with suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if self._stdin is not None and self._stdin in ready:
            found = self._read(self._stdin)
        if self.resized:
            self.resized = False
            found.append(RESIZED)
        return found

    def _read(self, stdin: int) -> list[str]:
        try:
            data = os.read(stdin, 1024)
        except OSError:
            return [END]
        if not data:
            return [END]
        if _PART.search(data) and select.select([stdin], [], [], _REST_S)[0]:
            data += os.read(stdin, 1024)
        return keys_of(data)


@contextmanager
def attended(enter: str, leave: str) -> Iterator[Keyboard]:
    """The terminal switched to `enter` and to single keys; switched back at the end, and while it is suspended.

    Only what stands on standard output is written, past its buffer: a signal may come in the middle of a write.
    """
    stdin = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    saved = None if stdin is None else termios.tcgetattr(stdin)
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    keyboard = Keyboard(stdin, reading)

    def begin() -> None:
        if stdin is not None:
            tty.setcbreak(stdin, termios.TCSADRAIN)
        _write(enter)

    def end() -> None:
        _write(leave)
        if stdin is not None and saved is not None:
            with suppress(termios.error):
                termios.tcsetattr(stdin, termios.TCSADRAIN, saved)

    def suspend(_number: int, _frame: Any) -> None:
        end()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # stops here, until somebody says go on
        signal.signal(signal.SIGTSTP, suspend)
        go_on(_number, _frame)  # nobody does where there is no shell: then it did not stop either

    def go_on(_number: int, _frame: Any) -> None:
        begin()
        keyboard.resized = True

    def resize(_number: int, _frame: Any) -> None:
        keyboard.resized = True

    handlers: dict[int, Callable[[int, Any], None]] = {
        signal.SIGTSTP: suspend,
        signal.SIGCONT: go_on,
        signal.SIGWINCH: resize,
    }
    begin()
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield keyboard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        with suppress(OSError):
            sys.stdout.flush()
        end()
        os.close(reading)
        os.close(writing)


def _write(text: str) -> None:
    with suppress(OSError):  # a terminal that is gone
        os.write(sys.stdout.fileno(), text.encode("ascii"))


class Stoppable(Clock, Protocol):
    """loop.SystemClock."""

    @property
    def stopping(self) -> bool: ...


class AttendedClock:
    """A clock whose wait hears keys: `press` is given each, and says whether that was the end.

    It asks whether to stop, and never waits for that: the handler of a signal that comes within Event.wait, and sets
    the event, would wait for the lock that the wait itself holds.
    """

    def __init__(self, clock: Stoppable, keyboard: Keyboard, press: Callable[[str], bool]) -> None:
        self._clock = clock
        self._keyboard = keyboard
        self._press = press

    def boot_ns(self) -> int:
        return self._clock.boot_ns()

    def unix_ns(self) -> int:
        return self._clock.unix_ns()

    def wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._clock.stopping:
            left = until - time.monotonic()
            keys = self._keyboard.wait(left)
            if any(key == END or self._press(key) for key in keys):
                return True
            if left <= 0 and not keys:
                return self._clock.stopping
        return True
