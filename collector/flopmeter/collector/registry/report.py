"""`runs report RUN`: what stands behind a run's totals, on whose word, and what is open. Documents; no clock, no SQL.

It is put together from the run's own document (`runs show --json`), the registry and the rows behind both, so that no
figure here is another than there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flopmeter.collector.books import Slot
from flopmeter.collector.figures import Model, Tally
from flopmeter.collector.law.countable import UNTAGGED, Countable, Part
from flopmeter.collector.law.events import NOT_RISK
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.flop import ZERO, Figure, total
from flopmeter.contract.w_table import WTable

from .counting import Counting
from .entries import Declare, Entry, Retract
from .kind import Looks, guess_json
from .known import job_text
from .planned import NOT_BEGUN, declared_document
from .run_books import Member, RunBooks
from .shares import Told, told
from .state import Registry, names_of
from .when import hour_text
from .words import entry_document, names_json

MAX_JOBS = 100
#: What no entry and no counter can show, whatever the figures are.
UNSAID = (
    "Who said something is what the machine's login said; entries are hash-chained, and not yet signed by person.",
    "Purposes and links are the lab's word. Counters show how much was computed, not what for.",
    "Time that nobody tagged is counted. Tags of time hold for whole hours of UTC, by when a window of usage ended.",
    "A window over several hours, as after an outage, is what was said of all of them alike; else it counts.",
    "GPUs that flopmeter does not meter are in no total.",
    NOT_RISK,
)
_SECOND_NS = 1_000_000_000
#: What a report takes over from `runs show --json` as it is.
_MEASURED = (
    "reasons",
    "by_evidence_class",
    "by_pipe",
    "by_model",
    "declared_dtypes",
    "energy_joules",
    "energy_unmeasured_device_seconds",
    "unreported",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is made of, at one moment."""

    run: str
    document: Mapping[str, Any] | None  # `runs show --json`; None: declared, and nothing metered yet
    counting: Counting
    books: RunBooks
    regimes: tuple[Regime, ...]
    models: Mapping[int, Model]
    table: WTable
    now_unix_ns: int

    @property
    def registry(self) -> Registry:
        return self.counting.registry


def report_document(asked: Asked) -> dict[str, Any]:
    """The whole report; FLOP as decimal strings."""
    registry, run = asked.registry, asked.run
    about = registry.about(run)
    metered = asked.document
    return {
        "run": run,
        "time": time_text(asked.now_unix_ns),
        "status": NOT_BEGUN if metered is None else metered["status"],
        "first_seen": None if metered is None else metered["first_seen"],
        "last_seen": None if metered is None else metered["last_seen"],
        "declared": declared_document(registry, run),
        "names": names_json(registry, run),
        "plan": _plan(registry.declared(run), metered, asked.now_unix_ns),
        "executed": None if metered is None else metered["executed"],
        "accuracy": None if metered is None else metered["accuracy"],
        "coverage": None if metered is None else metered["coverage"],
        "thresholds": [] if metered is None else metered["thresholds"],
        **{name: None if metered is None else metered[name] for name in _MEASURED},
        "jobs": _jobs(asked),
        "purposes": _purposes(asked),
        "lineage": _lineage(asked),
        "countable": {r.id: _countable(asked, r) for r in asked.regimes},
        "modifications": [] if metered is None else metered["modifications"],
        "entries": [entry_document(e, registry) for e in about],
        "corrections": [entry_document(e, registry) for e in about if _corrects(registry, e)],
        "open_questions": _open_questions(asked.regimes),
        "unsaid": list(UNSAID),
        "w_table": asked.table.id,
    }


def _plan(
    declared: Declare | None, metered: Mapping[str, Any] | None, now_unix_ns: int
) -> dict[str, Any] | None:
    """The plan against what was measured; shares in millionths, rounded down, the upper one up. None: there is no plan."""
    if declared is None or (declared.budget_flop is None and declared.expected_end_unix_ns is None):
        return None
    plan: dict[str, Any] = {"budget_flop": None, "budget_used_ppm": None, "past_expected_end": None}
    if declared.budget_flop is not None:
        done = dict.fromkeys(("lower", "point", "upper"), 0)
        if metered is not None:
            done = {name: int(metered["executed"]["flop"][name]) for name in done}
        plan["budget_flop"] = str(declared.budget_flop)
        budget = declared.budget_flop
        used = {name: n * 10**6 // budget for name, n in done.items()}
        plan["budget_used_ppm"] = used | {"upper": -(-done["upper"] * 10**6 // budget)}
    if declared.expected_end_unix_ns is not None:
        plan["past_expected_end"] = now_unix_ns > declared.expected_end_unix_ns
    return plan


def _jobs(asked: Asked) -> list[dict[str, Any]]:
    """The run's jobs, the largest first, each with which rule or person put it here."""
    tallies: dict[str, Tally] = {}
    for row in asked.books.hours(asked.run):
        tallies.setdefault(job_text(row.job), Tally()).add(row.key, row.dtype, row.sums)
    members: dict[str, list[Member]] = {}
    for m in asked.books.members(asked.run):
        members.setdefault(job_text(m.job), []).append(m)
    jobs: list[dict[str, Any]] = []
    for name, found in members.items():
        priced = tallies.get(name, Tally()).priced(asked.models, asked.table)
        flop = total(p.flop for p in priced)
        jobs.append(
            {
                "job": name,
                "user": found[0].user,
                "steps": sorted({m.step for m in found}),
                "restarts": max(m.restart for m in found),
                "rules": sorted({m.rule for m in found if m.assigned is None}),
                "assigned_by": sorted({m.assigned.number for m in found if m.assigned is not None}),
                "first_seen": time_text(min(m.first_unix_ns for m in found)),
                "last_seen": time_text(max(m.last_unix_ns for m in found)),
                "device_seconds": sum(p.sums[0] for p in priced) / _SECOND_NS,
                "flop": figure_json(flop),
            }
        )
    jobs.sort(key=lambda j: (-int(j["flop"]["point"]), j["job"]))
    return jobs


def _purposes(asked: Asked) -> list[dict[str, Any]]:
    """What the run's time was for, as far as anybody said, and what it looks like: the largest first."""
    tallies: dict[Told, Tally] = {}
    hourly: dict[Told, Looks] = {}
    for row in asked.books.hours(asked.run):
        what = told(asked.registry, asked.run, row.job, row.slot)
        tallies.setdefault(what, Tally()).add(row.key, row.dtype, row.sums)
        hourly.setdefault(what, Looks()).add(row.slot, row.key, row.sums)
    found: list[dict[str, Any]] = []
    for what, tally in tallies.items():
        priced = tally.priced(asked.models, asked.table)
        found.append(
            {
                "purpose": UNTAGGED if what.purpose is None else what.purpose.value,
                "recomputation": None if what.recomputation is None else _fraction(what.recomputation),
                "entries": list(what.entries),
                "across": list(what.across),
                "spans": _spans(hourly[what].slots),
                "device_seconds": sum(p.sums[0] for p in priced) / _SECOND_NS,
                "flop": figure_json(total(p.flop for p in priced)),
                "looks_like": guess_json(hourly[what].guess(), what.purpose),
            }
        )
    found.sort(key=lambda p: (-int(p["flop"]["point"]), p["purpose"]))
    return found


def _fraction(part: Fraction) -> str:
    return f"{part.numerator}/{part.denominator}"


def _spans(slots: Iterable[Slot]) -> list[list[str]]:
    """Hours in a row as [begin, end)."""
    spans: list[list[int]] = []
    for slot in sorted(slots, key=lambda s: s.first):
        if spans and spans[-1][1] >= slot.first:
            spans[-1][1] = max(spans[-1][1], slot.hour + 1)
        else:
            spans.append([slot.first, slot.hour + 1])
    return [[hour_text(begin), hour_text(end)] for begin, end in spans]


def _lineage(asked: Asked) -> dict[str, Any]:
    lineage = asked.counting.lineage
    externals = asked.registry.externals
    children = sorted({name for name in lineage.descendants([asked.run]) if name != asked.run})
    return {
        "parents": [
            {
                "relation": link.relation.value,
                "parent": link.parent,
                # whether the books or anybody's word have a figure of it: else it adds nothing to any total
                "known": bool(asked.counting.shares(link.parent)),
                "external": None
                if link.parent not in externals
                else {
                    "flop": figure_json(externals[link.parent].flop),
                    "source": externals[link.parent].source,
                },
            }
            for link in lineage.parents(asked.run)
        ],
        "stood_on_by": children,
    }


def _countable(asked: Asked, regime: Regime) -> dict[str, Any]:
    """What the regime counts of the run and of what it stands on, and every part of that."""
    profile = regime.counted_by
    result: dict[str, Any] = {
        "title": regime.title,
        "unit": regime.unit,
        "counting": regime.counting,
        "note": regime.counting_note,
        "profile": None,
        "flop": None,
        "left_out": [],
        "silent": [],
        "ancestors": [],
    }
    if asked.document is not None:
        result["flop"] = asked.document["countable"][regime.id]["flop"]
    if profile is not None:
        found = asked.counting.countable(asked.run, profile)
        result["profile"] = {"id": profile.id, "version": profile.version, "digest": profile.digest}
        result["left_out"] = [_part(asked.registry, p) for p in found.left_out]
        result["silent"] = [_part(asked.registry, p) for p in found.silent]
        result["ancestors"] = _ancestors(found)
    return result


def _part(registry: Registry, part: Part) -> dict[str, Any]:
    said = [e for number in part.entries if (e := registry.entry(number)) is not None]
    return {
        "of": part.of or None,
        "activity": part.activity,
        "flop": figure_json(part.flop),
        "integer_ops": figure_json(part.integer_ops),
        "words": part.ruling.words,
        "source": part.ruling.source,
        "inferred": part.ruling.inferred,
        "path": list(part.path),
        "said_by": [
            {"entry": e.number, "who": e.who, "why": e.why, "time": time_text(e.unix_ns)} for e in said
        ],
    }


def _ancestors(found: Countable) -> list[dict[str, Any]]:
    sums: dict[str, tuple[tuple[str, ...], Figure]] = {}
    for part in found.parts:
        if part.of and part.counted:
            path, before = sums.get(part.of, (part.path, ZERO))
            sums[part.of] = path, before + part.flop
    return [
        {"name": name, "path": list(path), "flop": figure_json(flop)} for name, (path, flop) in sums.items()
    ]


def _corrects(registry: Registry, entry: Entry) -> bool:
    """Whether the entry takes an earlier word back, was taken back, or says anew what was said before."""
    if isinstance(entry.statement, Retract) or entry.number in registry.retracted:
        return True
    return isinstance(entry.statement, Declare) and any(
        isinstance(e.statement, Declare) and e.number < entry.number and _again(e.statement, entry.statement)
        for e in registry.in_force
    )


def _again(old: Declare, new: Declare) -> bool:
    if old.run != new.run:
        return False
    fields = [name for name in Declare.__dataclass_fields__ if name != "run"]
    both = [
        name
        for name in fields
        if getattr(old, name) not in (None, ()) and getattr(new, name) not in (None, ())
    ]
    return any(getattr(old, name) != getattr(new, name) for name in both)


def _open_questions(regimes: Sequence[Regime]) -> dict[str, list[str]]:
    """What a lawyer has to answer, of the regimes and of their counting profiles."""
    found: dict[str, list[str]] = {}
    for regime in regimes:
        profile = regime.counted_by
        texts = [*regime.open_questions, *(profile.open_questions if profile is not None else ())]
        found[regime.id] = list(dict.fromkeys(texts))
    return found


def known_run(asked_run: str, registry: Registry, metered: Mapping[str, Any] | None) -> bool:
    """Whether there is anything to report of the run."""
    return metered is not None or any(asked_run in names_of(e.statement) for e in registry.entries)
