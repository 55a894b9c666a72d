"""The draft of the EU documentation fields: the compute part of the Model Documentation Form. Pure.

What each recipient is owed is in reference/regulations.md section 4 (Annex XI s.1 pt 2(d),(e), and the form of the Code
of Practice) and section 13, items 18 and 27. A field that is not owed is listed as withheld, with its reason; what
would give it away (exact figures, counts of devices, the evidence) is then nowhere in the document.
"""

from enum import StrEnum
from fractions import Fraction

from flopmeter.collector.errors import FilingError
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.paper.blocks import Document, given, section, to_fill, unknown, withheld

from . import grounds
from .compute import figure_fields, margin_fields, summary
from .head import draft, filer
from .material import Material
from .rounding import RULE, decimal_text, magnitude_text, months_range, two_figures

KIND = "eu-documentation"
REGIME = "eu-systemic-risk"
#: The regimes of the EU's two definitions of training compute.
DEFINITIONS = ("eu-gpai", "eu-systemic-risk")
_MJ_PER_MWH = 3_600_000_000_000  # 1 MWh = 3.6e9 J
_WALL_DAY_NS = 86_400_000_000_000
ENERGY_BOUNDARY = (
    "Boundary: the GPUs alone, by their own energy counters; neither the rest of the node, nor network, storage, "
    "cooling or conversion losses."
)
WALL_CLOCK = "from the first record of the run to its last, pauses included"


class Recipient(StrEnum):
    """Who gets the form."""

    AI_OFFICE = "ai-office"
    NATIONAL = "national-authority"
    DOWNSTREAM = "downstream"

    @property
    def words(self) -> str:
        return {"ai-office": "AI Office", "national-authority": "national competent authority"}.get(
            self.value, "downstream provider"
        )


def eu_documentation(m: Material, regime: Regime, recipient: Recipient) -> Document:
    """The form's compute fields as `recipient` is owed them. Raises FilingError where nothing was metered."""
    if m.metered is None:
        raise FilingError(
            f"run {m.run!r}: expected a run of which something was metered, found only what people said of it",
            "the form states what a training took; make it when there is something in the books",
        )
    whole = recipient is Recipient.AI_OFFICE
    sections = [
        section(
            "identity", "Who documents, and what", fields=[*filer(), given("run", "Run in the books", m.run)]
        ),
        section(
            "form",
            f"Model Documentation Form: training and energy, for the {recipient.words}",
            fields=[*_compute(m, regime, recipient), *_time(m, recipient), *_energy(m, recipient)],
        ),
        _method(recipient),
        section(
            "inference",
            "Inference",
            fields=[
                _not_owed("inference.benchmark", "Compute of inference", recipient)
                if recipient is Recipient.DOWNSTREAM
                else to_fill(
                    "inference.benchmark",
                    "Compute of inference",
                    "FLOP, task and hardware of the benchmark that the form names; flopmeter meters no benchmark",
                )
            ],
        ),
    ]
    if whole:
        sections += [
            grounds.uncertainties(m, regime),
            grounds.evidence(m),
            grounds.approximations(m),
            grounds.assumptions(m),
            grounds.lineage(m, regime),
            grounds.exclusions(m, regime),
        ]
        sections += [grounds.versions(m, [regime])]
    sections.append(grounds.open_questions(m, [regime]))
    return draft(
        KIND,
        f"Model documentation, compute fields, for the {recipient.words}",
        m,
        recipient=recipient.words,
        sections=sections,
        figures=summary(m.counted(regime), regime) if whole else None,
    )


def _not_owed(name: str, label: str, recipient: Recipient) -> Document:
    return withheld(
        name, label, f"the form does not give it to a {recipient.words} (regulations.md section 4)"
    )


def _compute(m: Material, regime: Regime, recipient: Recipient) -> list[Document]:
    figure = m.counted(regime)
    assert figure is not None  # something was metered
    if recipient is Recipient.AI_OFFICE:
        return [*figure_fields(figure, regime), *margin_fields(figure), *_other_definition(m, regime)]
    if recipient is Recipient.DOWNSTREAM:
        return [_not_owed("compute.flop", "Compute of training", recipient)]
    reason = "the form gives a national authority the order of magnitude only"
    if not figure.point:
        order = unknown(
            "compute.magnitude", "Compute of training, FLOP", "no counter gives an estimate of it"
        )
    elif _orders(figure.lower) == _orders(figure.upper):
        order = given("compute.magnitude", "Compute of training, FLOP", magnitude_text(figure.point))
    else:
        order = given(
            "compute.magnitude",
            "Compute of training, FLOP",
            magnitude_text(figure.point),
            "the order of the estimate; its bounds are of more than one order",
        )
    return [order, withheld("compute.flop", "Compute of training, two significant figures", reason)]


def _other_definition(m: Material, regime: Regime) -> list[Document]:
    """The EU counts in two ways: narrow for the 10^23 indicator, broad for systemic risk (regulations.md 13.6)."""
    found = []
    for other in (r for r in m.regimes if r.id in DEFINITIONS and r.id != regime.id):
        figure = m.counted(other)
        if figure is not None and figure.point:
            note = f"unrounded {figure.point}, between {figure.lower} and {figure.upper}; for the other test"
            value = f"{two_figures(figure.point).text} FLOP"
            found.append(given(f"compute.{other.id}", f"Compute as {other.id} counts it", value, note))
    return found


def _orders(n: int) -> str:
    return magnitude_text(n) if n else ""


def _time(m: Material, recipient: Recipient) -> list[Document]:
    if recipient is Recipient.DOWNSTREAM:
        return [_not_owed("time.training", "Duration of training", recipient)]
    span, devices = m.span_unix_ns, m.device_days
    assert span is not None
    assert devices is not None
    if recipient is Recipient.NATIONAL:
        reason = "the form gives a national authority a range only"
        return [
            given(
                "time.range", "Duration of training", months_range(*span), f"calendar months, {WALL_CLOCK}"
            ),
            withheld("time.wall_clock_days", "Wall-clock days", reason),
            withheld("time.hardware_days", "Hardware-days", reason),
        ]
    wall = Fraction(span[1] - span[0], _WALL_DAY_NS)
    return [
        given("time.wall_clock_days", "Wall-clock days", decimal_text(wall, 2), WALL_CLOCK),
        given(
            "time.hardware_days",
            "Hardware-days",
            decimal_text(devices, 2),
            "days of all devices that the run held, gaps included; a MIG instance is one device",
        ),
    ]


def _energy(m: Material, recipient: Recipient) -> list[Document]:
    """Annex XI 2(e), with its boundary. Time whose energy nobody read is said, and never taken as nought."""
    label = "Energy of training, MWh"
    if recipient is Recipient.DOWNSTREAM:
        return [_not_owed("energy.mwh", label, recipient)]
    d = m.metered
    assert d is not None
    observed = Fraction(d["coverage"]["observed_device_seconds"])
    unread = Fraction(d["energy_unmeasured_device_seconds"])
    missing = unread + Fraction(d["coverage"]["gap_device_seconds"])
    if unread >= observed:
        why = "no energy counter was read: N/A unless the compute provider states it"
        return [unknown("energy.mwh", label, why)]
    mwh = Fraction(round(Fraction(d["energy_joules"]) * 1000), _MJ_PER_MWH)
    at_least = "at least " if missing else ""
    note = f"{ENERGY_BOUNDARY} {RULE[0].upper()}{RULE[1:]}."
    if missing and recipient is Recipient.AI_OFFICE:
        note += f" {decimal_text(missing / 3600, 2)} device-hours without a reading are not in it."
    elif missing:
        note += " Time without a reading is not in it."
    return [given("energy.mwh", label, f"{at_least}{two_figures(mwh).text}", note)]


def _method(recipient: Recipient) -> Document:
    if recipient is Recipient.AI_OFFICE:
        return section(
            "method",
            "Method",
            text=[
                *grounds.METHOD,
                grounds.EU_METHOD,
                f"Energy: the difference of two readings, added. {ENERGY_BOUNDARY}",
            ],
        )
    if recipient is Recipient.DOWNSTREAM:
        return section(
            "method", "Method", fields=[_not_owed("method", "Methods of compute and energy", recipient)]
        )
    return section(
        "method",
        "Method",
        text=[
            f"Energy: the difference of two readings of each GPU's energy counter, added. {ENERGY_BOUNDARY}"
        ],
        fields=[
            withheld(
                "method.compute",
                "Method of the compute figure",
                "the form gives a national authority that of energy only",
            )
        ],
    )
