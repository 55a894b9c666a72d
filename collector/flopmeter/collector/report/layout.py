"""What every page for people is made of: styles, tables, wrapped lines. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

Row = Sequence[tuple[str, Mapping[str, Any]]]  # cells: text and its style


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


def table(head: Sequence[str], rows: Sequence[Row], paint: Paint, *, spare: Sequence[int] = ()) -> str:
    """Columns that have something in them; `spare` ones are left out, first to last, where it gets too wide."""
    used = [i for i in range(len(head)) if head[i] == "" or any(row[i][0] for row in rows)]
    widths = {i: max(len(head[i]), *(len(row[i][0]) for row in rows)) for i in used}
    for i in spare:
        if sum(widths[k] + 2 for k in used) - 2 > paint.width and i in used:
            used.remove(i)
    lines = ["  ".join(paint(f"{head[i]:{widths[i]}}", dim=True) for i in used).rstrip()]
    for row in rows:
        cells = []
        for i in used:
            text, style = row[i]
            cells.append(paint(text, **style) + " " * (widths[i] - len(text)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def wrapped(text: str, width: int, indent: str, first_mark: str) -> list[str]:
    lines: str = click.wrap_text(text, min(width, 110) - len(first_mark), indent, indent)
    return [line.rstrip() for line in lines.splitlines()]


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f} GPU-h" if seconds >= 36_000 else f"{seconds / 3600:.2f} GPU-h"
