"""What an estimate says of the law: its ±30 %, its two figures, and the lines it reaches. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import Verdict, in_force, meets, verdict
from flopmeter.collector.registry.entries import Purpose
from flopmeter.contract.flop import Figure

from .numbers import figures_value

#: The EU accepts any method within 30 % of the reported estimate (reference/regulations.md section 1, item 5).
MARGIN_PERCENT = 30
#: Significant figures that a notification states (reference/regulations.md section 4, notification content).
NOTIFIED_FIGURES = 2


def margin(flop: int) -> Figure:
    """30 % of the estimate to either side; the bounds are rounded outwards."""
    return Figure(flop * (100 - MARGIN_PERCENT) // 100, flop, -(-flop * (100 + MARGIN_PERCENT) // 100))


@dataclass(frozen=True, slots=True)
class Line:
    """One regime's threshold against an estimate."""

    regime: Regime
    in_force: bool
    verdict: Verdict  # of estimate ±30 %
    reached: bool  # whether the estimate itself meets the threshold
    rounding_hides: bool  # whether its two significant figures would say otherwise

    @property
    def answer(self) -> str:
        """In words, for a person."""
        if self.verdict is Verdict.CROSSED:
            said = "reached, even 30 % lower"
        elif self.verdict is Verdict.BELOW:
            said = "not reached, even 30 % higher"
        else:
            said = "reached, but not 30 % lower" if self.reached else "not reached, but 30 % higher would"
        if self.rounding_hides:
            said += "; rounded to two figures it looks otherwise, so state the unrounded comparison"
        return said


def lines(
    flop: int, regimes: Iterable[Regime], now_unix_ns: int, *, model_flop: int | None = None
) -> list[Line]:
    """`flop` against every regime: exact comparison, never of a rounded figure.

    `model_flop` is taken where a regime does not count recomputation; where its text is silent, it counts.
    """
    return [
        _line(flop if model_flop is None or _counts_recomputation(r) else model_flop, r, now_unix_ns)
        for r in regimes
    ]


def _counts_recomputation(regime: Regime) -> bool:
    profile = regime.counted_by
    return profile is None or profile.of(Purpose.RECOMPUTATION).counted


def _line(flop: int, regime: Regime, now_unix_ns: int) -> Line:
    reached = meets(flop, regime)
    hides = reached != meets(figures_value(flop, NOTIFIED_FIGURES), regime)
    return Line(regime, in_force(regime, now_unix_ns), verdict(margin(flop), regime), reached, hides)
