"""What starts a regime's clock, and until when: events, deadlines, the plan and the last kept forecast of a run. Pure.

Known is not the same as met: Art. 52(1) counts from when it becomes known that the threshold will be met, and that may be
before any event here. So that moment is a person's to fill in, beside what the books know (regulations.md 13.9, 13.11).
"""

from collections.abc import Iterable, Mapping

from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.paper.blocks import Document, given, section, table, to_fill
from flopmeter.collector.spelling import time_text

from .material import Material
from .rounding import RULE, two_figures

_FORESEEN = {
    "crossed": "already met",
    "will-be-met": "will be met",
    "may-be-met": "may be met",
    "not-in-sight": "not in sight",
    "too-young": "too early to tell",
}


def trigger(m: Material, regime: Regime) -> Document:
    """The regime's events of the run, its deadlines, and what people planned."""
    events = [(e["time"], e["type"], e["id"], str(e["data"].get("message", ""))) for e in m.of_regime(regime)]
    deadlines = [
        (d["what"], d["recipient"], d["trigger"], d["due_local"], "overdue" if d["overdue"] else d["state"])
        for d in m.deadlines
        if d["regime"] == regime.id
    ]
    return section(
        "trigger",
        "What started the clock",
        text=[f"Deadline, in the words of the regime file: {regime.deadline}"],
        fields=[
            *_plan(m),
            *_forecast(m, regime),
            to_fill(
                "trigger.known_at",
                "When it became known that the threshold would be met",
                "the clock starts then, if that was before the first event below",
            ),
        ],
        tables=[
            table("trigger.events", "Events of this regime", ("time", "type", "id", "says"), events),
            table(
                "trigger.deadlines",
                "Deadlines that they opened",
                ("what", "recipient", "since", "due", "state"),
                deadlines,
            ),
        ],
    )


def _plan(m: Material) -> Iterable[Document]:
    plan = m.report["plan"]
    if plan is not None and plan["budget_flop"] is not None:
        flop = plan["budget_flop"]
        note = f"as declared by the lab; {two_figures(int(flop)).text} FLOP, {RULE}"
        yield given("plan.budget_flop", "Planned compute", flop, note)


def _forecast(m: Material, regime: Regime) -> Iterable[Document]:
    """What the last kept forecast says of the regime's own line."""
    f = m.forecast
    lines = [] if f is None else [line for line in f["lines"] if line["regime"] == regime.id]
    if f is None or not lines:
        return
    line = lines[0]
    made = time_text(int(f["unix_ns"]))
    yield given(
        "forecast.answer",
        "Last forecast of the threshold",
        _FORESEEN.get(line["answer"], line["answer"]),
        f"made {made}, at {f['confidence_percent']} % confidence, up to {time_text(int(f['until']))}; no measurement",
    )
    crosses: Mapping[str, str | None] = line["crosses"] or {}
    said = [f"{words} {time_text(int(at))}" for words, key in _WHEN if (at := crosses.get(key)) is not None]
    if said:
        yield given("forecast.crosses", "When it would be met, by that forecast", ", ".join(said))


#: A time that is not there lies beyond what was looked at.
_WHEN = (("at the earliest", "earliest"), ("as estimated", "point"), ("at the latest", "latest"))
