"""The figure of a draft: two significant figures beside the unrounded comparison, and how well it is known. Pure.

Rounding moves a value by up to 5 %: 10^25 + 1 is past the EU's line and 1.0x10^25 is not. So the answer is always that
of the unrounded bounds, and where the rounded figure would give another one the draft says so (regulations.md 13.19).
"""

from fractions import Fraction
from typing import Any

from flopmeter.collector.law.accuracy import LIMIT_PERCENT, Accuracy
from flopmeter.collector.law.regimes import INTEGER_OR_FLOAT, Regime
from flopmeter.collector.law.rules import Verdict, meets, verdict
from flopmeter.collector.paper.blocks import Document, given, unknown
from flopmeter.collector.spelling import threshold_text
from flopmeter.contract.flop import Figure

from .rounding import RULE, two_figures

_ASKED = (
    f"C(2025) 5045, Annex A.2: within an overall error margin of {LIMIT_PERCENT} % of the reported estimate"
)
_NOT_ASKED = f"no margin was found in this law; {LIMIT_PERCENT} % is that of the EU's guidelines"
_WORDS = {
    Verdict.CROSSED: "crossed: even the lower bound meets the threshold",
    Verdict.BELOW: "below: even the upper bound does not meet the threshold",
    Verdict.UNDETERMINED: "undetermined: it cannot be told from this evidence on which side of the threshold it is",
}


def unit_of(regime: Regime) -> str:
    """What one operation is, for people."""
    return "integer and floating-point operations" if regime.unit == INTEGER_OR_FLOAT else "FLOP"


def figure_fields(figure: Figure | None, regime: Regime) -> list[Document]:
    """The total that `regime` counts, rounded and not, against its line."""
    if figure is None:
        return [unknown("compute.flop", "Compute", "nothing of the run has been metered yet")]
    unit = unit_of(regime)
    rounded = given("compute.flop", "Compute", f"{two_figures(figure.point).text} {unit}", RULE)
    if not figure.point and figure.upper:  # percentages and gaps only: nought would be a claim
        rounded = unknown(
            "compute.flop", "Compute", "no counter gives an estimate of it, only an upper bound"
        )
    return [
        rounded,
        given("compute.point", "Unrounded estimate", str(figure.point), unit),
        given("compute.lower", "Unrounded lower bound", str(figure.lower), unit),
        given("compute.upper", "Unrounded upper bound", str(figure.upper), unit),
        *comparison_fields(figure, regime),
    ]


def comparison_fields(figure: Figure, regime: Regime) -> list[Document]:
    """The unrounded comparison, and whether the rounded figure would say something else."""
    if not regime.has_line:
        return [unknown("compute.verdict", "Answer", "the text has no number to compare with")]
    line, sign = threshold_text(regime.threshold_flop), regime.comparison
    parts = [
        f"{name} {n} {sign} {line}: {'yes' if meets(n, regime) else 'no'}"
        for name, n in (
            ("lower bound", figure.lower),
            ("estimate", figure.point),
            ("upper bound", figure.upper),
        )
    ]
    return [
        given("compute.comparison", "Unrounded comparison", "; ".join(parts)),
        given("compute.verdict", "Answer", _WORDS[verdict(figure, regime)]),
        given("compute.rounding", "What rounding does to it", _rounding(figure, regime)),
    ]


def moved_by_rounding(figure: Figure, regime: Regime) -> bool:
    """Whether the rounded estimate lies on the other side of the line than the unrounded one."""
    return meets(_whole(two_figures(figure.point).value), regime) != meets(figure.point, regime)


def _whole(value: Fraction) -> int:
    """A rounded count of operations; below 10 it may have a decimal, and no line is there."""
    return value.numerator // value.denominator


def _rounding(figure: Figure, regime: Regime) -> str:
    rounded = two_figures(figure.point)
    if not moved_by_rounding(figure, regime):
        return f"nothing: the rounded {rounded.text} and the unrounded estimate are on the same side of the threshold"
    side = "meets" if meets(figure.point, regime) else "does not meet"
    other = "does not meet" if side == "meets" else "meets"
    return (
        f"ROUNDING MOVES THE ESTIMATE ACROSS THE THRESHOLD: the unrounded estimate {figure.point} {side} "
        f"{regime.comparison} {threshold_text(regime.threshold_flop)}, the rounded {rounded.text} {other} it. "
        "The unrounded comparison holds."
    )


def margin_fields(figure: Figure | None, *, asked: bool = True) -> list[Document]:
    """Whether the interval is within the margin that the EU's guidelines allow; never softened (regulations.md 13.12).

    `asked`: whether the law at hand names that margin.
    """
    if figure is None or not figure.point:
        return [
            unknown(
                "margin.within",
                f"Within ±{LIMIT_PERCENT} %",
                "there is no estimate of which it could be said",
            )
        ]
    a = Accuracy(figure)
    reach = f"the interval reaches {a.below_percent} % below and {a.above_percent} % above the estimate"
    fields = [
        given(
            "margin.within",
            f"Within ±{LIMIT_PERCENT} %",
            _margin(within=a.within),
            f"{reach}; {_ASKED if asked else _NOT_ASKED}",
        ),
        given("margin.below_percent", "Interval below the estimate", f"{a.below_percent} %"),
        given("margin.above_percent", "Interval above the estimate", f"{a.above_percent} %"),
    ]
    if not a.within:
        middle = two_figures(a.middle).text
        fields.append(
            given(
                "margin.best",
                "Single number with the least margin",
                f"{middle}, ±{a.middle_percent} %",
                "the middle of the bounds, whatever happened within them; unrounded " + str(a.middle),
            )
        )
    return fields


def _margin(*, within: bool) -> str:
    if within:
        return "within margin"
    return "not within margin: this figure must not be signed or filed as one that is"


def summary(figure: Figure | None, regime: Regime) -> dict[str, Any] | None:
    """The same for programs: exact numbers under their own keys."""
    if figure is None:
        return None
    rounded = two_figures(figure.point)
    return {
        "regime": regime.id,
        "unit": regime.unit,
        "lower": str(figure.lower),
        "point": str(figure.point),
        "upper": str(figure.upper),
        "two_significant_figures": rounded.text,
        "threshold": str(regime.threshold_flop),
        "comparison": regime.comparison,
        "verdict": verdict(figure, regime).value if regime.has_line else None,
        "rounding_moves_it_across": moved_by_rounding(figure, regime) if regime.has_line else None,
        "within_margin": Accuracy(figure).within,
        "margin_percent": LIMIT_PERCENT,
    }
