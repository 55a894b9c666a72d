"""A run's report as sections of text, fields and tables: what its HTML and its Markdown are both made of. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flopmeter.cli.layout import hours
from flopmeter.cli.output import band_texts, flop_text, upper_text
from flopmeter.collector.forecast.view import dates
from flopmeter.collector.law.events import NOT_RISK
from flopmeter.collector.law.regimes_view import power
from flopmeter.collector.paper.blocks import given, section, table
from flopmeter.collector.report.plots import Course
from flopmeter.collector.spelling import minute

from .words import calibration_words, entries_words, figure_words, hour_words, names_text, used_words

MAX_JOBS = 25
MAX_SPANS = 6
MAX_QUESTIONS = 12
_BOUNDS = ("lower", "point", "upper")
_ANSWERS = {
    "crossed": "crossed",
    "will-be-met": "will be met",
    "may-be-met": "may be met",
    "not-in-sight": "not in sight",
    "too-young": "too early to tell",
}
#: What the figures rest on, and what that proves (reference/attestation.md 1).
RESTS_ON = (
    (
        "Agents on the nodes read counters of the GPUs, add up SM-cycles per job in integers, and sign each batch. The "
        "collector checks signature and order, and books each cycle once. FLOP are cycles times the operations that a cycle "
        "can do, by the table named below; where a counter does not tell which, the bounds hold every case."
    ),
    "Time that was not read is a gap, priced from 0 to the most the device can do. Nothing unread is taken for idle.",
)
NOT_PROVEN = (
    (
        "This page is not signed. It says what the books say; `flopmeter attest create` makes a signed statement that others "
        "can check."
    ),
    (
        "Signatures and the evidence log show that records were not changed since they were recorded. They do not show that "
        "they were recorded truthfully, nor that nothing was left out."
    ),
)

Section = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """A report with what is drawn and listed beside it."""

    report: Mapping[str, Any]  # `runs report --json`
    course: Course | None
    forecast: Mapping[str, Any] | None  # `forecast show --json`
    events: Sequence[Mapping[str, Any]] = ()  # CloudEvents with their state, the newest last
    deadlines: Sequence[Mapping[str, Any]] = ()


def sections(whole: Whole) -> list[Section]:
    """Every section, in the order in which somebody asks; "lines" is the one that plots stand in."""
    d = whole.report
    found = [_measured(d), _lines(whole), *_declared(d), *_due(whole), _purposes(d), _jobs(d)]
    found += [
        *_lineage(d),
        *_counted(d),
        _rests(d),
        _width(d),
        _corrections(d),
        *_questions(d),
        _unsaid(d),
        _exact(d),
    ]
    return [s for s in found if s["text"] or s["fields"] or s["tables"] or s["points"]]


def _measured(d: Section) -> Section:
    if d["executed"] is None:
        return section("measured", "Measured", text=["Nothing yet: no job of this run has been metered."])
    c, a = d["coverage"], d["accuracy"]
    rows = [
        given("executed", "Executed", figure_words(d["executed"]["flop"])),
        given("seen", "Seen", f"{minute(d['first_seen'])} to {minute(d['last_seen'])} UTC"),
        given(
            "accuracy",
            "Accuracy",
            f"−{a['below_percent']} % / +{a['above_percent']} % around the point; the EU asks for ±{a['limit_percent']} %"
            + _within(a),
        ),
        given("coverage", "Coverage", _coverage(c)),
        given("energy", "Energy", energy(d)),
    ]
    if d["unreported"]["nodes"]:
        owed = d["unreported"]
        rows.append(
            given(
                "silent",
                "Silent agents",
                f"{', '.join(owed['nodes'])}{', the first' if len(owed['nodes']) > 1 else ''} since {minute(owed['since'])} UTC: {hours(owed['device_seconds'])}, in the "
                f"total from 0 to {upper_text(int(owed['flop']['upper']))} FLOP",
            )
        )
    if d["plan"] is not None and d["plan"]["budget_used_ppm"] is not None:
        rows.append(given("plan", "Of its budget", used_words(d["plan"]["budget_used_ppm"])))
    return section("measured", "Measured", text=names_text(d["run"], d["names"]), fields=rows)


def _within(accuracy: Section) -> str:
    declared = accuracy["if_declared"]
    if accuracy["within"]:
        return ": within"
    if declared is None or not declared["within"]:
        return ": not within"
    return ": not within, but within it if the declared data type is true"


def _coverage(c: Section) -> str:
    expected, gap = c["expected_device_seconds"], c["gap_device_seconds"]
    if not expected:
        return "no device time yet"
    gaps = ", ".join(f"{name} {hours(s)}" for name, s in c["gaps"].items())
    return f"{(1 - gap / expected) * 100:.1f} % of {hours(expected)} observed" + (
        f"; gaps: {gaps}" if gaps else ""
    )


def energy(d: Section) -> str:
    """MWh or kWh, and of how much device time nobody read it."""
    kwh = d["energy_joules"] / 3.6e6
    text = f"{kwh / 1000:,.2f} MWh" if kwh >= 1000 else f"{kwh:.2f} kWh"
    unread = d["energy_unmeasured_device_seconds"]
    return text + (f", not read in {hours(unread)}" if unread else "")


def _lines(whole: Whole) -> Section:
    d = whole.report
    if not d["thresholds"]:
        return section(
            "lines", "Against the lines", text=["No regime draws a line that this run is held against."]
        )
    ahead = _ahead(whole.forecast)
    rows = []
    for t in d["thresholds"]:
        flop = d["countable"][t["regime"]]["flop"]
        answer = t["verdict"] + ("" if t["in_force"] else f"; binds from {t['effective'] or 'a day not set'}")
        counted = band_texts(flop)
        rows.append(
            (
                t["regime"],
                f"{t['comparison']}\N{NO-BREAK SPACE}{power(t['threshold_flop'])}",
                *counted,
                share(t["fraction"]),
                answer,
            )
            + ((ahead.get(t["regime"], ""),) if ahead else ())
        )
    head = ["regime", "line", "counted, lower", "point", "upper", "of the line", "answer"]
    text = ["Each regime counts in its own way what was executed; compared is what it counts."]
    if ahead and whole.forecast is not None:
        head.append("would be met")
        text.append(
            f"Dates: if the run goes on as it did, within a {whole.forecast['confidence_percent']} % interval, made "
            f"{minute(whole.forecast['time'])} UTC. A forecast is no measurement."
        )
    return section(
        "lines", "Against the lines", text=text, tables=[table("lines", "Regimes and lines", head, rows)]
    )


def _ahead(forecast: Section | None) -> dict[str, str]:
    if forecast is None:
        return {}
    found = {}
    for x in forecast["lines"]:
        if x["regime"] is not None and x["original"] is None:
            when = dates(x["crosses"])
            found[x["regime"]] = _ANSWERS[x["answer"]] + (f": {when}" if when else "")
    return found


def share(fraction: float) -> str:
    """Of a line, rounded down: 3.7 %, 12 ×."""
    if fraction >= 10:
        return f"{int(fraction)} ×"
    return "under 0.1 %" if 0 < fraction < 0.001 else f"{int(fraction * 1000) / 10:.1f} %"


def _declared(d: Section) -> Iterable[Section]:
    said = d["declared"]
    if said is None:
        yield section(
            "declared", "Declared", text=["Nothing: nobody has declared this run (flopmeter runs declare)."]
        )
        return
    names = ("owner", "hardware", "dtype", "purpose")
    rows = [given(name, name.capitalize(), said[name]) for name in names if said[name] is not None]
    if said["budget_flop"] is not None:
        rows.append(given("budget", "Budget", f"{flop_text(int(said['budget_flop']))} FLOP"))
    if said["expected_end"] is not None:
        rows.append(given("end", "Expected end", f"{minute(said['expected_end'])} UTC"))
    if said["base_models"]:
        rows.append(given("base", "Base models", ", ".join(said["base_models"])))
    if (c := said["calibration"]) is not None:
        rows.append(given("calibration", "Calibration", calibration_words(c)))
    rows.append(given("by", "Said by", f"{', '.join(said['by'])} ({entries_words(said['entries'])})"))
    yield section("declared", "Declared", fields=rows)


def _due(whole: Whole) -> Iterable[Section]:
    tables = []
    if whole.deadlines:
        rows = [
            (minute(x["due"]), x["act"], x["recipient"], x["regime"], x["state"]) for x in whole.deadlines
        ]
        tables.append(table("deadlines", "Deadlines", ("due (UTC)", "what", "to", "regime", "state"), rows))
    if whole.events:
        rows = [
            (
                minute(e["time"]),
                e["severity"],
                e["type"],
                e["data"].get("message", "").replace(NOT_RISK, "").rstrip(),
                e["state"],
            )
            for e in whole.events
        ]
        tables.append(
            table("events", "Events, newest last", ("time (UTC)", "severity", "event", "says", "state"), rows)
        )
    yield section("events", "Events and deadlines", tables=tables)


def _purposes(d: Section) -> Section:
    rows = []
    for p in d["purposes"]:
        spans = [f"{hour_words(a)} to {hour_words(b)}" for a, b in p["spans"][:MAX_SPANS]]
        if len(p["spans"]) > MAX_SPANS:
            spans.append(f"and {len(p['spans']) - MAX_SPANS} more")
        guess = p["looks_like"]
        looks = (
            "cannot be told"
            if guess["confidence"] is None
            else f"{guess['guess']} ({guess['confidence']} confidence{'; not as declared' if guess['disagrees'] else ''})"
        )
        by = entries_words(p["entries"]) if p["entries"] else "nobody"
        again = f", {p['recomputation']} of it recomputation" if p["recomputation"] else ""
        rows.append(
            (
                p["purpose"] + again,
                flop_text(int(p["flop"]["point"])),
                hours(p["device_seconds"]),
                by,
                looks,
                ", ".join(spans),
            )
        )
    text = ["What it looks like from outside is a guess, and counted nowhere."] if rows else []
    head = ("purpose", "FLOP", "device time", "said by", "looks like", "hours of UTC")
    tables = [table("purposes", "Purposes", head, rows)] if rows else []
    return section("purposes", "What it was for", text=text, tables=tables)


def _jobs(d: Section) -> Section:
    rows = []
    for job in d["jobs"][:MAX_JOBS]:
        by = [f"assigned ({entries_words(job['assigned_by'])})"] if job["assigned_by"] else []
        by += [f"rule {rule}" for rule in job["rules"]]
        rows.append(
            (
                job["job"],
                job["user"] or "",
                flop_text(int(job["flop"]["point"])),
                hours(job["device_seconds"]),
                str(job["restarts"]),
                f"{minute(job['first_seen'])} to {minute(job['last_seen'])}",
                "; ".join(by),
            )
        )
    more = len(d["jobs"]) - MAX_JOBS
    points = [f"and {more} more (flopmeter runs report RUN --json has all)"] if more > 0 else []
    head = ("job", "user", "FLOP", "device time", "restarts", "seen (UTC)", "put here by")
    tables = [table("jobs", f"Jobs ({len(d['jobs'])})", head, rows)] if rows else []
    return section("jobs", "Jobs, and what put them here", tables=tables, points=points)


def _lineage(d: Section) -> Iterable[Section]:
    rows = []
    for p in d["lineage"]["parents"]:
        e = p["external"]
        known = f"{figure_words(e['flop'])}, by {e['source']}" if e is not None else "in these books"
        if not p["known"]:
            known = "nothing is known of it, and nothing added"
        rows.append((p["relation"], p["parent"], known))
    by = d["lineage"]["stood_on_by"]
    yield section(
        "lineage",
        "What it stands on, and what stands on it",
        tables=[table("parents", "Stands on", ("how", "what", "what is known of it"), rows)] if rows else (),
        points=[f"Stood on by {', '.join(by)}"] if by else (),
    )


def _counted(d: Section) -> Iterable[Section]:
    points = []
    for regime, c in d["countable"].items():
        for a in c["ancestors"]:
            figure = flop_text(int(a["flop"]["point"]))
            points.append(f"{regime} counts {figure} FLOP of {a['name']} with it ({', '.join(a['path'])})")
        for kind, said in (("left_out", "leaves out"), ("silent", "says nothing of, so that it is counted:")):
            for part in c[kind]:
                of = f" of {part['of']}" if part["of"] else ""
                says = "".join(f"; entry {s['entry']} by {s['who']}: {s['why']}" for s in part["said_by"])
                ours = ", our reading" if part["inferred"] else ""
                points.append(
                    f"{regime} {said} {part['activity']}{of}, {flop_text(int(part['flop']['point']))} FLOP: "
                    f"{part['words']} ({part['source']}{ours}){says}"
                )
    for m in d["modifications"]:
        binds = "" if m["in_force"] else ", not in force"
        points.append(
            f"{m['regime']}{binds}, as a modification of {m['original']}: {m['verdict']}, {figure_words(m['counted'])}"
        )
    if d["executed"] is not None and not points:
        points = ["Every regime counts all that was executed."]
    yield section("counted", "What regimes add and leave out", points=points)


def _rests(d: Section) -> Section:
    tables = []
    if d["executed"] is not None:
        for key, title, first in (
            ("by_evidence_class", "By evidence class", "class"),
            ("by_model", "By device model", "model"),
        ):
            rows: list[tuple[str, ...]] = [
                (name, *band_texts(x["flop"]), hours(x["device_seconds"]), _ratio(x))
                for name, x in d[key].items()
            ]
            tables.append(table(key, title, (first, *_BOUNDS, "device time", "share of it"), rows))
        rows = [
            (name if "flop" in x else f"{name} (integer)", *_pipe(x))
            for name, x in d["by_pipe"].items()
            if int(x["sm_cycles"])
        ]
        tables.append(table("by_pipe", "By pipe", ("pipe", *_BOUNDS, "SM-cycles"), rows))
    return section("rests", "What the figures rest on", text=RESTS_ON, tables=tables)


def _width(d: Section) -> Section:
    return section("width", "Why the bounds are as wide as they are", points=d["reasons"] or ())


def _pipe(x: Section) -> Iterable[str]:
    figure = x["flop"] if "flop" in x else x["integer_ops"]
    return (*band_texts(figure), flop_text(int(x["sm_cycles"])))


def _ratio(x: Section) -> str:
    return f"{int(x['device_time_share'] * 1000) / 10:.1f} %"


def _corrections(d: Section) -> Section:
    rows = [
        (str(e["number"]), minute(e["time"]), e["who"], e["says"] + _taken_back(e), e["why"])
        for e in d["corrections"]
    ]
    head = ("entry", "time (UTC)", "who", "says", "why")
    return section("corrections", "Corrections", tables=[table("corrections", "Corrections", head, rows)])


def _taken_back(e: Section) -> str:
    return f" (taken back by entry {e['retracted_by']})" if e["retracted_by"] else ""


def _questions(d: Section) -> Iterable[Section]:
    texts: dict[str, list[str]] = {}
    for regime, questions in d["open_questions"].items():
        for question in questions:
            texts.setdefault(question, []).append(regime)
    first = sorted(texts, key=lambda q: -len(texts[q]))
    points = [
        f"{'all regimes' if len(texts[q]) == len(d['open_questions']) else ', '.join(texts[q])}: {q}"
        for q in first[:MAX_QUESTIONS]
    ]
    if len(texts) > MAX_QUESTIONS:
        points.append(f"and {len(texts) - MAX_QUESTIONS} more (flopmeter regimes show ID)")
    yield section("questions", "Open questions, for a lawyer", points=points)


def _unsaid(d: Section) -> Section:
    said = [*(text.replace("`", "") for text in NOT_PROVEN), *d["unsaid"]]
    return section("unsaid", "What this report does not prove", points=said)


def _exact(d: Section) -> Section:
    """Every digit, for who wants to add up."""
    if d["executed"] is None:
        return section("exact", "Exact figures")
    rows = [("executed", "FLOP", *_digits(d["executed"]["flop"]))]
    if any(int(n) for n in d["executed"]["integer_ops"].values()):
        rows.append(("executed, integer", "operations", *_digits(d["executed"]["integer_ops"])))
    for regime, c in d["countable"].items():
        if c["flop"] is not None:
            unit = "FLOP" if c["unit"] == "floating-point" else "operations"
            rows.append((f"counted by {regime}", unit, *_digits(c["flop"])))
    return section(
        "exact",
        "Exact figures",
        text=[f"FLOP from SM-cycles by table {d['w_table']}. Integers throughout; nothing here is rounded."],
        tables=[table("exact", "Every digit", ("what", "unit", *_BOUNDS), rows)],
    )


def _digits(figure: Mapping[str, str]) -> tuple[str, str, str]:
    """In groups of three, which a line may break between."""
    lower, point, upper = (f"{int(figure[k]):,}".replace(",", " ") for k in _BOUNDS)
    return lower, point, upper
