"""Documents for people: tables and log-scale bars. Pure: a document in, text out.

Figures are rounded (lower bounds down, upper ones up) and bars drawn from logarithms; both are for the eye only. Verdicts come from the
exact integers in the document.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flopmeter.cli.layout import STATUS, Paint, Row, hours, table, wrapped
from flopmeter.cli.output import flop_text, lower_text, upper_text
from flopmeter.collector import empty
from flopmeter.collector.forecast.view import brief_view
from flopmeter.collector.law.regimes_view import power
from flopmeter.collector.registry.words import names_text
from flopmeter.collector.spelling import minute

from .counting_view import compared, counting_view
from .curve import curve_view
from .fleet_view import unattributed_text
from .parts_view import accuracy_view, nominal_view, parts_view
from .progress_view import progress_view

VERDICT = {"crossed": "red", "undetermined": "yellow", "below": "green"}
_NARROW = 72  # columns below which a line's day is left out
#: Planned runs that `runs list` shows; --json has all.
MAX_PLANNED_SHOWN = 20
_MAX_SHARE_SHOWN = 10  # times the line; beyond, "over 10 x"


def run_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`runs show`: what a run did, against which lines, how well that is known, and why not better."""
    flop = document["executed"]["flop"]
    mark, fg = STATUS[document["status"]]
    models = ", ".join(document["by_model"]) or "nothing metered yet"
    span = f"{minute(document['first_seen'])} to {minute(document['last_seen'])} UTC"
    jobs = f"{_counted(document['job_count'], 'job')}, named by {document['rule']}"
    point = paint(flop_text(int(flop["point"])) + " FLOP", bold=True)
    bounds = f"between {lower_text(int(flop['lower']))} and {upper_text(int(flop['upper']))}"
    name = wrapped(document["run"], paint.width - 12, "", "")  # a whole name, however long: people copy it
    lines = [
        *(paint(line, bold=True) for line in name[:-1]),
        f"{paint(name[-1], bold=True)}  {paint(mark + ' ' + document['status'], fg)}",
        *(paint(line, dim=True) for line in _fitted((models, span, jobs), paint.width)),
        *(
            line
            for said in names_text(document["run"], document["names"])
            for line in wrapped(said, paint.width, "", "")
        ),
        "",
        f"  executed   {point}   {bounds}",
    ]
    lines += accuracy_view(document, paint)
    lines += nominal_view(document)
    lines += progress_view(document["progress"], paint)
    if document.get("hourly"):
        lines += curve_view(document["hourly"], paint)
    lines += ["", *thresholds_view(document, paint), *brief_view(document.get("forecast"), paint), ""]
    lines += counting_view(document, paint)
    lines += _coverage(document, paint)
    if document["by_evidence_class"]:
        lines += ["", *parts_view(document, paint)]
    if document["reasons"]:
        lines += ["", paint("  Why the bounds are as wide as they are", bold=True)]
        for reason in document["reasons"]:
            lines += wrapped(reason, paint.width, "    ", "  ")
    lines += ["", *(paint(text, dim=True) for text in _small_print(document, paint.width))]
    return "\n".join(lines)


def thresholds_view(document: Mapping[str, Any], paint: Paint) -> list[str]:
    """One line per regime, on one logarithmic axis: lower ━━◆━━ upper, ┃ the threshold."""
    flop = document["executed"]["flop"]
    rows = document["thresholds"]
    if not rows:
        return [paint("  no regimes", dim=True)]
    first = max(0, math.floor(_log(int(flop["lower"]) or int(flop["point"]) or 10**20)) - 1)
    last = max(_log(int(r["threshold_flop"])) for r in rows) + 0.5
    last = max(last, _log(int(flop["upper"])) + 0.2)
    first = min(first, math.floor(last) - 3)
    name_width = max(len(r["regime"]) for r in rows)
    narrow = paint.width < _NARROW
    answers = {r["regime"]: _answer(r, short=narrow) for r in rows}
    wide = max(len(share_text(r["fraction"])) for r in rows)
    cells = max(
        8 if narrow else 12, min(48, paint.width - name_width - wide - 17 - max(map(len, answers.values())))
    )
    out = [paint(f"  {'':{name_width}} {'':10}{_axis(first, last, cells)}".rstrip(), dim=True)]
    for r in rows:
        basis = document["countable"][r["regime"]]["flop"]
        line = f"{r['comparison']} {power(r['threshold_flop'])}"
        bar = _bar(basis, int(r["threshold_flop"]), first, last, cells)
        share = share_text(r["fraction"])
        fg = VERDICT[r["verdict"]] if r["in_force"] else None
        out.append(
            f"  {r['regime']:{name_width}} {line:9} {bar}  {share:>{wide}}  "
            + paint(
                answers[r["regime"]],
                fg,
                bold=r["verdict"] == "crossed" and r["in_force"],
                dim=not r["in_force"],
            )
        )
    return out


def _answer(r: Mapping[str, Any], *, short: bool = False) -> str:
    if r["in_force"]:
        return str(r["verdict"])
    if short:
        return f"{r['verdict']} (off)"
    later = r["status"] in ("in-force", "enacted")
    return f"{r['verdict']}; from {r['effective']}" if later else f"{r['verdict']}; {r['status']}"


def _fitted(parts: Sequence[str], width: int) -> list[str]:
    """Parts joined by dots, on as many lines as it takes."""
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]} · {part}" if lines[-1] else part
        if lines[-1] and len(joined) > width:
            lines.append(part)
        else:
            lines[-1] = joined
    return lines


def _axis(first: float, last: float, cells: int) -> str:
    """Decades over the bars, as many as there is room for."""
    row = [" "] * (cells + 5)
    step = max(1, math.ceil((last - first) * 6 / cells))
    for decade in range(math.ceil(first), math.floor(last) + 1):
        if (math.floor(last) - decade) % step == 0:
            at = _cell(decade, first, last, cells)
            row[at : at + len(f"10^{decade}")] = f"10^{decade}"
    return "".join(row).rstrip()


def _bar(basis: Mapping[str, str], threshold: int, first: float, last: float, cells: int) -> str:
    low, point, high = (int(basis[k]) for k in ("lower", "point", "upper"))
    row = ["─"] * cells
    if high:
        left = _cell(_log(low), first, last, cells) if low else 0
        for i in range(left, _cell(_log(high), first, last, cells) + 1):
            row[i] = "━" if low else "╍"
    row[_cell(_log(threshold), first, last, cells)] = "┃"
    if point:
        row[_cell(_log(point), first, last, cells)] = "◆"
    return "".join(row)


def _cell(log: float, first: float, last: float, cells: int) -> int:
    return min(cells - 1, max(0, int((log - first) / (last - first) * cells)))


def _log(value: int) -> float:
    return math.log10(value) if value > 0 else 0.0


def share_text(fraction: float) -> str:
    if fraction >= _MAX_SHARE_SHOWN:
        return f"{fraction:.0f} ×"
    if 0 < fraction < 0.001:
        return "<0.1 %"
    return f"{math.floor(fraction * 1000) / 10:.1f} %"


def _coverage(document: Mapping[str, Any], paint: Paint) -> list[str]:
    c = document["coverage"]
    expected, gap = c["expected_device_seconds"], c["gap_device_seconds"]
    energy = document["energy_joules"] / 3.6e6
    unread = document["energy_unmeasured_device_seconds"]
    share = "" if not expected else f" ({math.floor((1 - gap / expected) * 1000) / 10:.1f} % observed)"
    gaps = ", ".join(f"{name} {hours(s)}" for name, s in c["gaps"].items())
    lines = [
        f"  coverage   {hours(expected)} of device time{share}",
        f"  gaps       {paint(gaps, 'yellow')}" if gaps else "  gaps       none",
        f"  energy     {_energy(energy)}" + (f", {hours(unread)} unread" if unread else ""),
    ]
    if document["unreported"]["ancestors"]:
        silent = ", ".join(document["unreported"]["ancestors"])
        said = f"of {silent}, which the run stands on, are silent: in each countable total from 0 to the most"
        first, *rest = wrapped(said, paint.width - 13, "", "")
        lines += [f"  agents     {first}", *(" " * 13 + part for part in rest)]
    if document["apportioned_device_seconds"]:
        shared = hours(document["apportioned_device_seconds"])
        lines.append(f"  shared     {shared} apportioned among the holders of a GPU")
    if document["no_w_table"]:
        names = ", ".join(document["no_w_table"])
        lines.append(paint(f"  no W table for {names}: metered in cycles, FLOP not known", "red"))
    return lines


def _small_print(document: Mapping[str, Any], width: int) -> list[str]:
    return wrapped(
        f"{compared(document)} {document['note']} FLOP from SM-cycles by table {document['w_table']}.",
        width,
        "  ",
        "",
    )


def runs_view(
    documents: Sequence[Mapping[str, Any]],
    paint: Paint,
    unattributed: Mapping[str, Any] | None = None,
    planned: Sequence[Mapping[str, Any]] = (),
) -> str:
    """`runs list`: one line a run, the largest first; then those that are only planned, and what is in no run."""
    notes = _planned(planned, paint)
    if unattributed is not None and unattributed["device_seconds"]:
        notes += ["", *wrapped(unattributed_text(unattributed), paint.width, "", "")]
    if not documents:
        return "\n".join((empty.RUNS, *notes))
    head = ("run", "", "FLOP", "lower", "upper", "nearest line", "observed", "last seen (UTC)")
    rows: list[Row] = []
    for d in documents:
        flop, c = d["executed"]["flop"], d["coverage"]
        mark, fg = STATUS[d["status"]]
        expected = c["expected_device_seconds"]
        observed = math.floor(c["observed_device_seconds"] / expected * 1000) / 10 if expected else 0.0
        rows.append(
            (
                (d["run"], {"bold": True}),
                (f"{mark} {d['status']}", {"fg": fg}),
                (flop_text(int(flop["point"])), {"bold": True}),
                (lower_text(int(flop["lower"])), {}),
                (upper_text(int(flop["upper"])), {}),
                _nearest(d),
                (f"{observed:.1f} %", {"fg": "yellow" if observed < 99 else None}),
                (minute(d["last_seen"]), {"dim": True}),
            )
        )
    page = table(head, rows, paint, spare=(7, 6, 1))  # last seen, observed, status
    return "\n".join((page, *notes))


def _planned(planned: Sequence[Mapping[str, Any]], paint: Paint) -> list[str]:
    """Runs of which nothing is metered: what they were declared to come to, which is no usage."""
    if not planned:
        return []
    rows: list[Row] = []
    for p in planned[:MAX_PLANNED_SHOWN]:
        d = p["declared"]
        budget, end = d["budget_flop"], d["expected_end"]
        rows.append(
            (
                (p["run"], {"bold": True}),
                (f"· {p['status']}", {"dim": True}),
                ("" if budget is None else flop_text(int(budget)), {}),
                ("" if end is None else end[:10], {}),
                (d["owner"] or "", {}),
                (d["hardware"] or "", {"dim": True}),
            )
        )
    said = "Planned: nothing of it is metered, and no total has it (flopmeter runs report RUN)."
    head = ("run", "", "budget FLOP", "until", "owner", "hardware")
    lines = ["", *wrapped(said, paint.width, "", ""), *table(head, rows, paint, spare=(5, 4)).splitlines()]
    if len(planned) > MAX_PLANNED_SHOWN:
        lines.append(f"and {len(planned) - MAX_PLANNED_SHOWN} more; --json has all")
    return lines


def _nearest(document: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The highest line in force that was crossed or may have been; else the next one."""
    binding = [t for t in document["thresholds"] if t["in_force"]]
    if not binding:
        return "none in force", {"dim": True}
    past = [t for t in binding if t["verdict"] != "below"]
    t = past[-1] if past else binding[0]
    return f"{t['verdict']} {t['regime']} {share_text(t['fraction'])}", {"fg": VERDICT[t["verdict"]]}


def _counted(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _energy(kwh: float) -> str:
    return f"{kwh / 1000:,.2f} MWh" if kwh >= 1000 else f"{kwh:.2f} kWh"
