"""Forecasts for people: a table, a plot, a line for `runs show`. Pure: a document in, text out.

Bars and dots are drawn from rounded numbers and are for the eye only; answers come from the exact ones.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

from flopmeter.cli.layout import Paint, Row, table, wrapped
from flopmeter.cli.output import band_texts, flop_text
from flopmeter.collector.spelling import minute

ROWS, MOST_COLUMNS = 12, 64
_ANSWER = {
    "crossed": ("crossed", "red"),
    "will-be-met": ("will be met", "red"),
    "may-be-met": ("may be met", "yellow"),
    "not-in-sight": ("not in sight", "green"),
    "too-young": ("too early to tell", None),
}
_STATE = {
    "going": "if it goes on as in the last {hours} h",
    "at-rest": "at rest: nothing done in the last {hours} h",
    "too-young": "too young to forecast: fewer than four whole hours are in the books",
}
SMALL_PRINT = (
    "A forecast is no measurement: it says what follows if the run goes on as it did, standstills included, within an "
    "interval that held about as often as it states in a back-test (docs/forecast.md). Compute is a trigger for "
    "scrutiny, not a measure of risk."
)


def forecast_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`forecast show`."""
    series = document["series"]
    main = max(series, key=lambda s: int(s["total"]["point"]), default=None)
    hours = document["block_hours"] * (len(main["blocks"]) if main else 0)
    state = _STATE[main["state"] if main else "too-young"].format(hours=hours)
    lines = [
        *wrapped(f"{document['run']}  forecast of {minute(document['time'])} UTC", paint.width, "", ""),
        *(paint(line, dim=True) for line in wrapped(state, paint.width, "  ", "")),
        "",
    ]
    if main is not None:
        lines += _figures(document, main)
    lines += _plan(document)
    if main is not None and main["projected"] is not None:
        lines += ["", *plot(document, main, paint)]
    lines += ["", *_table(document, paint).splitlines(), *_raised(document, paint), ""]
    lines += [paint(line, dim=True) for line in wrapped(SMALL_PRINT, paint.width, "", "")]
    return "\n".join(lines)


def _figures(document: Mapping[str, Any], main: Mapping[str, Any]) -> list[str]:
    total, then, rate = main["total"], main["projected"], main["flop_per_hour"]
    found = [f"  counted    {_span(total)} FLOP"]
    if then is not None:
        found.append(f"  comes to   {_span(then)} FLOP")
        end = "declared end" if _declared_end(document) else f"{document['horizon_days']} days ahead"
        found.append(
            f"             by {document['until'][:10]} ({end}), {document['confidence_percent']} % interval"
        )
        found.append(f"  an hour    {_span(rate)} FLOP")
        windows = [
            f"{hours} h: {flop_text(int(n))}"
            for hours, n in sorted(main["windows"].items(), key=lambda w: int(w[0]))
        ]
        found.append(f"  of it last {', '.join(windows)}")
    return found


def _declared_end(document: Mapping[str, Any]) -> bool:
    plan = document["plan"]
    return plan is not None and plan["expected_end"] == document["until"]


def _plan(document: Mapping[str, Any]) -> list[str]:
    plan = document["plan"]
    if plan is None:
        return ["  plan       none declared (flopmeter runs declare RUN --budget FLOP --end TIME)"]
    parts = []
    if plan["budget_flop"] is not None:
        parts.append(f"{flop_text(int(plan['budget_flop']))} FLOP")
    if plan["expected_end"] is not None:
        parts.append(f"until {plan['expected_end'][:10]}")
    return [f"  plan       {', '.join(parts)} (entries {', '.join(map(str, plan['entries']))})"]


def _span(figure: Mapping[str, str]) -> str:
    lower, point, upper = band_texts(figure)
    return f"{point}, between {lower} and {upper}"


def _table(document: Mapping[str, Any], paint: Paint) -> str:
    rows: list[Row] = []
    for x in document["lines"]:
        text, fg = _ANSWER[x["answer"]]
        if x["by_plan"] and x["answer"] not in ("crossed", "will-be-met"):
            text, fg = "will be met by plan", "red"
        off = x["in_force"] is False
        name = x["regime"] or "the plan's budget"
        rows.append(
            [
                (name + (f" ({x['original']})" if x["original"] else ""), {}),
                (f"{x['comparison']} {_power(x['line']['point'])}", {}),
                (text, {"fg": None if off else fg}),
                (dates(x["crosses"]), {}),
                (
                    f"binds from {x['effective']}" if off and x["effective"] else "off" if off else "",
                    {"dim": True},
                ),
            ]
        )
    if not rows:
        return "  no lines: no regimes"
    return table(("regime", "line", "answer", "crosses", "law"), rows, paint, spare=(4,))


def dates(crosses: Mapping[str, str | None] | None) -> str:
    """When, by the point, and between when and when: the lower edge may not get there."""
    if crosses is None:
        return ""
    point, first, last = (crosses[n] for n in ("point", "earliest", "latest"))
    if first is None:
        return "never at this rate"
    if point is None:
        return f"not at this rate; {first[:10]} at the earliest"
    since = first[5:10] if first[:4] == point[:4] else first[:10]
    if last is None:
        return f"{point[:10]} (from {since} on)"
    return f"{point[:10]} ({since} to {last[5:10] if last[:4] == point[:4] else last[:10]})"


def _power(text: str) -> str:
    flop = int(Fraction(text))
    digits = str(flop)
    return f"10^{len(digits) - 1}" if digits.strip("0") == "1" else flop_text(flop)


def _raised(document: Mapping[str, Any], paint: Paint) -> list[str]:
    """What is known already, and where this forecast no longer says so."""
    found = []
    for x in document["lines"]:
        for e in x["raised"]:
            said = f"{x['regime'] or 'budget'}: {e['type']} by {e['basis']} on {e['time'][:10]} (event {e['event']})"
            stands = x["answer"] in ("crossed", "will-be-met") or (e["basis"] == "plan" and x["by_plan"])
            if not stands:
                said += "; this forecast no longer says so, and the event stands until a person resolves it"
            found += wrapped(said, paint.width, "  ", "")
    return ["", *found] if found else []


# ---- plot ----------------------------------------------------------------------------------------


def plot(document: Mapping[str, Any], main: Mapping[str, Any], paint: Paint) -> list[str]:
    """FLOP over time: what was counted, and the fan of what is to come; a rule for each line within it."""
    since, now, until = (_seconds(document[n]) for n in ("since", "time", "until"))
    top = int(main["projected"]["upper"])
    if until <= since or not top:
        return []
    columns = min(MOST_COLUMNS, paint.width - 14)
    past = _past(document, main, since, now)
    then, total = main["projected"], main["total"]
    grid = [[" "] * columns for _ in range(ROWS)]
    for flop in {int(Fraction(x["line"]["point"])) for x in document["lines"] if x["regime"]}:
        if flop <= top:
            grid[_row(flop, top)] = ["─"] * columns
    for c in range(columns):
        at = since + (until - since) * (2 * c + 1) // (2 * columns)
        if at <= now:
            _fill(grid, c, 0, _row(_between(past, at), top), "█")
        else:
            low, point, high = (
                int(total[n]) + (int(then[n]) - int(total[n])) * (at - now) // max(1, until - now)
                for n in ("lower", "point", "upper")
            )
            _fill(grid, c, _row(low, top), _row(high, top), "░")
            grid[_row(point, top)][c] = "●"
    labels = {
        _row(int(Fraction(x["line"]["point"])), top): _power(x["line"]["point"])
        for x in document["lines"]
        if x["regime"] and int(Fraction(x["line"]["point"])) <= top
    }
    labels[ROWS - 1] = labels.get(ROWS - 1, flop_text(top))
    out = [f"  {labels.get(r, ''):>9} {''.join(grid[r]).rstrip()}" for r in range(ROWS - 1, -1, -1)]
    begin, end = document["since"][:10], document["until"][:10]
    middle = "now" if now > since else ""
    at_now = min(columns - 14, max(11, columns * (now - since) // (until - since) - 1))
    axis = f"{begin:<{at_now}}{middle}"
    return [
        *out,
        f"  {'':9} {axis:<{columns - 10}}{end}",
        paint(f"  {'':9} █ counted  ● point  ░ {document['confidence_percent']} % interval", dim=True),
    ]


def _fill(grid: list[list[str]], column: int, low: int, high: int, mark: str) -> None:
    for r in range(low, high + 1):
        grid[r][column] = mark


def _row(flop: int, top: int) -> int:
    return min(ROWS - 1, max(0, flop * ROWS // (top + 1)))


def _past(
    document: Mapping[str, Any], main: Mapping[str, Any], since: int, now: int
) -> list[tuple[int, int]]:
    """(second, FLOP by then) from what was kept and from the last blocks; straight lines between."""
    total, length = int(main["total"]["point"]), document["block_hours"] * 3600
    points = [(since, 0), (now, total)]
    at, left = document["blocks_end_hour"] * 3600, total
    for block in reversed(main["blocks"]):
        points.append((at, left))
        at, left = at - length, left - int(block["point"])
        points.append((at, left))
    points += [(_seconds(k["time"]), int(k["total"]["point"])) for k in document["kept"] if k["total"]]
    return sorted({(max(since, t), max(0, flop)) for t, flop in points if t <= now})


def _between(points: Sequence[tuple[int, int]], at: int) -> int:
    before = max((p for p in points if p[0] <= at), default=points[0])
    after = min((p for p in points if p[0] > at), default=before)
    if after[0] <= before[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (at - before[0]) // (after[0] - before[0])


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


# ---- in runs show ---------------------------------------------------------------------------------


def brief_view(found: Mapping[str, Any] | None, paint: Paint) -> list[str]:
    """What `runs show` says of the last forecast kept."""
    if found is None or not found["lines"]:
        return []
    how = _STATE[found["state"] or "too-young"].format(hours=found["hours"])
    lines = []
    for x in found["lines"]:
        if x["answer"] == "crossed":
            continue
        text, fg = _ANSWER[x["answer"]]
        if x["by_plan"] and x["answer"] != "will-be-met":
            text = "will be met by plan"
        name = x["regime"] or "its budget"
        when = f": {dates(x['crosses'])}" if x["crosses"] else ""
        lines.append((f"{name} {x['comparison']} {_power(x['line'])} {text}{when}", fg))
    if not lines:
        return []
    head = f"  forecast   {how} ({found['confidence_percent']} %, {minute(found['time'])}):"
    return [
        *wrapped(head.strip(), paint.width, "  ", ""),
        *(paint(f"             {t}", fg) for t, fg in lines),
    ]
