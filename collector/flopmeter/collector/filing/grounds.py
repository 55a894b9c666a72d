"""What a draft's figure stands on: method, evidence, approximations, assumptions, what was left out, versions. Pure.

Each function is one section; kinds.py and its neighbours put them together. What people typed (names, reasons) is
passed on as it is: the renderings escape it.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from flopmeter.collector.law.events import NOT_RISK
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.paper.blocks import Document, given, section, table, to_fill, unknown
from flopmeter.collector.spelling import threshold_text

from .compute import figure_fields, margin_fields, unit_of
from .material import Material
from .rounding import decimal_text

METHOD = (
    (
        "Measured hardware use. On every node an agent reads the GPUs' hardware counters; the difference of two readings "
        "is the number of streaming-multiprocessor cycles in which each execution pipe was active. Operations are cycles × "
        "operations per cycle of that pipe and precision, dense, from a published table; a multiply-add is two operations "
        "and no operation is weighted by its precision. Cycles are whole numbers and are added exactly, over every "
        "device and minute, so that a change of the number or kind of devices needs no average."
    ),
)
EU_METHOD = (
    "This is the hardware approach of the guidelines (Annex A.2) with the utilisation counted instead of assumed; "
    "utilisation as the share of time in which any kernel ran is in no figure."
)
ASSUMPTIONS = (
    (
        "A tensor cycle whose precision no counter tells is taken at the precision that the job declared, or at BF16 where "
        "none did; the bounds take every precision that the pipe can do."
    ),
    "Time that nobody tagged counts, and so does what the regime's text is silent on.",
    "What a span of the run was for is what people said in the run registry; counters show how much, not what for.",
    "GPUs that flopmeter does not meter are in no total.",
)
_HOUR = 3600


def compute(m: Material, regime: Regime) -> Document:
    """The figure against its line."""
    return section(
        "compute",
        "Compute",
        text=[f"Counted by {_counting(regime)}: {' '.join(regime.counting_note.split())}"],
        fields=figure_fields(m.counted(regime), regime),
    )


def _counting(regime: Regime) -> str:
    profile = regime.counted_by
    return "all that was executed" if profile is None else f"profile {profile.id}, version {profile.version}"


def uncertainties(m: Material, regime: Regime, *, asked: bool = True) -> Document:
    """The interval, whether it is within the margin, and where its width comes from."""
    widths = [] if m.metered is None else m.metered["width"]
    return section(
        "uncertainties",
        "Uncertainties",
        fields=[*margin_fields(m.counted(regime), asked=asked), *_if_declared(m)],
        tables=[
            table(
                "uncertainties.width",
                "Where the width comes from (of the run's executed total)",
                ("cause", "FLOP", "why"),
                [(w["cause"], w["flop"], w["text"]) for w in widths],
            )
        ],
    )


def _if_declared(m: Material) -> Iterable[Document]:
    """How well the executed total is known on somebody's word; it makes no figure of a draft better."""
    found = None if m.metered is None else m.metered["accuracy"]["if_declared"]
    if found is not None and found["below_percent"] is not None:
        yield given(
            "margin.if_declared",
            "Interval if the declared precision were true of all tensor work",
            f"{found['below_percent']} % below, {found['above_percent']} % above the estimate",
            "of the executed total; no counter shows the precision, so that whoever relies on it answers for it",
        )


def method(*more: str) -> Document:
    """How the figure was made; `more` in the regime's own words."""
    return section("method", "Estimation approach", text=[*METHOD, *more])


def evidence(m: Material) -> Document:
    """How good what was measured is: by evidence class, with its share."""
    rows = [] if m.metered is None else _classes(m.metered["by_evidence_class"])
    return section(
        "evidence",
        "Evidence",
        text=[
            (
                "Classes from best to worst: A1 cycle counters, A2 percentages of elapsed cycles, A3 the same of an "
                "unconfirmed model, B exporters, C utilisation only (an upper bound), D none, gap (docs/metering.md)."
            )
        ],
        tables=[
            table(
                "evidence.classes",
                "Shares of device time by evidence class",
                ("class", "share of device time", "device-hours", "FLOP, estimate"),
                rows,
            )
        ],
    )


def _classes(found: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, part in found.items():
        share = decimal_text(Fraction(part["device_time_share"]) * 100)
        yield name, f"{share} %", _device_hours(part["device_seconds"]), part["flop"]["point"]


def approximations(m: Material) -> Document:
    """What was not read, and at what it is priced: from nothing to the most that the hardware can do."""
    d = m.metered
    if d is None:
        return section(
            "approximations", "Approximations", text=["Nothing was metered, so nothing was approximated."]
        )
    rows = [(reason, _device_hours(s)) for reason, s in d["coverage"]["gaps"].items()]
    points = []
    if d["unreported"]["device_seconds"]:
        nodes = ", ".join(d["unreported"]["nodes"])
        points.append(
            f"Agents that are not heard any more ({nodes}) may have done more: in the upper bound only."
        )
    if d["unreported"]["unpriced"]:
        points.append(f"Not priced, for want of a rate: {', '.join(d['unreported']['unpriced'])}.")
    if d["no_w_table"]:
        points.append(f"Metered in cycles only, no operations known per cycle: {', '.join(d['no_w_table'])}.")
    if d["apportioned_device_seconds"]:
        hours = _device_hours(d["apportioned_device_seconds"])
        points.append(f"{hours} device-hours were on GPUs shared with others: the split is in the bounds.")
    return section(
        "approximations",
        "Approximations",
        text=[
            (
                "A gap is time of a device without a reading. It is never taken as idle: its lower bound and estimate are "
                "nothing, its upper bound is the device's peak for all of it."
            )
        ],
        fields=[
            given(
                "gaps.device_hours", "Gaps, device-hours", _device_hours(d["coverage"]["gap_device_seconds"])
            ),
            given(
                "gaps.of_device_hours",
                "Of all device time, device-hours",
                _device_hours(d["coverage"]["expected_device_seconds"]),
            ),
        ],
        tables=[table("gaps.reasons", "Gaps by reason", ("reason", "device-hours"), rows)],
        points=points,
    )


def _device_hours(seconds: float) -> str:
    return decimal_text(Fraction(seconds) / _HOUR, 2)


def assumptions(m: Material) -> Document:
    d = m.metered
    declared = ", ".join(d["declared_dtypes"]) if d is not None and d["declared_dtypes"] else ""
    return section(
        "assumptions",
        "Assumptions",
        fields=[
            given("assumptions.dtypes", "Precisions that the jobs declared", declared)
            if declared
            else unknown("assumptions.dtypes", "Precisions that the jobs declared", "none; BF16 was taken")
        ],
        points=ASSUMPTIONS,
    )


def lineage(m: Material, regime: Regime) -> Document:
    """What the run stands on, and what of that the regime counts."""
    parents = m.report["lineage"]["parents"]
    rows = [(p["relation"], p["parent"], _parent(p)) for p in parents]
    found = m.report["countable"].get(regime.id, {"ancestors": []})["ancestors"]
    counted = [(a["name"], ", ".join(a["path"]), a["flop"]["point"]) for a in found]
    return section(
        "lineage",
        "Lineage",
        tables=[
            table("lineage.parents", "The run stands on", ("relation", "run or model", "known of it"), rows),
            table("lineage.counted", "Counted with it", ("run or model", "how", "FLOP, estimate"), counted),
        ],
    )


def _parent(p: Mapping[str, Any]) -> str:
    if not p["known"]:
        return "nothing: it adds nothing to any total"
    if p["external"] is not None:
        return f"{p['external']['flop']['point']} FLOP, by {p['external']['source']}"
    return "metered here"


def exclusions(m: Material, regime: Regime) -> Document:
    """What the regime leaves out of the run, on whose word and on what evidence; and where its text is silent."""
    counted = m.report["countable"].get(regime.id, {"left_out": [], "silent": []})
    head = (
        "of",
        "what",
        "FLOP, estimate",
        "the text says",
        "source",
        "who said so, when and why",
        "evidence",
    )
    return section(
        "exclusions",
        "What was left out, and where the text is silent",
        text=[
            (
                "An exclusion needs a person's recorded word; without one the time counts. Whose word, when, why and on "
                "what evidence stands beside each."
            )
        ],
        tables=[
            table("exclusions.left_out", "Left out", head, [_part(m, p) for p in counted["left_out"]]),
            table("exclusions.silent", "Silent, and counted", head, [_part(m, p) for p in counted["silent"]]),
        ],
    )


def _part(m: Material, part: Mapping[str, Any]) -> tuple[str, ...]:
    said = [f"entry {s['entry']}, {s['who']}, {s['time']}: {s['why']}" for s in part["said_by"]]
    evidence = [e for s in part["said_by"] for e in m.evidence.get(s["entry"], ())]
    words = part["words"] + (" (flopmeter's reading)" if part["inferred"] else "")
    return (
        part["of"] or m.run,
        part["activity"],
        part["flop"]["point"],
        words,
        part["source"],
        "; ".join(said) or "nobody: it was not tagged",
        "; ".join(evidence) or "none named",
    )


def versions(m: Material, regimes: Iterable[Regime]) -> Document:
    """Which texts, tables and programs made it: what somebody needs to make it again."""
    b = m.books
    fields = []
    for regime in regimes:
        fields.append(
            given(f"regime.{regime.id}", f"Regime {regime.id}", regime.version, f"SHA-256 {regime.digest}")
        )
        profile = regime.counted_by
        if profile is not None and all(f["name"] != f"profile.{profile.id}" for f in fields):
            fields.append(
                given(
                    f"profile.{profile.id}",
                    f"Counting profile {profile.id}",
                    profile.version,
                    f"SHA-256 {profile.digest}",
                )
            )
    agents = ", ".join(f"{v or 'not said'} ({n})" for v, n in sorted(b.agent_versions.items())) or "none"
    books = f"{b.position} records" + (f", the last with SHA-256 {b.record_hash}" if b.record_hash else "")
    said = f"{b.entries} entries" + (f", the last with SHA-256 {b.entries_hash}" if b.entries_hash else "")
    return section(
        "versions",
        "Versions",
        fields=[
            *fields,
            given("w_table", "Operations per cycle, table", b.w_table, f"SHA-256 {b.w_table_digest}"),
            given("collector", "Made by flopmeter", b.collector_version),
            given("agents", "Agents' versions (agents)", agents, "as each agent of the books told last"),
            given("books", "Books", books),
            given("registry", "Run registry", said),
        ],
    )


def open_questions(m: Material, regimes: Iterable[Regime]) -> Document:
    """What a lawyer has to answer, and what no counter sees; with the words of regulations.md 13.28."""
    regimes = list(regimes)
    questions: dict[str, list[str]] = {}
    for regime in regimes:
        profile = regime.counted_by
        for text in (*regime.open_questions, *(profile.open_questions if profile is not None else ())):
            questions.setdefault(text, []).append(regime.id)
    return section(
        "open",
        "Open questions, for a lawyer",
        fields=[
            given(
                "open.profiles",
                "Counted by",
                "; ".join(dict.fromkeys(f"{r.id}: {_counting(r)}" for r in regimes)),
            )
        ],
        points=[
            *(
                q if len(regimes) == 1 else f"{', '.join(dict.fromkeys(ids))}: {q}"
                for q, ids in questions.items()
            ),
            *m.report["unsaid"],
        ],
        text=[NOT_RISK],
    )


def conditions(regime: Regime) -> list[Document]:
    """What else must hold, that no counter sees."""
    return [
        to_fill(
            f"condition.{regime.id}.{n}", text, "no counter sees this: a person answers yes or no, and why"
        )
        for n, text in enumerate(regime.conditions, 1)
    ]


def line_of(regime: Regime) -> str:
    """More than 10^25 FLOP."""
    if not regime.has_line:
        return "no number in the text"
    word = "at or above" if regime.comparison == ">=" else "more than"
    return f"{word} {threshold_text(regime.threshold_flop)} {unit_of(regime)}"
