"""The terminal view: a picture of the cluster as lines of text. Pure: state and width in, lines out.

Nothing here reads a clock, a terminal or the environment, so a test can hold every line to its width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flopmeter.cli.cells import columns, fit
from flopmeter.cli.output import flop_text

from .paint import (
    Line,
    Style,
    clock_text,
    energy_text,
    odometer_text,
    percent_text,
    rate_text,
    render,
    sparkline,
    spread,
)

MIN_WIDTH = 60
MAX_WIDTH = 140


#: Runs take these in turn, in the list and in the node map.
RUN_STYLES = (Style.CYAN, Style.MAGENTA, Style.BLUE, Style.GREEN)


class Severity(StrEnum):
    """How loudly an event is shown."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Tick:
    """A threshold on the run's scale. `answer`: crossed, below or undetermined."""

    flop: int
    label: str
    answer: str


@dataclass(frozen=True, slots=True)
class RunLine:
    name: str
    lower: int
    point: int
    upper: int
    rate_flop_per_s: int
    spark: tuple[int, ...]  # one figure per day or hour, oldest first
    energy_joules: int
    device_hours: int
    gap_ppm: int  # share of the expected device-seconds that nobody observed
    ticks: tuple[Tick, ...]
    active: bool


@dataclass(frozen=True, slots=True)
class EventLine:
    unix_ns: int
    severity: Severity
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class NodeCell:
    """One node of the map. `gpus` = the run's place in the list per GPU; -1 idle, -2 unattributed."""

    name: str
    silent: bool
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything the view shows, at one instant."""

    unix_ns: int
    mode: str  # "history, day 12 of 30", "live"
    live: bool
    progress_ppm: int  # of the history; 1,000,000 = done
    nodes_live: int
    nodes_silent: int
    gpus: int
    models: tuple[str, ...]
    classes: tuple[tuple[str, int], ...]  # evidence class -> ppm of device time
    runs: tuple[RunLine, ...]
    events: tuple[EventLine, ...]
    nodes: tuple[NodeCell, ...]
    spark_label: str = ""  # what the sparklines span: "30 DAYS"
    hints: tuple[str, ...] = ()
    link: str = ""  # to the page that shows the same


def draw(picture: Picture, width: int, *, colour: bool, height: int = 0) -> list[str]:
    """The picture as lines, none wider than `width`; with `height`, cut to it from the least important."""
    screen, width = width, max(MIN_WIDTH, min(MAX_WIDTH, width))
    head = [*_header(picture, width), []]
    runs = _runs(picture, width)
    events = _events(picture)
    nodes = _nodes(picture, width)
    hints = _hints(picture)
    link = _link(picture, min(screen, width))
    body = [*head, *runs, *events, *nodes, *hints]
    height = max(len(head), height - len(link)) if height else 0  # the link is never dropped
    for part in (hints, nodes, events):
        if height and len(body) > height:
            body = [line for line in body if not any(line is dropped for dropped in part)]
    if height:
        body = body[:height]
    return [render(line, min(screen, width), colour=colour) for line in [*body, *link]]


def bar(low: float, run: RunLine, cells: int, decades: float) -> Line:
    """Lower … point … upper on a log scale that starts at 10^`low` and spans `decades`."""

    def cell(flop: int) -> int:
        at = (math.log10(flop) - low) / decades * cells if flop > 0 else 0.0
        return max(0, min(cells - 1, math.floor(at)))

    first, mid, last = cell(run.lower), cell(run.point), cell(run.upper)
    ticks = {cell(t.flop): t for t in run.ticks}
    line: Line = []
    for i in range(cells):
        tick = ticks.get(i)
        if i == mid and run.point:
            line.append(("┃", Style.BOLD))
        elif tick is not None:
            line.append(("╋" if i <= last and run.upper else "┼", _answer_style(tick.answer)))
        elif i < first:
            line.append(("━", Style.GREEN))
        elif i <= last and run.upper:
            line.append(("▒" if i < mid else "░", Style.YELLOW))
        else:
            line.append(("─", Style.DIM))
    return line


def models_text(models: Sequence[str]) -> str:
    """A model whole; of several no more than tells them apart to who bought them."""
    if len(models) == 1:
        return models[0]
    return ", ".join(sorted({name.removeprefix("NVIDIA ").partition(" ")[0] for name in models}))


def _header(p: Picture, width: int) -> list[Line]:
    left: Line = [(" flopmeter ", Style.TITLE), ("an odometer for AI compute", Style.DIM)]
    state: Line = [("● ", Style.GREEN if p.live else Style.YELLOW), (p.mode, Style.PLAIN)]
    right: Line = [*state, (f"   {clock_text(p.unix_ns)} UTC ", Style.BOLD)]
    first = spread(left, right, width)
    fleet: Line = [
        (f" {p.nodes_live + p.nodes_silent} nodes", Style.BOLD),
        ("  ", Style.PLAIN),
        (f"{p.nodes_live} live", Style.GREEN),
        ("  ", Style.PLAIN),
        (f"{p.nodes_silent} silent", Style.ALARM if p.nodes_silent else Style.DIM),
        (f"   {p.gpus} GPUs", Style.BOLD),
        (f"  {models_text(p.models)}", Style.DIM),
    ]
    mix: Line = []
    for label, ppm in p.classes:
        style = Style.YELLOW if label == "gap" else Style.PLAIN
        mix.append((f"{label} {percent_text(ppm)}  ", style))
    second = spread(fleet, mix, width)
    if p.progress_ppm >= 1_000_000:
        rule: Line = [("─" * width, Style.DIM)]
    else:
        done = width * p.progress_ppm // 1_000_000
        rule = [("━" * done, Style.CYAN), ("─" * (width - done), Style.DIM)]
    return [first, second, rule]


def _runs(p: Picture, width: int) -> list[Line]:
    out: list[Line] = []
    name_cells = width - 58 if width < 90 else width - 62
    spark_cells = width - name_cells - 44
    head = f" {'RUN':<{name_cells}}{'FLOP':>9}{'NOW':>15}  {p.spark_label:<{spark_cells}}{'ENERGY':>10}"
    out.append([(head, Style.DIM)])
    low, decades = _scale(p.runs)
    for i, run in enumerate(p.runs):
        style = RUN_STYLES[i % len(RUN_STYLES)]
        mark = "▸ " if run.active else "  "
        out.append(
            [
                (f" {mark}", style),
                (fit(run.name, name_cells - 3).ljust(name_cells - 2), style),
                (f"{flop_text(run.point):>9}", Style.BOLD),
                (f"{rate_text(run.rate_flop_per_s):>15}  ", Style.PLAIN),
                (sparkline(run.spark, min(30, spark_cells - 2)).ljust(spark_cells), style),
                (f"{energy_text(run.energy_joules):>10}", Style.PLAIN),
            ]
        )
        out.append([("   ", Style.PLAIN), *bar(low, run, width - 6, decades)])
        answers: Line = [("   ", Style.PLAIN)]
        for tick in run.ticks:
            answers.append((f"{tick.label} {tick.answer}   ", _answer_style(tick.answer)))
        if run.gap_ppm:
            answers.append((f"gap {percent_text(run.gap_ppm)}", Style.YELLOW))
        out.append(spread(answers, [(odometer_text(run.point), Style.DIM), ("   ", Style.PLAIN)], width))
    if not p.runs:
        out.append([("   no run yet", Style.DIM)])
    else:
        out.append([(_axis(low, decades, width), Style.DIM)])
    return [*out, []]


def _scale(runs: Sequence[RunLine]) -> tuple[float, float]:
    """Where the common log scale starts and how many decades it spans: up to just past 10^26."""
    least = min((r.lower or r.point for r in runs if r.lower or r.point), default=10**20)
    low = max(9.0, min(20.0, math.floor(math.log10(least)) - 1.0))
    most = max((t.flop for r in runs for t in r.ticks), default=10**26)
    most = max(most, *(r.upper for r in runs)) if runs else most
    return low, math.log10(most) + 0.4 - low


def _axis(low: float, decades: float, width: int) -> str:
    """Powers of ten under the bars, as many as there is room for."""
    cells = width - 6
    line = [" "] * width
    every = max(1, math.ceil(decades * 7 / cells))
    for exponent in range(math.ceil(low), math.floor(low + decades) + 1, every):
        text = f"1e{exponent}"
        at = 3 + math.floor((exponent - low) / decades * cells)
        if at + len(text) < width:
            line[at : at + len(text)] = text
    return "".join(line).rstrip()


def _events(p: Picture) -> list[Line]:
    out: list[Line] = [[(" EVENTS", Style.DIM)]]
    for event in p.events:
        style = {
            Severity.INFO: Style.PLAIN,
            Severity.WARNING: Style.YELLOW,
            Severity.CRITICAL: Style.ALARM,
        }[event.severity]
        out.append(
            [
                (f"   {clock_text(event.unix_ns, seconds=False)}  ", Style.DIM),
                (f"{event.type:<24}", style),
                (event.text, Style.PLAIN),
            ]
        )
    if not p.events:
        out.append([("   none", Style.DIM)])
    return [*out, []]


def _nodes(p: Picture, width: int) -> list[Line]:
    """Each GPU one block, in its run's colour: ▪ work, · idle, ? unattributed, × silent."""
    key: Line = [(" NODES", Style.DIM), ("   ▪ in a run  ? unattributed  · idle  × silent", Style.DIM)]
    out: list[Line] = [key]
    if not p.nodes:
        return [*out, []]
    name_cells = min(16, max(columns(n.name) for n in p.nodes))
    gpu_cells = max(len(n.gpus) for n in p.nodes)
    cell = name_cells + gpu_cells + 4
    across = max(1, (width - 3) // cell)
    for start in range(0, len(p.nodes), across):
        line: Line = [("   ", Style.PLAIN)]
        for node in p.nodes[start : start + across]:
            name = fit(node.name, name_cells)
            line.append((name + " " * (name_cells - columns(name) + 1), Style.DIM))
            line += _gpus(node)
            line.append((" " * (gpu_cells - len(node.gpus) + 3), Style.PLAIN))
        out.append(line)
    return [*out, []]


def _gpus(node: NodeCell) -> Line:
    if node.silent:
        return [("×" * len(node.gpus), Style.ALARM)]
    line: Line = []
    for held in node.gpus:
        if held >= 0:
            line.append(("▪", RUN_STYLES[held % len(RUN_STYLES)]))
        else:
            line.append(("·", Style.DIM) if held == -1 else ("?", Style.YELLOW))
    return line


def _hints(p: Picture) -> list[Line]:
    return [[("   " if i else " ", Style.PLAIN), (hint, Style.DIM)] for i, hint in enumerate(p.hints)]


def _link(p: Picture, width: int) -> list[Line]:
    """Whole, and alone on its lines: a browser takes it as it is copied, line breaks and all."""
    if not p.link:
        return []
    rows = [p.link[at : at + width] for at in range(0, len(p.link), width)]
    return [[(" PAGE", Style.DIM)], *([(row, Style.CYAN)] for row in rows)]


def _answer_style(answer: str) -> Style:
    return {"crossed": Style.ALARM, "undetermined": Style.YELLOW}.get(answer, Style.DIM)
