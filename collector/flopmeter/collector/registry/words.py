"""Entries for people and for programs: a sentence each, a JSON object each. Pure."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flopmeter.cli.layout import Paint
from flopmeter.cli.output import band_texts, flop_text, lower_text, upper_text
from flopmeter.collector import empty
from flopmeter.collector.spelling import minute, time_text

from .codec import calibration_json, statement_json
from .entries import Assign, Decision, Declare, Entry, External, Link, Retract, Statement, Tag
from .known import job_text
from .state import Registry
from .when import span_text


def calibration_words(c: Mapping[str, str]) -> str:
    """What a calibration claims, as reports have it."""
    return (
        f"{flop_text(int(c['flop']))} FLOP in {flop_text(int(c['cycles']))} tensor SM-cycles of {c['model']}, "
        f"within {int(c['error_ppm']) / 10_000:g} %"
    )


def sentence(s: Statement) -> str:
    """What a statement says, in words; every name and figure that it holds."""
    match s:
        case Declare():
            said = [
                *([f"owner {s.owner}"] if s.owner is not None else []),
                *([f"budget {flop_text(s.budget_flop)} FLOP"] if s.budget_flop is not None else []),
                *([f"hardware {s.hardware}"] if s.hardware is not None else []),
                *(
                    [f"ends {minute(time_text(s.expected_end_unix_ns))}"]
                    if s.expected_end_unix_ns is not None
                    else []
                ),
                *([f"dtype {s.dtype}"] if s.dtype is not None else []),
                *([f"purpose {s.purpose}"] if s.purpose is not None else []),
                *([f"from {', '.join(s.base_models)}"] if s.base_models else []),
                *(
                    [f"calibration {calibration_words(calibration_json(s.calibration))}"]
                    if s.calibration is not None
                    else []
                ),
            ]
            return f"run {s.run} declared: {'; '.join(said)}"
        case Assign():
            what = f"job {job_text(s.job)}" + (f", step {s.step}" if s.step is not None else "")
            return f"{what} belongs to run {s.run}" if s.run else f"{what} goes back to what the rules chose"
        case Tag():
            part = f"{s.fraction} of " if s.fraction is not None else ""
            whose = f"job {job_text(s.job)} of {s.run}" if s.job is not None else f"run {s.run}"
            return f"{part}{whose}, {span_text(s.from_hour, s.until_hour)}, was {s.purpose}"
        case Link():
            return f"run {s.run} {s.relation} {s.parent}"
        case External():
            f = s.flop
            bounds = (
                "" if f.lower == f.upper else f" (between {lower_text(f.lower)} and {upper_text(f.upper)})"
            )
            return f"model {s.name}, trained elsewhere with {flop_text(f.point)} FLOP{bounds}: {s.source}"
        case Retract():
            return f"entry {s.number} no longer holds"
        case Decision():
            return f"suggestion {s.suggestion} {'accepted' if s.accepted else 'rejected'}"


def entry_document(entry: Entry, registry: Registry) -> dict[str, Any]:
    """`runs entries --json`, one of its entries."""
    return {
        "number": entry.number,
        "time": time_text(entry.unix_ns),
        "unix_ns": str(entry.unix_ns),
        "position": entry.position,
        "who": entry.who,
        "why": entry.why,
        "says": sentence(entry.statement),
        "statement": statement_json(entry.statement),
        "retracted_by": registry.retracted.get(entry.number),
    }


def names_json(registry: Registry, run: str) -> list[dict[str, Any]]:
    """Names that work of `run` has lost, or that `run` is itself, with where the work is: what said by them holds where."""
    named = [*registry.names(run), *([run] if registry.went(run) is not None else [])]
    return [
        {
            "name": name,
            "runs": list(registry.each(name)),
            # whether all that was said by it went along, or what stands on what alone
            "all_said": registry.now(name) != name,
        }
        for name in named
    ]


def names_text(run: str, names: Iterable[Mapping[str, Any]]) -> list[str]:
    """The same in a sentence each."""
    found = []
    for n in names:
        there = ", ".join(n["runs"])
        if n["all_said"] and n["name"] == run:
            found.append(f"the work of this name is in {there} now: what was said of it holds there")
        elif n["all_said"]:
            found.append(f"known as {n['name']} before: what was said by that name holds for that work")
        else:
            found.append(
                f"work that was named {n['name']} is in {there} now: links of that name hold for each; its tags, "
                "declarations and assignments stay with the name, say them anew where they are meant"
            )
    return found


def paragraph(text: str, width: int, indent: int, more: int | None = None) -> list[str]:
    """Lines no wider than `width`, set in by `indent`, later ones by `more`; a name that is too long is cut through."""
    further = indent if more is None else more
    return textwrap.wrap(
        text,
        width,
        initial_indent=" " * indent,
        subsequent_indent=" " * further,
        break_on_hyphens=False,
    )


def entry_lines(entry: Entry, registry: Registry, paint: Paint) -> list[str]:
    """One entry on a page: what, then who, when and why, and whether it still holds."""
    by = registry.retracted.get(entry.number)
    gone = f" (taken back by entry {by})" if by is not None else ""
    lines = [
        paint(line, bold=by is None, dim=by is not None)
        for line in paragraph(f"{entry.number:4}  {sentence(entry.statement)}{gone}", paint.width, 0, 6)
    ]
    lines += paragraph(f"{minute(time_text(entry.unix_ns))} UTC, {entry.who}: {entry.why}", paint.width, 6)
    if isinstance(entry.statement, Tag):
        for reference in entry.statement.evidence:
            lines += paragraph(f"evidence: {reference}", paint.width, 6)
    return lines


def entries_view(entries: Iterable[Entry], registry: Registry, paint: Paint) -> str:
    """`runs entries`: the history, oldest first."""
    lines = [line for entry in entries for line in entry_lines(entry, registry, paint)]
    if not lines:
        return empty.ENTRIES
    return "\n".join(lines)


def suggestions_view(documents: Sequence[Mapping[str, Any]], paint: Paint) -> str:
    """`runs suggestions`: what a person is asked, the surest first."""
    if not documents:
        return "no suggestions: no two runs look like one, and none stopped just under a line"
    lines: list[str] = []
    for d in documents:
        answer = f" ({d['answer']})" if d["answer"] else ""
        lines.append(f"{d['id']}  {paint(d['confidence'], bold=True)}{answer}")
        lines += paragraph(f"{d['kind']}: {', '.join(d['runs'])}", paint.width, 4)
        for reason in d["reasons"]:
            lines += paragraph(f"{reason['seen']}; but {reason['not_proof']}", paint.width, 6)
        lines += paragraph(f"if so: {d['command']}", paint.width, 4)
    lines += ["", *paragraph(documents[0]["not_proof"], paint.width, 0)]
    lines += paragraph("Answer with flopmeter runs accept ID or flopmeter runs reject ID.", paint.width, 0)
    return "\n".join(lines)


def figure_words(figure: Mapping[str, str]) -> str:
    """A figure as `figure_json` wrote it."""
    lower, point, upper = band_texts(figure)
    return (
        f"{point} FLOP"
        if figure["lower"] == figure["upper"]
        else f"{point} FLOP, between {lower} and {upper}"
    )


def used_words(ppm: Mapping[str, int], of: str = "") -> str:
    """Of a budget, in tenths of a percent: rounded down, the upper bound up."""
    said = {name: n // 1000 for name, n in ppm.items()} | {"upper": -(-ppm["upper"] // 1000)}
    lower, point, upper = (f"{said[name] / 10:.1f} %" for name in ("lower", "point", "upper"))
    return f"{point}{of}, between {lower} and {upper}"


def entries_words(numbers: Iterable[int]) -> str:
    found = [str(n) for n in numbers]
    return f"entry {found[0]}" if len(found) == 1 else f"entries {', '.join(found)}"


def hour_words(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")
