"""A run's report as Markdown (CommonMark, tables as GitHub's). Pure; whatever stands in a name is shown and never acts."""

from typing import Any

from flopmeter.cli.layout import DEFAULT_COLUMNS, Paint
from flopmeter.collector.paper.markdown import block, escaped, section_markdown
from flopmeter.collector.paper.visible import visible
from flopmeter.collector.report.curve import curve_view
from flopmeter.collector.report.runs_view import thresholds_view
from flopmeter.collector.spelling import minute

from .report_blocks import Whole, sections


def to_markdown(whole: Whole, hourly: list[dict[str, Any]] | None = None) -> str:
    """The whole page. `hourly`: of `runs show --json`, drawn as blocks."""
    d = whole.report
    lines = [
        f"# Run {escaped(d['run'])}",
        "",
        (
            f"Report made {minute(d['time'])} UTC by flopmeter, from the books and the run registry. The run is "
            f"{escaped(d['status'])}."
        ),
        "",
    ]
    for part in sections(whole):
        lines += section_markdown(part)
        if part["name"] == "lines" and d["thresholds"]:
            lines += _drawn(d, hourly)
    lines += ["---", "", block("Compute is a trigger for scrutiny, not a measure of risk."), ""]
    return "\n".join(lines)


def _drawn(d: Any, hourly: list[dict[str, Any]] | None) -> list[str]:
    """Bars and curve as on a terminal: indented code, out of which no name can break."""
    plain = Paint(colour=False, width=DEFAULT_COLUMNS)
    drawn = [*thresholds_view(d, plain), *(["", *curve_view(hourly, plain)] if hourly else [])]
    return [*(f"    {visible(line)}".rstrip() for line in drawn), ""]
