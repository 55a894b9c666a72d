"""Declared beside measured, for people. Pure: a document in, text out."""

import math
from collections.abc import Mapping
from typing import Any

from flopmeter.cli.layout import Paint, hours, wrapped
from flopmeter.cli.output import band_texts, flop_text

_NAME = 13  # where a line's text begins, as in runs_view
_COLOURS = {"agrees": "green", "disagrees": "red", "cannot tell": "yellow"}


def progress_view(p: Mapping[str, Any] | None, paint: Paint) -> list[str]:
    """What training code claims of the run, and the counters over the same hours."""
    if p is None:
        return []
    claimed, m = flop_text(int(p["declared_flop"])), p["measured"]
    lower, point, upper = band_texts(m)
    speaks = "the whole run" if not p["ranks"] else f"{p['ranks']} processes"
    lines = [
        f"{claimed} FLOP, at {flop_text(int(p['tokens']))} tokens, by {speaks}",
        f"counters {point} FLOP, between {lower} and {upper}, in the same {p['hours']} h",
    ]
    if p["mfu"] is not None:
        h = p["hfu"]
        lines.append(
            f"MFU {_percent(p['mfu'])}, HFU {_percent(h['point'])} ({_percent(h['lower'])} to {_percent(h['upper'], up=True)}) "
            f"of the dense {p['dtype']} "
            f"peak over {hours(p['device_seconds'])}"
        )
    if p["restarts_at_a_checkpoint"]:
        back = p["restarts_at_a_checkpoint"]
        often = "once" if back == 1 else f"{back} times"
        lines.append(f"{often} back to a checkpoint: done again counts again")
    if p["opening_left_out"]:
        lines.append("tokens from before this run's jobs are left out")
    if p["hours_without_formula"]:
        lines.append(f"{p['hours_without_formula']} h left out: neither parameters nor FLOP per token said")
    broken = [part for line in lines for part in wrapped(line, paint.width - _NAME, "", "")]
    verdict = paint(p["agreement"], _COLOURS[p["agreement"]])
    said = f"{verdict} within {p['margin_percent']} %" if p["agreement"] != "cannot tell" else verdict
    return [
        f"  {'declared':{_NAME - 2}}{broken[0]}",
        *(" " * _NAME + part for part in broken[1:]),
        f"{'':{_NAME}}{said}",
    ]


def _percent(share: float, *, up: bool = False) -> str:
    """Tenths of a percent, rounded down as on the page; the millionth is for 0.29 * 1000 and its like. `up`: an upper bound."""
    tenths = math.ceil(share * 1000 - 1e-6) if up else math.floor(share * 1000 + 1e-6)
    return f"{tenths / 10:.1f} %"
