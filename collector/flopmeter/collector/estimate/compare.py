"""Two methods for one run: the counters' figure and a declared estimate. Pure.

The estimate may be off by the EU's 30 %, the measured figure lies anywhere between its bounds: the methods
disagree where no number is possible under both, agree where every number that the counters allow is within the
margin, and else it cannot be told (reference/regulations.md section 13, item 13).
"""

from enum import StrEnum
from fractions import Fraction

from flopmeter.contract.flop import Figure

from .margin import margin


class Agreement(StrEnum):
    AGREES = "agrees"
    DISAGREES = "disagrees"
    CANNOT_TELL = "cannot tell"


def compare(measured: Figure, flop: int) -> Agreement:
    """What `measured` says of an estimate of `flop`."""
    accepted = margin(flop)
    if measured.upper < accepted.lower or measured.lower > accepted.upper:
        return Agreement.DISAGREES
    if accepted.lower <= measured.lower and measured.upper <= accepted.upper:
        return Agreement.AGREES
    return Agreement.CANNOT_TELL


def ratio(measured: Figure, flop: int) -> Fraction | None:
    """Measured point over estimate; None where there is no point (class C, gaps)."""
    return Fraction(measured.point, flop) if measured.point and flop else None
