"""The event of two methods that disagree, with all that it rests on. Pure."""

import json
import math

from flopmeter.collector.law.events import METHOD_DISAGREES, NewEvent
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.flop import Figure

from .compare import ratio
from .declared import Declared
from .margin import margin
from .numbers import figures, rounded


def method_key(d: Declared) -> str:
    """Once per run and estimate: another text of the estimate is another estimate."""
    return f"method:{d.run}:{d.digest}"


def method_event(
    d: Declared, measured: Figure, w_table: str, *, at_unix_ns: int, position: int, formerly: bool = False
) -> NewEvent:
    """`d` against what the counters say of its run at `position`; the caller found that they disagree.

    `formerly`: as sentences said bounds until 2026-11, to the nearest.
    """
    factor = ratio(measured, d.flop)
    down, up = (rounded, rounded) if formerly else (math.floor, math.ceil)
    lower, upper = figures(measured.lower, 3, down), figures(measured.upper, 3, up)
    if factor is None:  # class C and gaps bound from above and have no point
        counted = f"at most {upper} FLOP"
    else:
        counted = f"{figures(measured.point, 3)} FLOP, between {lower} and {upper} ({float(factor):.2g} times the estimate)"
    covered = f"until {time_text(d.as_of_unix_ns)}" if d.as_of_unix_ns is not None else "in all"
    return NewEvent(
        key=method_key(d),
        type=METHOD_DISAGREES,
        subject=d.run,
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": f"Run {d.run}: {d.by} estimated {figures(d.flop, 3)} FLOP by {d.method} ({d.formula}), and the "
            f"counters say {counted}, {covered}. No figure that they allow is within 30 % of the estimate: one of the "
            "two is wrong. Look for recomputation, a wrong dtype or peak, jobs that are missing from the run or do not "
            "belong to it.",
            "run": d.run,
            "method": d.method,
            "formula": d.formula,
            "by": d.by,
            "declared": time_text(d.at_unix_ns),
            "as_of": time_text(d.as_of_unix_ns) if d.as_of_unix_ns is not None else None,
            "estimate_flop": figure_json(margin(d.flop)),
            "measured": figure_json(measured),
            # As it was declared, whole: fsck computes it again from here.
            "estimate": json.loads(d.canonical),
            "estimate_digest": d.digest,
            "w_table": w_table,
        },
    )
