"""`runs watch`: runs on one logarithmic axis, each with its band against the lines in force. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flopmeter.cli.cells import fit
from flopmeter.cli.layout import STATUS, Paint, shortened
from flopmeter.cli.output import band_texts, flop_text
from flopmeter.collector import empty
from flopmeter.collector.forecast.view import dates

from .runs_view import VERDICT, share_text

Line = Mapping[str, Any]
_ANSWERS = {
    "will-be-met": "will be met",
    "may-be-met": "may be met",
    "not-in-sight": "not in sight",
    "too-young": "too early to tell",
}
_SHORTEST = 12  # characters that a name keeps
_BOUNDS = ("lower", "point", "upper")


def watch_view(lines: Sequence[Line], thresholds: Sequence[Line], now: str, paint: Paint) -> list[str]:
    """The page. `lines`: items of the API's /runs; `thresholds`: its `lines`; `now`: the moment of it."""
    head = f"{len(lines)} run{'' if len(lines) == 1 else 's'}  {now[:19].replace('T', ' ')} UTC"
    if not lines:
        return [head, "", *empty.RUNS.splitlines()]
    ticks = sorted({int(t["threshold_flop"]) for t in thresholds})
    axis = _Axis.of(lines, ticks, paint.width - 4)
    page = [paint(head, bold=True), paint(axis.labels(), dim=True)]
    for line in lines:
        page += ["", *_run(line, ticks, axis, paint)]
    return page


def _run(line: Line, ticks: Sequence[int], axis: "_Axis", paint: Paint) -> list[str]:
    if line["fault"] is not None:
        return [fit(f"{line['run']}: {line['fault']}", paint.width)]
    mark, fg = STATUS[line["status"]]
    flop = line["executed"]
    lower, point, upper = band_texts(flop)
    status, rate = f"{mark} {line['status']}", _rate(line)
    right = f"  {point} FLOP"
    for more in (f" ({lower} to {upper})", f"  {rate}" if rate else ""):
        if _SHORTEST + 2 + len(status) + len(right) + len(more) <= paint.width:
            right += more
    name = shortened(line["run"], paint.width - len(right) - len(status) - 2)
    first = f"{paint(name, bold=True)}  {paint(status, fg)}{paint(right)}"
    return [first, f"  {axis.bar(flop, ticks)}", *_said(line, paint)]


def _rate(line: Line) -> str:
    if line["rate"] is None:
        return ""
    return f"{flop_text(int(line['rate']['flop_per_second']['point']))} FLOP/s"


def _said(line: Line, paint: Paint) -> list[str]:
    """Nearest line, forecast, coverage: what a line has room for."""
    parts, fg = [], None
    nearest = line["nearest"]
    if nearest is not None:
        parts.append(f"{nearest['verdict']} {nearest['regime']} {share_text(nearest['fraction'])}")
        fg = VERDICT[nearest["verdict"]]
    c = line["coverage"]
    if c["expected_device_seconds"]:
        share = math.floor(c["observed_device_seconds"] / c["expected_device_seconds"] * 1000) / 10
        parts.append(f"{share:.1f} % observed")
    first, *rest = parts or [""]
    text = fit(" · ".join([first, *rest]), paint.width - 2)
    found = [f"  {paint(text[: len(first)], fg)}{paint(text[len(first) :], dim=True)}"]
    ahead = forecast_text(line)
    if ahead:
        if len(text) + 5 + len(ahead) <= paint.width:
            found[0] += paint(f" · {ahead}", dim=True)
        else:
            found.append(paint(fit(f"  {ahead}", paint.width), dim=True))
    return found


def forecast_text(line: Line) -> str:
    """When the next line is met, by the last forecast kept."""
    found = line["forecast"]
    if found is None:
        return ""
    if found["regime"] is None:
        return f"no line in sight until {found['until'][:10]}"
    when = dates(found["crosses"])
    return f"{found['regime']} {_ANSWERS[found['answer']]}" + (f": {when}" if when else "")


def change_line(line: Line, text: Callable[[int], str] = str) -> str:
    """One run on one line, where there is no terminal to draw on; exact figures, for a log, unless `text` rounds them."""
    if line["fault"] is not None:
        return f"{line['run']} fault {line['fault']}"
    parts = [
        line["run"],
        line["status"],
        *(f"{k}={text(int(line['executed'][k]))}" for k in ("point", "lower", "upper")),
    ]
    if line["rate"] is not None:
        parts.append(f"flop_per_s={text(int(line['rate']['flop_per_second']['point']))}")
    nearest = line["nearest"]
    if nearest is not None:
        parts.append(f"{nearest['verdict']} {nearest['regime']} {share_text(nearest['fraction'])}")
    if line["forecast"] is not None:
        parts.append(f"forecast: {forecast_text(line)}")
    return " ".join(parts)


class _Axis:
    """Decades across the page."""

    def __init__(self, low: float, high: float, cells: int) -> None:
        self._low, self._high, self._cells = low, high, cells

    @classmethod
    def of(cls, lines: Sequence[Line], ticks: Sequence[int], cells: int) -> "_Axis":
        sound = [line["executed"] for line in lines if line["fault"] is None]
        least = min((int(f["lower"]) or int(f["point"]) for f in sound if int(f["point"])), default=10**20)
        high = max([*ticks, *(int(f["upper"]) for f in sound), 10])
        # Ten decades at most: what lies below is drawn at the edge.
        low = max(math.floor(_log(least)), math.ceil(_log(high)) - 10)
        return cls(float(low), max(_log(high) + 0.3, low + 1.0), cells)

    def cell(self, flop: int) -> int:
        at = (_log(flop) - self._low) / (self._high - self._low) * self._cells
        return min(self._cells - 1, max(0, int(at)))

    def labels(self) -> str:
        row = [" "] * self._cells
        step = max(1, math.ceil((self._high - self._low) * 8 / self._cells))
        for decade in range(math.ceil(self._low), math.floor(self._high) + 1, step):
            text, at = f"10^{decade}", self.cell(10**decade)
            if at + len(text) <= self._cells:
                row[at : at + len(text)] = text
        return f"  {''.join(row)}".rstrip()

    def bar(self, flop: Mapping[str, str], ticks: Sequence[int]) -> str:
        """Lower ━━◆━━ upper, ┃ a line in force; ╋ one within the band."""
        low, point, high = (int(flop[k]) for k in _BOUNDS)
        row = ["─"] * self._cells
        if high:
            for i in range(self.cell(low) if low else 0, self.cell(high) + 1):
                row[i] = "━" if low else "╍"
        for tick in ticks:
            row[self.cell(tick)] = "╋" if low <= tick <= high else "┃"
        if point:
            row[self.cell(point)] = "◆"
        return "".join(row)


def _log(value: int) -> float:
    return math.log10(value) if value > 0 else 0.0
