"""`flopmeter agent top`: one line a GPU, in 80 columns or as many as there are, over ssh. Plain ANSI.

Pure but for the lists that histories are kept in: what is pressed and read goes in, lines of text come out.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.cli.cells import columns, fit, padded
from flopmeter.cli.terminal import DEFAULT_COLUMNS, Terminal
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import ZERO, Figure

from .live import Rounds
from .view import NodeView, Shown, workload_text

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.,-=+*#"
_MAX_HISTORY = 60  # rounds that are kept; as many are drawn as there is room for

# Each screen starts at the top left and clears what is behind it, so that nothing flickers.
_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_COLORS = {"good": "32", "fair": "33", "bad": "31", "dim": "2", "head": "1"}

Key = Callable[[Shown], Any]


def _tensor(one: Shown) -> float | None:
    return one.pipes_pct.get("tensor", one.pipes_pct.get("hmma"))


#: What rows can be sorted by, one after the other; the largest first, what is not measured last.
SORTS: tuple[tuple[str, Key | None], ...] = (
    ("place", None),
    ("tensor", _tensor),
    ("TFLOP/s", lambda one: None if one.flop_per_s is None else one.flop_per_s.point),
    ("power", lambda one: one.power_w),
    ("energy", lambda one: one.energy_mj),
    ("workload", lambda one: workload_text(one.workload)),
)
HELP = """\
keys     s sort    p pause    ? help    q quit
         j k, arrows, PageUp, PageDown, g, G: where there are more lines than room

cls      how good the figures are: A1 cycle counters, A2 the same by calibrated percentages,
         A3, B1, B2 less exact, C and D only an upper bound, gap: could not be read
SM%      of the time, some SM was active; tensor: of the cycles, the tensor pipes were
TFLOP/s  what was executed: best estimate (lower-upper bound). The counters do not tell the
         precision, so that bounds are wide; <= means that only the upper one is known
W, kWh   power now, and energy since the driver was loaded
history  tensor share of the last rounds; a dot is a round that could not be read
workload a Slurm step, pod or run; idle; ? busy and nobody's

All of it is of the last interval, and for the eye; the books add up counters instead."""


def paint(terminal: Terminal, kind: str, text: str) -> str:
    return f"\x1b[{_COLORS[kind]}m{text}\x1b[0m" if terminal.color and text else text


@dataclass(frozen=True, slots=True)
class Column:
    """A column of figures: its head, width, and what it shows of a row."""

    head: str
    width: int
    text: Callable[[Shown], str]
    right: bool = True


def _pipe(name: str, digits: int = 0) -> Callable[[Shown], str]:
    return lambda one: _number(one.pipes_pct.get(name), digits)


_MODEL, _CLASS, _HISTORY, _WORKLOAD = "model", "cls", "history", "workload"
_FIGURES = (
    Column("SM%", 4, _pipe("sm_active")),
    Column("tensor", 7, lambda one: _number(_tensor(one), 1)),
)
_PIPES = tuple(Column(name, 5, _pipe(name)) for name in ("fp64", "fp32", "fp16", "int"))
_LAST = (
    Column("TFLOP/s (range)", 17, lambda one: " " + (_note(one) or _band(one.flop_per_s)), right=False),
    Column("W", 5, lambda one: _number(one.power_w, 0)),
    Column("kWh", 6, lambda one: "-" if one.energy_mj is None else _three(one.energy_mj / 3.6e9)),
)
_CLOCK = (Column("MHz", 5, lambda one: _number(one.sm_clock_mhz, 0)),)


@dataclass(slots=True)
class Screen:
    """Turns what was shown into lines; remembers histories, and what was pressed."""

    terminal: Terminal
    width: int = DEFAULT_COLUMNS
    height: int = 0  # lines of the terminal; 0: as many as it takes
    history: dict[str, deque[float | None]] = field(default_factory=dict)
    alarms: Callable[[], list[str]] = list  # what stands between the agent and its collector
    sort: int = 0
    top: int = 0  # the first line of the body that is shown
    paused: bool = False
    help: bool = False
    frame: tuple[NodeFacts, list[Shown]] | None = None

    def take(self, facts: NodeFacts, shown: list[Shown]) -> None:
        """A round: histories grow while it is paused, too."""
        for one in shown:
            kept = self.history.setdefault(one.device.entity, deque(maxlen=_MAX_HISTORY))
            kept.append(_tensor(one))
        if not self.paused or self.frame is None:
            self.frame = facts, shown

    def press(self, key: str) -> bool:
        """A key; True: that is the end."""
        if self.help and key not in ("q", "resized"):
            self.help = False
            return False
        page = max(1, self.height - 4)
        moves = {"j": 1, "down": 1, "k": -1, "up": -1, " ": page, "page-down": page, "b": -page}
        moves |= {"page-up": -page, "g": -(10**9), "first": -(10**9), "G": 10**9, "last": 10**9}
        if key in moves:
            self.top = max(0, self.top + moves[key])
        elif key == "s":
            self.sort, self.top = (self.sort + 1) % len(SORTS), 0
        elif key == "p":
            self.paused = not self.paused
        elif key in ("?", "h"):
            self.help = True
        return key == "q"

    def lines(self) -> list[str]:
        """The whole screen; on a terminal of a known height, just so many."""
        if self.frame is None:
            return []
        facts, shown = self.frame
        head = [self._paint("head", self._title(facts, shown)), self._paint("dim", self._heads())]
        body = list(self._body(facts, shown))
        if not self.height:
            return head + body
        if self.help:
            body = [self._paint("", line) for line in HELP.splitlines()]
        room = max(1, self.height - len(head) - 1)
        self.top = min(self.top, max(0, len(body) - room))
        seen = body[self.top : self.top + room]
        foot = self._paint("dim", self._foot(len(body), len(seen)))
        return ([*head, *seen, *[""] * (room - len(seen)), foot])[: self.height]

    def _foot(self, whole: int, seen: int) -> str:
        where = f"{self.top + 1}-{self.top + seen} of {whole}  j/k  " if whole > seen else ""
        paused = "paused  " if self.paused else ""
        return f" {where}{paused}s sort: {SORTS[self.sort][0]}  p pause  ? help  q quit"

    def _body(self, facts: NodeFacts, shown: list[Shown]) -> Iterator[str]:
        for index, one in self._sorted(shown):
            yield self._row(index, one)
            for flag in one.flags:
                yield self._paint("bad", f"   ! {flag}")
        for alarm in self.alarms():
            yield self._paint("bad", f"! {alarm}")
        for card in facts.uncovered:
            said = f" - {card.pci_address or '?'} {card.vendor} {card.model} is not metered: {card.reason}"
            yield self._paint("fair", said)

    def _sorted(self, shown: list[Shown]) -> list[tuple[int, Shown]]:
        rows = list(enumerate(shown))
        key = SORTS[self.sort][1]
        if key is None:
            return rows
        measured = [(i, one) for i, one in rows if key(one) is not None]
        rest = [(i, one) for i, one in rows if key(one) is None]
        by_name = isinstance(key(measured[0][1]), str) if measured else False
        return sorted(measured, key=lambda row: key(row[1]), reverse=not by_name) + rest

    def _paint(self, kind: str, text: str) -> str:
        text = fit(text, self.width, self._more())
        return paint(self.terminal, kind, text) if kind else text

    def _more(self) -> str:
        return "…" if self.terminal.unicode else "."

    def _title(self, facts: NodeFacts, shown: list[Shown]) -> str:
        rates = [one.flop_per_s for one in shown if one.flop_per_s is not None]
        total = sum(rates, ZERO) if rates else None
        gpus = sum(not one.device.mig for one in shown)
        driver = f" {facts.driver}" if facts.driver else ""
        paused = "PAUSED  " if self.paused else ""
        # A long name must not push the figures off the line.
        node = fit(facts.node, max(16, self.width - 52), self._more())
        return f"{paused}{node}  {facts.source}{driver}  {gpus} GPUs  {_band(total)} TFLOP/s"

    def _columns(self) -> tuple[int, tuple[Column, ...], int]:
        """(width of the model, columns of figures, width of the history): as much as there is room for."""
        if self.width < 110:
            return 11, (*_FIGURES, *_LAST), 8
        if self.width < 150:
            return 18, (*_FIGURES, *_PIPES, *_LAST), 12
        return 24, (*_FIGURES, *_PIPES, *_CLOCK, *_LAST), 30

    def _heads(self) -> str:
        model, figures, history = self._columns()
        cells = [padded(c.head if c.right else " " + c.head, c.width, right=c.right) for c in figures]
        return f"{'':>2} {_MODEL:<{model}}{_CLASS:<4}{''.join(cells)} {_HISTORY:<{history}} {_WORKLOAD}"

    def _row(self, index: int, one: Shown) -> str:
        model, figures, history = self._columns()
        name = one.device.name.removeprefix("NVIDIA ").removeprefix("Tesla ")
        name = f"MIG {name}" if one.device.mig else name
        grade = one.evidence_class.label if one.evidence_class else "-"
        more = self._more()
        left = f"{index:>2} {padded(name, model - 1, more=more)} "
        cells = "".join(padded(c.text(one), c.width, right=c.right, more=more) for c in figures)
        drawn = self._spark(self.history.get(one.device.entity, deque()), history)
        room = max(0, self.width - columns(left) - 4)
        rest = fit(f"{cells} {drawn} {workload_text(one.workload)}", room, more)
        grade = paint(
            self.terminal, _quality(one), fit(f"{grade:<4}", max(0, self.width - columns(left)), "")
        )
        return fit(left, self.width, "") + grade + rest

    def _spark(self, history: deque[float | None], cells: int) -> str:
        marks = _BLOCKS if self.terminal.unicode else _ASCII
        gap = "·" if self.terminal.unicode else "?"
        return "".join(
            gap if value is None else marks[max(0, min(len(marks) - 1, int(value * len(marks) / 100)))]
            for value in list(history)[-cells:]
        ).rjust(cells)


def _quality(one: Shown) -> str:
    if one.error or one.evidence_class is EvidenceClass.GAP:
        return "bad"
    if one.evidence_class in (EvidenceClass.A1, EvidenceClass.A2):
        return "good"
    return "dim" if one.evidence_class is None else "fair"


def _note(one: Shown) -> str:
    """What stands where there are no figures."""
    if one.error:
        return one.error.removeprefix("NVML_ERROR_").lower().replace("_", " ")
    return one.note if one.flop_per_s is None else ""


def _band(figure: Figure | None) -> str:
    """412 (206-830): point and bounds in TFLOP/s; class C and gaps have no point, only `<= upper`."""
    if figure is None:
        return "-"
    lower, point, upper = (value / 1e12 for value in (figure.lower, figure.point, figure.upper))
    if figure.point == 0 and figure.upper > 0:
        return f"<= {_three(upper)}"
    return f"{_three(point)} ({_three(lower)}-{_three(upper)})"


def _three(value: float) -> str:
    """Three digits where there is room for them: 0.42, 4.2, 42, 4200."""
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def to_json(facts: NodeFacts, shown: list[Shown]) -> dict[str, Any]:
    """One round with stable keys. FLOP figures are decimal strings; null = not measured."""
    return {
        "node": facts.node,
        "source": facts.source,
        "gpus": [_object(one) for one in shown],
        "uncovered": [
            {"pci_address": u.pci_address, "vendor": u.vendor, "model": u.model, "reason": u.reason}
            for u in facts.uncovered
        ],
    }


def _object(one: Shown) -> dict[str, Any]:
    rate = one.flop_per_s
    grade = one.evidence_class
    return {
        "entity": one.device.entity,
        "name": one.device.name,
        "mig": one.device.mig,
        "evidence_class": grade.label if grade else None,
        "note": one.note,
        "pipes_percent": {name: round(value, 3) for name, value in one.pipes_pct.items()},
        "flop_per_second": None
        if rate is None
        else {
            "lower": str(rate.lower),
            "point": None if grade in UPPER_ONLY else str(rate.point),
            "upper": str(rate.upper),
        },
        "sm_clock_mhz": one.sm_clock_mhz,
        "power_watts": one.power_w,
        "energy_joules": None if one.energy_mj is None else f"{one.energy_mj / 1000:.3f}",
        "workload": workload_text(one.workload),
        "flags": list(one.flags),
        "error": one.error,
    }


def frames(rounds: Rounds, attributor: Attributor | None = None) -> Iterator[tuple[NodeFacts, list[Shown]]]:
    """What each round showed. A GPU that a round of a trace does not name keeps its last line.

    `attributor` names the workloads where the source does not: of this node's processes.
    """
    view = NodeView(rounds.facts(), attributor)
    last: dict[str, Shown] = {}
    for items in rounds:
        facts = rounds.facts()
        last.update((one.device.entity, one) for one in view.update(facts, items))
        yield facts, [last[d.entity] for d in facts.devices if d.entity in last]


def draw(screen: Screen) -> str:
    """The screen as it is written out: drawn over the last on a live terminal, below it elsewhere."""
    lines = screen.lines()
    if not screen.terminal.live:
        return "\n".join(lines) + "\n"
    over = f"{_END_OF_LINE}\r\n".join(lines)  # none behind the last: it would scroll
    return f"{_HOME}{over}{_END_OF_LINE}{_REST}"
