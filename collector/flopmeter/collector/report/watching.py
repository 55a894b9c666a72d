"""`runs watch`: looks again and again, and draws, or prints what changed."""

import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from flopmeter.cli.keyboard import END, ENTER, LEAVE, Keyboard, attended
from flopmeter.cli.layout import Paint
from flopmeter.cli.output import flop_text
from flopmeter.cli.terminal import size
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.spelling import time_text

from . import queries
from .runs_view import run_view
from .watch_view import change_line, watch_view

_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_MOVES = {"j": 1, "down": 1, "k": -1, "up": -1, "g": -(10**9), "G": 10**9, "first": -(10**9), "last": 10**9}


@dataclass(frozen=True, slots=True)
class Look:
    """The books at one moment."""

    time: str
    lines: Sequence[Mapping[str, Any]]  # items of the API's /runs
    thresholds: Sequence[Mapping[str, Any]]  # its `lines`
    alone: Mapping[str, Any] | None = None  # `runs show --json`, of one that was asked for


def look_at(
    store: Path, run: str | None, regimes: tuple[Regime, ...], show: Callable[[], Mapping[str, Any]]
) -> Look:
    """All runs, or one and what `show` gives of it."""
    from flopmeter.collector.api.recent import rates
    from flopmeter.collector.api.run_lines import binding_lines, nearest_forecast, run_line
    from flopmeter.collector.forecast.live import last_kept

    alone = None if run is None else show()  # says what to do where there is no such run
    now = time.time_ns()
    with queries.reading(store) as reader:
        question = queries.asked(now, regimes)
        side = reader.run_side(question, run)
        rate = rates(reader, side.rows, side.models, question.table)
        lines = []
        for rows in side.rows:
            found = run_line(side, question, rows)
            found["rate"] = rate.get(rows.run) if found["status"] == "running" else None
            found["forecast"] = nearest_forecast(last_kept(reader, rows.run))
            lines.append(found)
    lines.sort(key=lambda d: (-int(d["executed"]["point"]), d["run"]))
    return Look(time_text(now), lines, binding_lines(question.regimes, now), alone)


def print_changes(look: Callable[[], Look], interval: float, times: int) -> None:
    """A line for each run that is another than it was printed last: in what people see of it, three digits of figures.

    The upper bound of a silent agent's run grows by the second, which is nothing new.
    """
    printed: dict[str, str] = {}
    looks = 0
    while True:
        found = look()
        for d in found.lines:
            seen = change_line(d, flop_text)
            if printed.get(d["run"]) != seen:
                printed[d["run"]] = seen
                click.echo(f"{found.time} {change_line(d)}")
        sys.stdout.flush()  # a log that somebody follows
        looks += 1
        if looks == times or _reader_gone(interval):
            return


def _reader_gone(seconds: float) -> bool:
    """Wait, and say whether whoever reads standard output has gone: without a change nothing is written that would tell."""
    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # no file at all
        time.sleep(seconds)
        return False
    gone = select.poll()
    gone.register(output, 0)  # errors and hang-ups come unasked
    return bool(gone.poll(seconds * 1000))


def on_terminal(look: Callable[[], Look], interval: float, times: int, paint: Callable[[], Paint]) -> None:
    """Drawn over until q."""
    found = look()  # what is wrong is said on the screen that stays
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        with attended(ENTER, LEAVE) as keyboard:
            top, looks = 0, 1
            while True:
                top = _draw(found, top, paint())
                done = looks == times
                top, end = _hear(keyboard, found, top, 0.0 if done else interval, paint)
                if end or done:
                    break
                found, looks = look(), looks + 1
    finally:
        signal.signal(signal.SIGTERM, before)
    if times:
        click.echo("\n".join(_page(found, paint())), color=paint().colour)


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _hear(
    keyboard: Keyboard, found: Look, top: int, seconds: float, paint: Callable[[], Paint]
) -> tuple[int, bool]:
    """Keys until the time is over: (first line shown, whether that was the end)."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for key in keyboard.wait(left):
            if key in ("q", END):
                return top, True
            top = _draw(found, max(0, top + _MOVES.get(key, 0)), paint())
    return top, False


def _page(found: Look, paint: Paint) -> list[str]:
    page = watch_view(found.lines, found.thresholds, found.time, paint)
    return page if found.alone is None else [*page, "", *run_view(found.alone, paint).splitlines()]


def _draw(found: Look, top: int, paint: Paint) -> int:
    """What fits; the first line that is shown."""
    _, lines_high = size()
    page = _page(found, paint)
    room = max(1, lines_high - 1)
    top = min(top, max(0, len(page) - room))
    seen = page[top : top + room]
    more = f" {top + 1}-{top + len(seen)} of {len(page)}  j/k" if len(page) > room else ""
    foot = paint(f"{more} q quit"[: paint.width], dim=True)
    shown = ([*seen, *[""] * (room - len(seen)), foot])[:lines_high]
    over = f"{_END_OF_LINE}\r\n".join(shown)
    sys.stdout.write(f"{_HOME}{over}{_END_OF_LINE}{_REST}")
    sys.stdout.flush()
    return top
