"""Whether a figure meets a regime's threshold: exact integers, three answers. Pure."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from fractions import Fraction

from flopmeter.collector.spelling import threshold_text
from flopmeter.contract.flop import ZERO, Figure, total

from .regimes import INTEGER_OR_FLOAT, KNOWN, MANDATORY, MODIFICATION, Regime


class Verdict(StrEnum):
    """What the bounds allow to be said. Never softened: where they straddle the line, nobody knows."""

    CROSSED = "crossed"  # even the lower bound meets the threshold
    BELOW = "below"  # even the upper bound does not
    UNDETERMINED = "undetermined"  # cannot be told from this evidence


def meets(flop: int, regime: Regime) -> bool:
    """Whether one exact number meets the threshold, with the regime's own comparison. None meets a line that is not there."""
    if not regime.has_line:
        return False
    if regime.comparison == ">=":
        return flop >= regime.threshold_flop
    return flop > regime.threshold_flop


def line_key(regime: Regime) -> str:
    """How keys of events name a line: of another number of the law it is another event."""
    if regime.scope == MODIFICATION:
        of = "" if regime.original == KNOWN else f"x{threshold_text(regime.threshold_flop)}"
        return f"{regime.comparison}{regime.share}{of}"
    return f"{regime.comparison}{threshold_text(regime.threshold_flop)}"


def verdict(figure: Figure, regime: Regime) -> Verdict:
    """The answer for `figure`, which is already what the regime counts (see `counted`)."""
    if meets(figure.lower, regime):
        return Verdict.CROSSED
    if meets(figure.upper, regime):
        return Verdict.UNDETERMINED
    return Verdict.BELOW


def capacity_verdict(op_s: Figure, regime: Regime) -> Verdict:
    """The answer for what one cluster could do in a second, at `regime.capacity`'s precision and behind its network.

    Which machines are one cluster, and so what `op_s` adds up, follows from `regime.capacity` too (filing/).
    """
    if regime.capacity is None:
        return Verdict.BELOW
    return verdict(op_s, replace(regime, threshold_flop=regime.capacity.op_s))


def tenant_verdict(runs: Iterable[Figure], regime: Regime) -> Verdict:
    """The answer for all runs of one tenant together. `runs`: what each did itself, as the regime counts it
    (`counted`), without what it stands on: a run that two others stand on would be in the sum twice.
    """
    return verdict(total(runs), regime)


def early_lines(regime: Regime, line: Fraction | None = None) -> tuple[Fraction, ...]:
    """Where to warn before the line, ascending, exactly: by default at line/1.3, where a method that reads 30 % too
    low would already be past it. `line`: a modification's own line, where that is a share of the original.
    """
    if line is None:
        line = Fraction(regime.capacity.op_s if regime.capacity else regime.threshold_flop) * regime.share
    return tuple(part * line for part in regime.early) if line else ()


def counted(regime: Regime, flop: Figure, integer_ops: Figure = ZERO) -> Figure:
    """What `regime` compares: FLOP, or FLOP plus integer operations where its text names both."""
    return flop + integer_ops if regime.unit == INTEGER_OR_FLOAT else flop


def in_force(regime: Regime, at_unix_ns: int) -> bool:
    """Whether the regime binds anybody at that instant. Days are UTC days; `ends` is the first day without it."""
    if regime.status not in MANDATORY or regime.effective is None:
        return False
    day = datetime.fromtimestamp(at_unix_ns // 1_000_000_000, UTC).date()
    return regime.effective <= day and (regime.ends is None or day < regime.ends)
