"""What every page for people is made of: styles, tables, wrapped lines. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from .cells import columns, fit

Row = Sequence[tuple[str, Mapping[str, Any]]]  # cells: text and its style
#: What a page is made for where there is no terminal to ask: a pipe, a log, a mail.
DEFAULT_COLUMNS = 80
_SHORTEST = 12  # characters that a shortened column keeps


STATUS = {
    "running": ("●", "green"),
    "live": ("●", "green"),
    "silent": ("◌", "red"),
    "stopped": ("○", None),
    "never": ("·", "yellow"),
}


class Paint:
    """Styles text, or leaves it plain where colour is unwanted or could not be shown."""

    def __init__(self, *, colour: bool, width: int) -> None:
        self.colour = colour
        self.width = max(60, width)

    def __call__(self, text: str, fg: str | None = None, *, bold: bool = False, dim: bool = False) -> str:
        return click.style(text, fg=fg, bold=bold or None, dim=dim or None) if self.colour else text


def table(
    head: Sequence[str],
    rows: Sequence[Row],
    paint: Paint,
    *,
    spare: Sequence[int] = (),
    cut: Sequence[int] = (0,),
) -> str:
    """Columns that have something in them, no wider than the page.

    Where it gets too wide `spare` columns are left out, first to last, and the page says which; if that is not
    enough, the texts of the columns `cut` are shortened. Figures are never shortened: they stand in no `cut`.
    """
    used = [i for i in range(len(head)) if head[i] == "" or any(row[i][0] for row in rows)]
    widths = {i: max(len(head[i]), *(columns(row[i][0]) for row in rows)) for i in used}
    left_out = []
    for i in spare:
        if _over(widths, paint.width) > 0 and i in widths:
            used.remove(i)
            del widths[i]
            left_out.append(head[i] or "status")  # the one column without a head
    for i in cut:
        if i in widths and (over := _over(widths, paint.width)) > 0:
            shorter = min(widths[i], max(len(head[i]), _SHORTEST, widths[i] - over))
            if shorter < widths[i]:
                left_out.append(f"whole texts of {head[i]}")
            widths[i] = shorter
    lines = ["  ".join(paint(f"{head[i]:{widths[i]}}", dim=True) for i in used).rstrip()]
    for row in rows:
        cells = []
        for i in used:
            text = shortened(row[i][0], widths[i])
            cells.append(paint(text, **row[i][1]) + " " * (widths[i] - columns(text)))
        lines.append("  ".join(cells).rstrip())
    if left_out:
        lines += [paint(line, dim=True) for line in wrapped(_left_out(left_out), paint.width, "", "")]
    return "\n".join(lines)


def _over(widths: Mapping[int, int], width: int) -> int:
    """By how much a table of these columns is too wide."""
    return sum(w + 2 for w in widths.values()) - 2 - width


def _left_out(names: Sequence[str]) -> str:
    return f"(left out at this width: {', '.join(names)}; --json has all)"


def shortened(text: str, width: int) -> str:
    """At most `width` columns, the middle given up: of a long name both ends tell."""
    if columns(text) <= width:
        return text
    tail = (width - 1) // 2
    end = fit(text[: -tail - 1 : -1], tail, "")[::-1]
    return f"{fit(text, width - 1 - tail, '')}…{end}"


def wrapped(text: str, width: int, indent: str, first_mark: str) -> list[str]:
    lines: str = click.wrap_text(text, min(width, 110) - len(first_mark), indent, indent)
    return [line.rstrip() for line in lines.splitlines()]


def folded(text: str, width: int) -> str:
    """Plain text, its long lines broken at words and set in under their beginning."""
    lines: list[str] = []
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        lines += [line] if len(line) <= width else _broken(line, width, indent)
    return "\n".join(lines)


def _broken(line: str, width: int, indent: str) -> list[str]:
    text: str = click.wrap_text(line.strip(), width, indent, indent + "  ")
    return [part.rstrip() for part in text.splitlines()]


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} GPU-h" if seconds >= 36_000 else f"{seconds / 3600:.2f} GPU-h"
