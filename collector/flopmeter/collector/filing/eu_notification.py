"""The draft of an EU notification, Art. 52(1): the compute that triggers it and how it was estimated. Pure.

Content: reference/regulations.md section 4, "Notification content"; section 13, items 12, 13, 17, 19 and 28.
"""

from flopmeter.collector.law.regimes import RUN, Regime
from flopmeter.collector.paper.blocks import Document, given, section, table, to_fill

from . import clock, grounds, modified
from .compute import summary
from .head import draft, filer
from .material import Material

KIND = "eu-notification"
REGIME = "eu-systemic-risk"


def eu_notification(m: Material, regime: Regime) -> Document:
    """Under `regime`: eu-systemic-risk, one of those for modifiers, or a site's own text."""
    whole = regime.scope == RUN
    basis = modified.basis_of(m, regime)
    sections = [
        section(
            "identity",
            "Who notifies, of what",
            text=[" ".join(regime.when_met.split())],
            fields=[
                *filer(
                    to_fill(
                        "filer.rebuttal",
                        "Arguments under Art. 52(2)",
                        "whether any are put forward; they do not suspend the duties",
                    )
                ),
                given("run", "Run in the books", m.run),
                given("citation", "Under", regime.citation),
                given(
                    "threshold",
                    "Threshold",
                    grounds.line_of(regime)
                    if whole
                    else f"{regime.comparison} {regime.share} of the original's compute",
                ),
                *grounds.conditions(regime),
            ],
        ),
        clock.trigger(m, regime),
        grounds.compute(m, regime) if whole else modified.compute(m, regime),
        grounds.uncertainties(m, basis),
        grounds.method(grounds.EU_METHOD),
        grounds.evidence(m),
        second_method(m),
        grounds.approximations(m),
        grounds.assumptions(m),
        grounds.lineage(m, basis),
        modified.every(m),
        grounds.exclusions(m, basis),
        grounds.versions(m, [regime]),
        grounds.open_questions(m, [regime]),
    ]
    return draft(
        KIND,
        "Notification of a general-purpose AI model with systemic risk",
        m,
        recipient=regime.recipient,
        sections=sections,
        figures=summary(m.counted(regime), regime) if whole else None,
    )


def second_method(m: Material) -> Document:
    """The other way to the figure, where there is one, and whether the two agree (regulations.md 13.13)."""
    p = None if m.metered is None else m.metered.get("progress")
    rows = [
        (e["time"], e["id"], str(e["data"].get("message", "")))
        for e in m.events
        if e["type"] == "method.disagrees"
    ]
    fields = []
    if p is not None:
        fields = [
            given(
                "second.declared_flop", "Model FLOP that the training code claims", str(p["declared_flop"])
            ),
            given("second.measured", "FLOP measured in the same hours", p["measured"]["point"]),
            given("second.agreement", "Do they agree", p["agreement"], f"margin {p['margin_percent']} %"),
        ]
    return section(
        "second",
        "Second, independent method",
        text=[]
        if fields
        else [
            (
                "None is in the books of this run: a formula (6 × parameters × tokens) held against the counters would be "
                "one (docs/estimate.md)."
            )
        ],
        fields=fields,
        tables=[table("second.events", "Methods that disagreed", ("time", "id", "says"), rows)],
    )
