"""Whether a figure is known as well as the EU asks: within 30 % of the reported estimate. Pure, exact integers.

Source: C(2025) 5045, Annex A.2, "within an overall error margin of 30% of the reported estimate"
(reference/regulations.md section 4). The truth lies between lower and upper, so that the margin of an estimate E is
the larger of (E - lower) / E and (upper - E) / E, which is least at their middle. Percentages are rounded up: never
shown better than they are.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flopmeter.contract.flop import Figure

LIMIT_PERCENT = 30


class Within(StrEnum):
    """The answer for one run."""

    YES = "yes"
    IF_DECLARED = "if-declared"  # only if the declared dtype is true
    NO = "no"
    NO_ESTIMATE = "no-estimate"  # nothing metered that has a point


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far the truth may lie from the point, and from the best single number there is."""

    figure: Figure

    @property
    def within(self) -> bool:
        f = self.figure
        return (
            f.point > 0
            and f.lower * 100 >= f.point * (100 - LIMIT_PERCENT)
            and f.upper * 100 <= f.point * (100 + LIMIT_PERCENT)
        )

    @property
    def below_percent(self) -> float | None:
        """How much less than the point it may have been."""
        return _percent(self.figure.point - self.figure.lower, self.figure.point)

    @property
    def above_percent(self) -> float | None:
        """How much more."""
        return _percent(self.figure.upper - self.figure.point, self.figure.point)

    @property
    def middle(self) -> int:
        """The single number with the least margin of error, of whatever may have happened."""
        return (self.figure.lower + self.figure.upper) // 2

    @property
    def middle_percent(self) -> float | None:
        """Its margin, either way."""
        return _percent(self.figure.upper - self.middle, self.middle)


def answer(flop: Figure, if_declared: Figure | None) -> Within:
    if not flop.point:
        return Within.NO_ESTIMATE
    if Accuracy(flop).within:
        return Within.YES
    if if_declared is not None and Accuracy(if_declared).within:
        return Within.IF_DECLARED
    return Within.NO


def accuracy_json(figure: Figure) -> dict[str, Any]:
    """As reports and threshold events say it."""
    a = Accuracy(figure)
    return {
        "within": a.within,
        "below_percent": a.below_percent,
        "above_percent": a.above_percent,
        "best_estimate": {"flop": str(a.middle), "percent": a.middle_percent},
    }


def _percent(part: int, whole: int) -> float | None:
    """Percent of `whole`, rounded up to a tenth; None of nothing."""
    return -(-part * 1_000 // whole) / 10 if whole else None
