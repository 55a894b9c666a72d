"""The draft of a coverage notice for California, New York, Illinois and Connecticut. Pure.

There 10^26 operations decide who is a frontier developer; no text read asks for the compute figure. So the notice goes
to the organisation's own people, says what it is or will be, and claims no duty to report compute (regulations.md 13.20).
"""

from collections.abc import Sequence

from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.rules import Verdict, in_force, meets, verdict
from flopmeter.collector.paper.blocks import Document, given, section, to_fill, unknown

from . import grounds
from .compute import figure_fields, margin_fields, summary
from .head import draft
from .material import Material

KIND = "coverage-notice"
ACT = "coverage"
RECIPIENT = "the organisation's own counsel: no authority asks for the compute figure"
NO_DUTY = (
    "None of these laws, as far as their texts were read, asks for a report of the compute figure. Past the line the "
    "organisation is covered, and other things are asked of it; the figures below are the reason, and not a filing."
)
FORECAST = "threshold.forecast"


def coverage_notice(m: Material, regimes: Sequence[Regime]) -> Document:
    """One notice over all of `regimes`, which are those whose act is coverage."""
    sections = [
        section(
            "identity",
            "Who is covered, and what of it is not in the books",
            text=[NO_DUTY],
            fields=[
                to_fill(
                    "organisation.name",
                    "Organisation",
                    "the legal person that trains, or initiates the training",
                ),
                to_fill(
                    "organisation.revenue",
                    "Group revenue of the year before",
                    "decides who is a large developer",
                ),
                given("run", "Run in the books", m.run),
            ],
        ),
        *(_of(m, regime) for regime in regimes),
        grounds.method(),
        grounds.evidence(m),
        grounds.approximations(m),
        grounds.assumptions(m),
        grounds.versions(m, regimes),
        grounds.open_questions(m, regimes),
    ]
    found = {r.id: summary(m.counted(r), r) for r in regimes}
    return draft(
        KIND,
        "Notice: which laws on frontier developers cover this organisation",
        m,
        recipient=RECIPIENT,
        sections=sections,
        figures=found,
    )


def _of(m: Material, regime: Regime) -> Document:
    figure = m.counted(regime)
    binds = in_force(regime, m.now_unix_ns)
    since = regime.effective.isoformat() if regime.effective is not None else "not known"
    fields = [
        given(f"{regime.id}.citation", "Under", regime.citation),
        given(
            f"{regime.id}.in_force",
            "In force",
            "yes" if binds else "no",
            f"effective {since}; as of {regime.status_as_of} {regime.status}",
        ),
        given(f"{regime.id}.line", "Line of coverage", grounds.line_of(regime)),
        given(f"{regime.id}.statement", "Statement", statement(m, regime)),
    ]
    prefixed = [*figure_fields(figure, regime), *margin_fields(figure, asked=False)]
    fields += [f | {"name": f"{regime.id}.{f['name']}"} for f in prefixed]
    if regime.deadlines:
        fields += [
            given(
                f"{regime.id}.deadline.{d.id}",
                "Deadline of another duty",
                d.what,
                f"to {d.recipient}; {d.source}",
            )
            for d in regime.deadlines
        ]
    else:
        fields.append(unknown(f"{regime.id}.deadline", "Deadline", regime.deadline))
    fields += grounds.conditions(regime)
    return section(
        regime.id,
        regime.title,
        text=[f"If the line is met: {' '.join(regime.when_met.split())}"],
        fields=fields,
    )


def statement(m: Material, regime: Regime) -> str:
    """Whether this organisation is, or will be, a frontier developer by this run. Nothing more is claimed."""
    figure = m.counted(regime)
    answer = None if figure is None else verdict(figure, regime)
    who = f"a frontier developer under {regime.title}, if the conditions below hold"
    if answer is Verdict.CROSSED:
        return f"This organisation is {who}: even the lower bound of this run's compute meets the line."
    plan = _known_to_be_met(m, regime)
    if plan:
        return f"This organisation will be {who}: {plan}. A text that reaches whoever intends to use that much reaches it now."
    if answer is Verdict.UNDETERMINED:
        return f"It cannot be told from this evidence whether this organisation is {who}: the line lies within the bounds."
    if answer is None:
        return "Nothing of this run has been metered yet, and no plan or forecast meets the line."
    return "By this run this organisation is not covered: even the upper bound is below the line, and no plan or forecast meets it."


def _known_to_be_met(m: Material, regime: Regime) -> str:
    """Why it is known that the line will be met; "": it is not."""
    plan = m.report["plan"]
    budget = None if plan is None else plan["budget_flop"]
    if budget is not None and meets(int(budget), regime):
        return f"the declared plan of {budget} FLOP meets the line"
    found = [e for e in m.of_regime(regime) if e["type"] == FORECAST]
    return f"the forecast of {found[-1]['time']} says that the line will be met" if found else ""
