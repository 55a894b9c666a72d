"""`runs report RUN` for people: one page, in the order in which somebody asks. Pure: a document in, text out."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from flopmeter.cli.layout import Paint, hours
from flopmeter.cli.output import flop_text
from flopmeter.collector.report.counting_view import ACROSS
from flopmeter.collector.report.runs_view import thresholds_view
from flopmeter.collector.spelling import minute

from .words import (
    calibration_words,
    entries_words,
    figure_words,
    hour_words,
    names_text,
    paragraph,
    used_words,
)

_SPANS_SHOWN = 3
_JOBS_SHOWN = 12
_QUESTIONS_SHOWN = 5
_PPM = 1_000_000


def report_view(d: Mapping[str, Any], paint: Paint) -> str:
    """The page."""
    page = _Page(paint)
    page.head(d)
    page.declared(d)
    page.measured(d)
    page.lines_of_law(d)
    page.jobs(d["jobs"])
    page.purposes(d["purposes"])
    page.lineage(d["lineage"])
    page.countable(d["countable"])
    page.modifications(d["modifications"])
    page.corrections(d["corrections"])
    page.open_questions(d)
    page.unsaid(d)
    return "\n".join(page.lines)


class _Page:
    def __init__(self, paint: Paint) -> None:
        self.lines: list[str] = []
        self._paint = paint

    def _title(self, text: str) -> None:
        self.lines += ["", self._paint(text, bold=True)]

    def _text(self, text: str, indent: int = 2, *, dim: bool = False) -> None:
        for line in paragraph(text, self._paint.width, indent, indent + 2):
            self.lines.append(self._paint(line, dim=True) if dim else line)

    def head(self, d: Mapping[str, Any]) -> None:
        self._text(f"Report on run {d['run']}", 0)
        self._text(
            f"made {minute(d['time'])} UTC from the books and the run registry; {d['status']}", 0, dim=True
        )
        for said in names_text(d["run"], d["names"]):
            self._text(said, 0)

    def declared(self, d: Mapping[str, Any]) -> None:
        said = d["declared"]
        self._title("Declared")
        if said is None:
            self._text("nothing: nobody has declared this run (flopmeter runs declare)")
            return
        for name, key in (
            ("owner", "owner"),
            ("hardware", "hardware"),
            ("dtype", "dtype"),
            ("purpose", "purpose"),
        ):
            if said[key] is not None:
                self._text(f"{name:10}{said[key]}")
        if said["budget_flop"] is not None:
            self._text(f"budget    {flop_text(int(said['budget_flop']))} FLOP")
        if said["expected_end"] is not None:
            self._text(f"ends      {minute(said['expected_end'])} UTC, as expected")
        if said["base_models"]:
            self._text(f"from      {', '.join(said['base_models'])}")
        if said["calibration"] is not None:
            self._text(f"counted   {calibration_words(said['calibration'])}")
        self._text(f"said by   {', '.join(said['by'])} ({entries_words(said['entries'])})")

    def measured(self, d: Mapping[str, Any]) -> None:
        self._title("Measured")
        if d["executed"] is None:
            self._text("nothing yet: no job of this run has been metered")
        else:
            self._text(f"executed  {figure_words(d['executed']['flop'])}")
            self._text(f"seen      {minute(d['first_seen'])} to {minute(d['last_seen'])} UTC")
            c = d["coverage"]
            self._text(
                f"coverage  {hours(c['expected_device_seconds'])} of device time, {hours(c['gap_device_seconds'])} "
                "of it gaps, priced from 0 to the most"
            )
        plan = d["plan"]
        if plan is None:
            return
        if plan["budget_used_ppm"] is not None:
            used = plan["budget_used_ppm"]
            over = " - past its budget" if used["point"] > _PPM else ""
            self._text(f"plan      {used_words(used, ' of the budget')}{over}")
        if plan["past_expected_end"]:
            self._text("plan      its expected end has passed")

    def lines_of_law(self, d: Mapping[str, Any]) -> None:
        if d["thresholds"]:
            self._title("Against the lines")
            self.lines += thresholds_view(d, self._paint)

    def jobs(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        if not jobs:
            return
        self._title(f"Jobs ({len(jobs)}), and what put them here")
        for job in jobs[:_JOBS_SHOWN]:
            by = [f"assigned ({entries_words(job['assigned_by'])})"] if job["assigned_by"] else []
            by += [f"rule {rule}" for rule in job["rules"]]
            self._text(
                f"{job['job']}: {flop_text(int(job['flop']['point']))} FLOP, {hours(job['device_seconds'])}, "
                f"{'; '.join(by)}" + _restarts(job["restarts"])
            )
        if len(jobs) > _JOBS_SHOWN:
            self._text(f"and {len(jobs) - _JOBS_SHOWN} more (--json has all)", dim=True)

    def purposes(self, purposes: Sequence[Mapping[str, Any]]) -> None:
        if not purposes:
            return
        self._title("What it was for")
        for p in purposes:
            part = f", {p['recomputation']} of it recomputation" if p["recomputation"] else ""
            by = f" ({entries_words(p['entries'])})" if p["entries"] else ""
            self._text(
                f"{p['purpose']}{part}{by}: {flop_text(int(p['flop']['point']))} FLOP, {hours(p['device_seconds'])}"
            )
            if p["across"]:
                self._text(
                    f"{ACROSS} ({entries_words(p['across'])}), after an outage or a long interval: which part was of which hour "
                    "is not known",
                    6,
                )
            shown = [f"{hour_words(a)} to {hour_words(b)}" for a, b in p["spans"][:_SPANS_SHOWN]]
            rest = len(p["spans"]) - len(shown)
            self._text(", ".join(shown) + (f" and {rest} more spans" if rest else ""), 6, dim=True)
            self._looks_like(p["looks_like"])

    def _looks_like(self, guess: Mapping[str, Any]) -> None:
        if guess["confidence"] is None:
            self._text(f"from outside: cannot be told ({guess['why_not']})", 6, dim=True)
            return
        seen = "; ".join(f"{s['name']} {s['seen']}" for s in guess["signals"])
        against = ", not like what it was declared" if guess["disagrees"] else ""
        self._text(
            f"from outside it looks like {guess['guess']}{against} ({guess['confidence']} confidence; a guess, counted "
            f"nowhere): {seen}",
            6,
            dim=not guess["disagrees"],
        )

    def lineage(self, lineage: Mapping[str, Any]) -> None:
        if not lineage["parents"] and not lineage["stood_on_by"]:
            return
        self._title("What it stands on, and what stands on it")
        for p in lineage["parents"]:
            e = p["external"]
            known = f": {figure_words(e['flop'])}, by {e['source']}" if e is not None else ""
            if not p["known"]:
                known = ": nothing is known of it, and nothing added; if its jobs are of another run now, link that"
            self._text(f"{p['relation']} {p['parent']}{known}")
        if lineage["stood_on_by"]:
            self._text(f"stood on by {', '.join(lineage['stood_on_by'])}")

    def countable(self, countable: Mapping[str, Mapping[str, Any]]) -> None:
        self._title("What each regime counts")
        for group in _alike(countable):
            first = countable[group[0]]
            named = first["profile"]
            rule = f"profile {named['id']} {named['version']}" if named else "all that was executed"
            self._text(f"{', '.join(group)} ({rule})")
            self._text(figure_words(first["flop"]) if first["flop"] is not None else "nothing metered yet", 4)
            for a in first["ancestors"]:
                self._text(
                    f"with {a['name']} ({', '.join(a['path'])}): {flop_text(int(a['flop']['point']))}", 4
                )
            for part in first["left_out"]:
                self._text(f"left out: {_part(part)}", 4)
            for part in first["silent"]:
                self._text(f"the text is silent, counted: {_part(part)}", 4)

    def modifications(self, found: Sequence[Mapping[str, Any]]) -> None:
        if not found:
            return
        self._title("As a modification of another's model")
        for m in found:
            binds = "" if m["in_force"] else "; not in force"
            self._text(
                f"{m['regime']}, of {m['original']}: {m['verdict']}{binds}. Counted {figure_words(m['counted'])}, against a "
                f"line of {flop_text(int(Fraction(m['line']['point'])))}"
            )

    def corrections(self, corrections: Sequence[Mapping[str, Any]]) -> None:
        self._title("Corrections")
        if not corrections:
            self._text("none")
        for e in corrections:
            gone = f" (taken back by entry {e['retracted_by']})" if e["retracted_by"] else ""
            self._text(
                f"entry {e['number']}, {minute(e['time'])} UTC, {e['who']}: {e['says']}{gone}: {e['why']}"
            )

    def open_questions(self, d: Mapping[str, Any]) -> None:
        texts: dict[str, list[str]] = {}
        for regime, questions in d["open_questions"].items():
            for question in questions:
                texts.setdefault(question, []).append(regime)
        if not texts:
            return
        self._title("Open questions, for a lawyer")
        # What most regimes share comes first: a page has room for a few.
        for question in sorted(texts, key=lambda q: -len(texts[q]))[:_QUESTIONS_SHOWN]:
            regimes = texts[question]
            whose = "all regimes" if len(regimes) == len(d["open_questions"]) else ", ".join(regimes)
            self._text(f"{whose}: {question}")
        if len(texts) > _QUESTIONS_SHOWN:
            self._text(f"and {len(texts) - _QUESTIONS_SHOWN} more (flopmeter regimes show ID)", dim=True)

    def unsaid(self, d: Mapping[str, Any]) -> None:
        self._title("What this report does not show")
        for text in d["unsaid"]:
            self._text(text)
        self._text(f"FLOP from SM-cycles by table {d['w_table']}.", dim=True)


def _alike(countable: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Regimes that count the same, by one profile, together."""
    groups: dict[str, list[str]] = {}
    for regime, c in countable.items():
        groups.setdefault(f"{c['counting']} {c['unit']} {c['flop']}", []).append(regime)
    return list(groups.values())


def _part(part: Mapping[str, Any]) -> str:
    of = f" of {part['of']}" if part["of"] else ""
    says = [f"entry {s['entry']} by {s['who']}: {s['why']}" for s in part["said_by"]]
    ours = " (our reading)" if part["inferred"] else ""
    words = f"{part['words']}{ours}, {part['source']}"
    return f"{part['activity']}{of} {flop_text(int(part['flop']['point']))} FLOP. {'; '.join([words, *says])}"


def _restarts(n: int) -> str:
    return f"; {n} restart{'' if n == 1 else 's'}" if n else ""
