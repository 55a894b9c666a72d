"""Whether a figure meets a regime's threshold: exact integers, three answers. Pure."""

from datetime import UTC, datetime
from enum import StrEnum

from flopmeter.contract.flop import ZERO, Figure

from .regimes import INTEGER_OR_FLOAT, MANDATORY, Regime


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


def verdict(figure: Figure, regime: Regime) -> Verdict:
    """The answer for `figure`, which is already what the regime counts (see `counted`)."""
    if meets(figure.lower, regime):
        return Verdict.CROSSED
    if meets(figure.upper, regime):
        return Verdict.UNDETERMINED
    return Verdict.BELOW


def counted(regime: Regime, flop: Figure, integer_ops: Figure = ZERO) -> Figure:
    """What `regime` compares: FLOP, or FLOP plus integer operations where its text names both."""
    return flop + integer_ops if regime.unit == INTEGER_OR_FLOAT else flop


def in_force(regime: Regime, at_unix_ns: int) -> bool:
    """Whether the regime binds anybody at that instant. Days are UTC days; `ends` is the first day without it."""
    if regime.status not in MANDATORY:
        return False
    day = datetime.fromtimestamp(at_unix_ns // 1_000_000_000, UTC).date()
    return regime.effective <= day and (regime.ends is None or day < regime.ends)
