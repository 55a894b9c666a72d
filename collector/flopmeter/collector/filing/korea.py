"""The draft of the data part of a submission under Korea's AI Basic Act, Art. 32. Pure.

The act asks for results of risk identification, assessment and mitigation, none of which is in these books: drafted is
the cumulative compute and its method; what else must hold stands as questions (reference/regulations.md section 5).
"""

from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.paper.blocks import Document, given, section, to_fill, unknown

from . import grounds
from .compute import summary
from .head import draft, filer
from .material import Material

KIND = "korea-submission"
REGIME = "korea"
MEASURED = (
    "Of the three methods of the draft notice (mathematical-theoretical, empirical-statistical, measured hardware use) "
    "this is measured hardware use."
)
_ASKED = (
    ("results.identification", "Results of life-cycle risk identification"),
    ("results.assessment", "Results of risk assessment"),
    ("results.mitigation", "Results of risk mitigation"),
    ("results.monitoring", "The incident-monitoring system"),
)


def _not_found(regime: Regime) -> str:
    said = regime.deadline
    return said if said.startswith("not found") else f"not found: {said}"


def korea_submission(m: Material, regime: Regime) -> Document:
    """Under `regime`: korea, or a site's own text of it."""
    deadline = (
        [given("deadline", "Deadline", regime.deadline)]
        if regime.deadlines
        else [unknown("deadline", "Deadline", _not_found(regime))]
    )
    sections = [
        section(
            "identity",
            "Who submits, of what",
            text=[
                " ".join(regime.when_met.split()),
                "The duty needs all of it: the compute, and every condition below. Compute alone decides nothing.",
            ],
            fields=[
                *filer(),
                given("run", "Run in the books", m.run),
                given("citation", "Under", regime.citation),
                given("threshold", "Threshold", grounds.line_of(regime)),
                *grounds.conditions(regime),
                *deadline,
            ],
        ),
        section(
            "results",
            "What the act asks for beside the figure",
            fields=[to_fill(name, label, "not in these books") for name, label in _ASKED],
        ),
        grounds.compute(m, regime),
        grounds.method(MEASURED),
        grounds.uncertainties(m, regime, asked=False),
        grounds.evidence(m),
        grounds.approximations(m),
        grounds.assumptions(m),
        grounds.lineage(m, regime),
        grounds.exclusions(m, regime),
        grounds.versions(m, [regime]),
        grounds.open_questions(m, [regime]),
    ]
    return draft(
        KIND,
        "Data part of a submission on the safety duty",
        m,
        recipient=regime.recipient,
        sections=sections,
        figures=summary(m.counted(regime), regime),
    )
