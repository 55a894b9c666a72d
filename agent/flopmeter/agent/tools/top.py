"""`flopmeter agent top`: one line a GPU, in 80 columns, over ssh. Plain ANSI; colour only where asked for."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.flop import ZERO, Figure

from .live import Rounds
from .view import NodeView, Shown, workload_text

COLUMNS = 80
_HISTORY = 8
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.,-=+*#"
_HEAD = f"{'':>2} {'model':<14}{'cls':<4}{'SM%':>4}{'tensor':>7} {'TFLOP/s (range)':<17}{'W':>4} "

# Each screen starts at the top left and clears what is behind it, so that nothing flickers.
_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_COLORS = {"good": "32", "fair": "33", "bad": "31", "dim": "2", "head": "1"}


@dataclass(frozen=True, slots=True)
class Terminal:
    """What the output can show."""

    live: bool  # a screen that can be drawn over
    color: bool
    unicode: bool

    @classmethod
    def of(cls, *, isatty: bool, encoding: str, environ: Mapping[str, str]) -> "Terminal":
        """https://no-color.org: any value of NO_COLOR that is not empty switches colour off."""
        capable = isatty and environ.get("TERM", "") not in ("", "dumb")
        return cls(
            live=capable,
            color=capable and not environ.get("NO_COLOR"),
            unicode="utf" in encoding.lower(),
        )

    def paint(self, kind: str, text: str) -> str:
        return f"\x1b[{_COLORS[kind]}m{text}\x1b[0m" if self.color else text


@dataclass(slots=True)
class Screen:
    """Turns what was shown into lines; remembers the history that the sparklines draw."""

    terminal: Terminal
    history: dict[str, deque[float | None]] = field(default_factory=dict)
    alarms: Callable[[], list[str]] = list  # what stands between the agent and its collector

    def lines(self, facts: NodeFacts, shown: list[Shown]) -> Iterator[str]:
        yield self.terminal.paint("head", _clip(self._title(facts, shown)))
        yield self.terminal.paint("dim", _clip(_HEAD + f"{'history':<{_HISTORY}} workload"))
        for index, one in enumerate(shown):
            yield self._row(index, one)
            for flag in one.flags:
                yield self.terminal.paint("bad", _clip(f"   ! {flag}"))
        for alarm in self.alarms():
            yield self.terminal.paint("bad", _clip(f"! {alarm}"))
        for card in facts.uncovered:
            said = f" - {card.pci_address or '?'} {card.vendor} {card.model} is not metered: {card.reason}"
            yield self.terminal.paint("fair", _clip(said))

    def _title(self, facts: NodeFacts, shown: list[Shown]) -> str:
        rates = [one.flop_per_s for one in shown if one.flop_per_s is not None]
        total = sum(rates, ZERO) if rates else None
        gpus = sum(not one.device.mig for one in shown)
        driver = f" {facts.driver}" if facts.driver else ""
        return f"{facts.node}  {facts.source}{driver}  {gpus} GPUs  {_band(total)} TFLOP/s"

    def _row(self, index: int, one: Shown) -> str:
        history = self.history.setdefault(one.device.entity, deque(maxlen=_HISTORY))
        tensor = one.pipes_pct.get("tensor", one.pipes_pct.get("hmma"))
        history.append(tensor)
        name = ("MIG " if one.device.mig else "") + one.device.name.removeprefix("NVIDIA ").removeprefix(
            "Tesla "
        )
        grade = one.evidence_class.label if one.evidence_class else "-"
        figures = _note(one) or _band(one.flop_per_s)
        row = (
            f"{index:>2} {name[:13]:<14}"
            + self.terminal.paint(_quality(one), f"{grade:<4}")
            + f"{_percent(one.pipes_pct.get('sm_active'), 0):>4}{_percent(tensor, 1):>7} "
            + f"{figures[:16]:<17}{_watts(one.power_w):>4} "
            + f"{self._spark(history):<{_HISTORY}} "
        )
        return row + workload_text(one.workload)[: COLUMNS - _visible(row)]

    def _spark(self, history: deque[float | None]) -> str:
        marks = _BLOCKS if self.terminal.unicode else _ASCII
        gap = "·" if self.terminal.unicode else "?"
        return "".join(
            gap if value is None else marks[min(len(marks) - 1, int(value * len(marks) / 100))]
            for value in history
        ).rjust(_HISTORY)


def _visible(row: str) -> int:
    """Columns that a row with colour takes."""
    length = len(row)
    for code in _COLORS.values():
        length -= row.count(f"\x1b[{code}m") * (len(code) + 3)
    return length - row.count("\x1b[0m") * 4


def _clip(text: str) -> str:
    return text[:COLUMNS]


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


def _percent(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _watts(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


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


def draw(screen: Screen, facts: NodeFacts, shown: list[Shown]) -> str:
    """One frame as it is written out: drawn over the last on a live terminal, below it elsewhere."""
    lines = list(screen.lines(facts, shown))
    if not screen.terminal.live:
        return "\n".join(lines) + "\n"
    return _HOME + "".join(f"{line}{_END_OF_LINE}\r\n" for line in lines) + _REST


def enter(terminal: Terminal) -> str:
    return _ENTER if terminal.live else ""


def leave(terminal: Terminal) -> str:
    return _LEAVE if terminal.live else ""


def this_terminal(isatty: bool, encoding: str) -> Terminal:
    return Terminal.of(isatty=isatty, encoding=encoding, environ=os.environ)
