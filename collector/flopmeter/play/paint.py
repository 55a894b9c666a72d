"""Pieces of a terminal picture: styled segments, widths, bars, sparklines, figures for people. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

from flopmeter.cli.cells import columns, fit

SPARKS = "▁▂▃▄▅▆▇█"
_RESET = "\x1b[0m"


class Style(StrEnum):
    """SGR parameters. Only the sixteen basic colours: they follow the reader's own theme."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    BLUE = "34"
    MAGENTA = "35"
    CYAN = "36"
    ALARM = "1;31"
    TITLE = "1;36"


Segment = tuple[str, Style]
Line = list[Segment]


def sparkline(figures: Sequence[int], cells: int) -> str:
    """The figures as blocks, in at most `cells`; zero is a blank, so that idle time is seen."""
    if not figures or cells <= 0:
        return ""
    each = -(-len(figures) // cells)
    # Grouped from the newest, so that the right edge is always a whole group.
    groups = [sum(figures[max(0, i - each) : i]) for i in range(len(figures), 0, -each)][::-1]
    top = max(groups)
    return "".join(SPARKS[min(7, g * 8 // top)] if g > 0 else " " for g in groups)


def rate_text(flop_per_s: int) -> str:
    """FLOP per second for people: 31.4 PFLOP/s."""
    for size, unit in ((10**18, "E"), (10**15, "P"), (10**12, "T"), (10**9, "G")):
        if flop_per_s >= size:
            return f"{flop_per_s * 10 // size / 10:.1f} {unit}FLOP/s"
    return "idle" if flop_per_s == 0 else f"{flop_per_s} FLOP/s"


def odometer_text(flop: int) -> str:
    """Every digit, in groups of three: what an odometer shows."""
    return f"{flop:,}".replace(",", " ") + " FLOP"


def energy_text(joules: int) -> str:
    """Energy for people: 61.2 MWh."""
    wh = joules / 3600
    for size, unit in ((1e9, "GWh"), (1e6, "MWh"), (1e3, "kWh")):
        if wh >= size:
            return f"{wh / size:.1f} {unit}"
    return f"{wh:.0f} Wh"


def clock_text(unix_ns: int, *, seconds: bool = True) -> str:
    at = datetime.fromtimestamp(unix_ns // 1_000_000_000, tz=UTC)
    return at.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%m-%d %H:%M")


def percent_text(ppm: int) -> str:
    return f"{ppm / 10_000:.1f} %"


def spread(left: Line, right: Line, width: int) -> Line:
    """`left` at the left edge, `right` at the right one; what does not fit is dropped from the right part."""
    used = sum(columns(text) for text, _ in left)
    kept: Line = []
    room = width - used - 1
    for text, style in right:
        if columns(text) > room:
            break
        kept.append((text, style))
        room -= columns(text)
    return [*left, (" " * (room + 1), Style.PLAIN), *kept]


def render(line: Line, width: int, *, colour: bool) -> str:
    out: list[str] = []
    room = width
    for text, style in line:
        cut = fit(text, room) if room > 0 else ""
        room -= columns(cut)
        if not cut:
            continue
        out.append(f"\x1b[{style.value}m{cut}{_RESET}" if colour and style is not Style.PLAIN else cut)
    return "".join(out).rstrip() if not colour else "".join(out)
