"""A run's curve: FLOP by hour, as blocks. Pure; for the eye only."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from flopmeter.cli.layout import Paint, wrapped
from flopmeter.cli.output import flop_text, seconds_text

SPARKS = "▁▂▃▄▅▆▇█"
_EDGE = 2  # hours: a window of an hour lies over the edge of one, which is no bridge to speak of


def points_by_hour(hourly: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """FLOP by hour since 1970. What spans several is drawn as if it had been even: in which of them it was is not known."""
    found: dict[int, int] = {}
    for slot in hourly:
        point, hours = int(slot["flop"]["point"]), int(slot["hours"])
        first = int(datetime.fromisoformat(slot["hour"]).timestamp()) // 3600 - hours + 1
        for i in range(hours):
            part = point * (i + 1) // hours - point * i // hours
            found[first + i] = found.get(first + i, 0) + part
    return found


def curve_view(hourly: Sequence[Mapping[str, Any]], paint: Paint) -> list[str]:
    """The curve, how to read it, and what of it bridges hours."""
    by_hour = points_by_hour(hourly)
    first, last = min(by_hour), max(by_hour)
    series = [by_hour.get(h, 0) for h in range(first, last + 1)]
    cells = min(72, paint.width - 13)
    per_cell = -(-len(series) // cells)
    span = "hour" if per_cell == 1 else f"{per_cell} h"
    said = f"{seconds_text(len(series) * 3600.0)}, a block per {span}, peak {flop_text(max(series))} FLOP/h"
    curve = sparkline(series, cells)
    line = f"  curve      {paint(curve, 'cyan')}"
    lines = (
        [f"{line}  {said}"] if 13 + len(curve) + 2 + len(said) <= paint.width else [line, f"{'':13}{said}"]
    )
    bridges = [slot for slot in hourly if slot["hours"] > _EDGE]
    if bridges:
        flop = flop_text(sum(int(slot["flop"]["point"]) for slot in bridges))
        longest = max(int(slot["hours"]) for slot in bridges)
        count = "one bridge" if len(bridges) == 1 else f"{len(bridges)} bridges"
        text = f"{flop} FLOP of it in {count} of up to {longest} h, drawn evenly: in which hour it was is not known"
        lines += [paint(one, dim=True) for one in wrapped(text, paint.width, " " * 13, "")]
    return lines


def sparkline(series: Sequence[int], cells: int) -> str:
    """The series as blocks, at most `cells` of them; a blank is an hour in which nothing was done."""
    per_cell = max(1, -(-len(series) // cells))
    sums = [sum(series[max(0, end - per_cell) : end]) for end in range(len(series), 0, -per_cell)][::-1]
    top = max(sums, default=0) or 1
    return "".join(SPARKS[min(7, value * 8 // top)] if value > 0 else " " for value in sums)
