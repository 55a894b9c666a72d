"""The figure of whoever modifies another's model: the modification's own compute against a share of the original's. Pure.

A third is exact: 30.0 % does not meet it (regulations.md 13.8). Where the original is known with bounds the line has
bounds itself, and the answer is the one that the whole of both allows.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from flopmeter.collector.law.modification import past
from flopmeter.collector.law.regimes import MODIFICATION, RUN, Regime
from flopmeter.collector.paper.blocks import Document, given, section, table, unknown
from flopmeter.collector.report.documents import figure_of

from .compute import margin_fields
from .material import Material
from .rounding import RULE, two_figures

_WORDS = {
    "crossed": "crossed: even the lower bound meets the highest that the line can be",
    "below": "below: even the upper bound does not meet the lowest that the line can be",
    "undetermined": "undetermined: it cannot be told from this evidence on which side of the line it is",
}


def basis_of(m: Material, regime: Regime) -> Regime:
    """The regime by whose counting a report has the run's parts: of a modification, one of a run that counts alike."""
    if regime.scope == RUN:
        return regime
    alike = (r for r in m.regimes if r.scope == RUN and r.counting == regime.counting)
    return next(alike, regime)


def found_of(m: Material, regime: Regime) -> list[Mapping[str, Any]]:
    """What the run modifies, as that regime draws the line."""
    return [f for f in m.report["modifications"] if f["regime"] == regime.id]


def compute(m: Material, regime: Regime) -> Document:
    """Each original's line, and the modification's figure beside it, rounded and not."""
    found = found_of(m, regime)
    fields = [f for n, one in enumerate(found, 1) for f in _fields(f"modification.{n}", one, regime)]
    if not found:
        fields = [
            unknown(
                "modification.flop",
                "Compute of the modification",
                "the run modifies nothing that it speaks of",
            )
        ]
    return section(
        "compute",
        "Compute of the modification",
        text=[" ".join(regime.counting_note.split())],
        fields=fields,
    )


def _fields(name: str, f: Mapping[str, Any], regime: Regime) -> list[Document]:
    counted, line = figure_of(f["counted"]), f["line"]
    original = f["original_flop"]
    said = [
        f"{words} {n} {regime.comparison} {line[bound]}: {'yes' if past(n, Fraction(line[bound]), regime) else 'no'}"
        for words, n, bound in (
            ("lower bound", counted.lower, "upper"),
            ("estimate", counted.point, "point"),
            ("upper bound", counted.upper, "lower"),
        )
    ]
    return [
        given(f"{name}.original", "Original", f["original"]),
        given(
            f"{name}.original_flop", "Compute of the original, unrounded", original["point"], "FLOP, estimate"
        )
        if original is not None
        else unknown(
            f"{name}.original_flop", "Compute of the original", "not known: the text's fallback is the line"
        ),
        given(f"{name}.flop", "Compute of the modification", f"{two_figures(counted.point).text} FLOP", RULE),
        given(f"{name}.point", "Unrounded estimate", str(counted.point), "FLOP"),
        given(f"{name}.lower", "Unrounded lower bound", str(counted.lower), "FLOP"),
        given(f"{name}.upper", "Unrounded upper bound", str(counted.upper), "FLOP"),
        given(f"{name}.share", "Share of the original that is the line", f["share"]),
        given(f"{name}.comparison", "Unrounded comparison", "; ".join(said)),
        given(f"{name}.verdict", "Answer", _WORDS[f["verdict"]]),
        given(
            f"{name}.rounding", "What rounding does to it", _rounding(counted.point, line["point"], regime)
        ),
        *(field | {"name": f"{name}.{field['name']}"} for field in margin_fields(counted)),
    ]


def _rounding(point: int, line: str, regime: Regime) -> str:
    rounded = two_figures(point)
    if past(rounded.value.__floor__(), Fraction(line), regime) is past(point, Fraction(line), regime):
        return (
            f"nothing: the rounded {rounded.text} and the unrounded estimate are on the same side of the line"
        )
    return (
        f"ROUNDING MOVES THE ESTIMATE ACROSS THE LINE: the rounded {rounded.text} and the unrounded {point} are not on "
        f"the same side of {line}. The unrounded comparison holds."
    )


def every(m: Material) -> Document:
    """The one-third rule in short, beside a notification of the whole model."""
    of_modifiers = {r.id for r in m.regimes if r.scope == MODIFICATION}
    rows = [
        (
            f["regime"],
            f["original"],
            f["counted"]["point"],
            f"{f['comparison']} {f['line']['point']}",
            f["verdict"],
        )
        for f in m.report["modifications"]
        if f["regime"] in of_modifiers
    ]
    return section(
        "modification",
        "As a modification of another model (one-third rule)",
        tables=[
            table(
                "modification.rules",
                "Compute of the modification against the line",
                ("regime", "original", "FLOP, estimate", "line", "answer"),
                rows,
            )
        ],
    )
