"""Clock offsets for people: +41.203 s ± 3 ms. Pure."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from flopmeter.cli.output import seconds_text

_NAMED = 4
_SHOWN_WHOLE_S = 120


def offset_text(offset: Mapping[str, Any]) -> str:
    """Of an offset as the fleet's documents have it: the agent's clock minus the collector's."""
    point = offset["point_seconds"]
    half = max(offset["upper_seconds"] - point, point - offset["lower_seconds"])
    return f"{'-' if point < 0 else '+'}{_span(round(abs(point) * 1_000))} ± {_span(max(1, math.ceil(half * 1_000 - 1e-6)))}"


def _span(ms: int) -> str:
    if ms < 1_000:
        return f"{ms} ms"
    return f"{ms / 1_000:.3f} s" if ms < _SHOWN_WHOLE_S * 1_000 else seconds_text(ms / 1_000)


def clocks_said(fleet: Mapping[str, Any]) -> Iterable[str]:
    """A note where clocks are surely off, with what that does."""
    clocks = fleet["clocks"]
    off = sum(step["nodes"] for step in clocks["off"] if step["over_seconds"] == 10)
    if not off:
        return
    named = ", ".join(f"{f['node']} {offset_text(f['offset'])}" for f in clocks["furthest"][:_NAMED])
    more = f" and {off - _NAMED} more" if off > _NAMED else ""
    whose = (
        "All that were measured are: look at the collector's own clock first."
        if off == clocks["known"] > 1
        else "Mend time synchronisation there (chronyc tracking)."
    )
    yield (
        f"Clocks off by more than 10 s from the collector's: {named}{more}. Totals do not rest on clocks; the hours that "
        f"usage stands under do, and since when a line was met, from which deadlines run. {whose}"
    )
