"""A run's report as one HTML file: no script, no outside address, plots as SVG, good on paper. Pure."""

from collections.abc import Mapping
from typing import Any

from flopmeter.cli.output import flop_text, lower_text, upper_text
from flopmeter.collector.paper.html import page_head, section_html, shown
from flopmeter.collector.report.course import stands_of
from flopmeter.collector.report.plots import STYLE as PLOT_STYLE
from flopmeter.collector.report.plots import Course, curve_svg, stands_svg
from flopmeter.collector.spelling import minute

from .report_blocks import Whole, energy, sections, share

_LIGHT = (
    "--bg: #ffffff; --panel: #f6f8fa; --ink: #16202a; --dim: #57606a; --rule: #d0d7de; --accent: #0b66c2; "
    "--good: #1a7f37; --warn: #8a5a00; --bad: #c1222f;"
)
_DARK = (
    "--bg: #0f1418; --panel: #161c22; --ink: #e6edf3; --dim: #9aa7b4; --rule: #2b343d; --accent: #5aa9f5; "
    "--good: #4bc168; --warn: #e3b341; --bad: #ff7b72;"
)
_STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 3rem; background: var(--bg); color: var(--ink);
  font: .9375rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; margin: 0; }}
h2 {{ font-size: 1.0625rem; margin: 1.75rem 0 .5rem; padding-bottom: .25rem; border-bottom: 1px solid var(--rule);
  break-after: avoid; }}
p {{ margin: .5rem 0; }}
.sub, figcaption, .note, footer {{ color: var(--dim); font-size: .8125rem; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .5rem; margin: 1rem 0 0; }}
.tiles div {{ background: var(--panel); border: 1px solid var(--rule); border-radius: 6px; padding: .5rem .75rem; }}
.tiles dt {{ color: var(--dim); font-size: .75rem; font-weight: 400; }}
.tiles dd {{ margin: 0; font-size: 1.125rem; font-weight: 600; }}
.tiles dd span {{ display: block; color: var(--dim); font-size: .75rem; font-weight: 400; }}
.crossed {{ color: var(--bad); }} .undetermined {{ color: var(--warn); }} .below {{ color: var(--good); }}
section > dl {{ display: grid; grid-template-columns: minmax(7rem, 11rem) 1fr; gap: .25rem 1rem; margin: .5rem 0; }}
section > dl dt {{ color: var(--dim); }} section > dl dd {{ margin: 0; }}
figure {{ margin: 1rem 0; break-inside: avoid; }}
table {{ border-collapse: collapse; width: 100%; margin: .75rem 0; font-size: .8125rem; }}
caption {{ text-align: left; font-weight: 600; padding: .25rem 0; }}
th, td {{ padding: .25rem .5rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule);
  overflow-wrap: break-word; }}
thead th {{ color: var(--dim); font-weight: 400; }} tbody th {{ font-weight: 600; }}
.whole {{ white-space: nowrap; }}
ul {{ margin: .5rem 0; padding-left: 1.25rem; }}
.wide {{ overflow-x: auto; }} .wide:focus-visible {{ outline: 2px solid var(--accent); }}
@media (max-width: 40rem) {{ section > dl {{ grid-template-columns: 1fr; }} section > dl dd {{ margin-bottom: .5rem; }}
  .wide table {{ min-width: 40rem; }} }}
@page {{ margin: 14mm; }}
@media print {{ body {{ max-width: none; padding: 0; font-size: 9.5pt; }} table {{ font-size: 8pt; }}
  .wide {{ overflow: visible; }} tr, li, .tiles {{ break-inside: avoid; }} thead {{ display: table-header-group; }}
  h2 {{ margin-top: 1.1rem; }} figure {{ margin: .5rem 0; }}
  .tiles {{ grid-template-columns: repeat(4, 1fr); }} }}
{PLOT_STYLE}"""


def to_html(whole: Whole) -> str:
    """The whole page."""
    d = whole.report
    parts = [
        *page_head(f"Report on run {d['run']}", _STYLE),
        "<body>",
        "<header>",
        f"<h1>Run {shown(d['run'])}</h1>",
        (
            f'<p class="sub">Report made {minute(d["time"])} UTC by flopmeter, from the books and the run registry. '
            f"The run is {shown(d['status'])}.</p>"
        ),
        *_tiles(d),
        "</header>",
        "<main>",
    ]
    for part in sections(whole):
        drawn = section_html(part)
        if part["name"] == "lines":
            behind_text = 2 + len(part["text"])  # the section's and the heading's line go before
            drawn[behind_text:behind_text] = _plots(whole)
        parts += drawn
    parts += [
        "</main>",
        (
            f"<footer><p>FLOP from SM-cycles by table {shown(d['w_table'])}. Compute is a trigger for scrutiny, not a "
            "measure of risk.</p></footer>"
        ),
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(parts)


def _tiles(d: Mapping[str, Any]) -> list[str]:
    """What somebody looks for first."""
    if d["executed"] is None:
        return []
    flop, c = d["executed"]["flop"], d["coverage"]
    expected = c["expected_device_seconds"]
    observed = f"{(1 - c['gap_device_seconds'] / expected) * 100:.1f} %" if expected else "-"
    tiles = [
        _tile(
            "Executed",
            f"{flop_text(int(flop['point']))} FLOP",
            f"between {lower_text(int(flop['lower']))} and {upper_text(int(flop['upper']))}",
        )
    ]
    binding = [t for t in d["thresholds"] if t["in_force"]]
    if binding:
        past = [t for t in binding if t["verdict"] != "below"]
        t = past[-1] if past else binding[0]
        note = f"{share(t['fraction'])} of {t['regime']}"
        tiles.append(_tile("Nearest line in force", t["verdict"], note, t["verdict"]))
    tiles.append(_tile("Device time observed", observed, f"of {expected / 3600:,.0f} GPU-h"))
    tiles.append(_tile("Energy", energy(d).partition(",")[0], ", ".join(d["by_model"])))
    return ['<dl class="tiles">', *tiles, "</dl>"]


def _tile(name: str, value: str, note: str, kind: str = "") -> str:
    mark = f' class="{kind}"' if kind in ("crossed", "undetermined", "below") else ""
    return f"<div><dt>{shown(name)}</dt><dd{mark}>{shown(value)}<span>{shown(note)}</span></dd></div>"


def _plots(whole: Whole) -> list[str]:
    """The same figures, drawn; exact ones are in the tables."""
    found = []
    stands = stands_of(whole.report)
    if any(s.upper for s in stands):
        off = " Dashed, with a star: not in force." if not all(s.in_force for s in stands) else ""
        found += [
            "<figure>",
            stands_svg(stands, ident="stands"),
            (
                "<figcaption>What each regime counts, lower to upper, the point as a diamond; upright the line. "
                f"Logarithmic.{off}</figcaption>"
            ),
            "</figure>",
        ]
    if whole.course is not None:
        for log in (False, True):
            ident = "log" if log else "linear"
            found += [
                "<figure>",
                curve_svg(whole.course, log=log, ident=ident),
                f"<figcaption>{_caption(whole, whole.course, log=log)}</figcaption>",
                "</figure>",
            ]
    return found


def _caption(whole: Whole, course: Course, *, log: bool) -> str:
    if log:
        return "The same on a logarithmic scale, with every line."
    said = [
        "FLOP executed over time: the point as a line, lower to upper bound as the band; across, the lines."
    ]
    if course.ahead is not None:
        said.append(
            f"Dashed: where it comes to if it goes on so, a {course.confidence_percent} % interval; no measurement."
        )
    if course.gaps:
        said.append("Hatched below: some device time was not read.")
    if course.blanks:
        said.append("Hatched in the plot: nothing was recorded.")
    owed = int(whole.report["unreported"]["flop"]["upper"])
    if owed:
        said.append(
            f"Up to {upper_text(owed)} FLOP of silent agents are in the totals, and in no hour of this curve."
        )
    return shown(" ".join(said))
