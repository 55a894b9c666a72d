"""What every printing command shares: `--json`, and figures for people."""

import json
import sys
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object with stable keys.")


def emit_json(value: Any) -> None:
    """One JSON document on stdout. FLOP and cycle figures must already be decimal strings."""
    click.echo(json_text(value))


def json_text(value: Any) -> str:
    """One line. Where the output cannot take every character, what it lacks stands as JSON's own escapes."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return json.dumps(value, ensure_ascii="utf" not in encoding.lower(), sort_keys=False)


def flop_text(value: int) -> str:
    """A FLOP figure for people: 1.23e+25 style, rounded down so that it never shows a line as reached."""
    if value < 1000:
        return str(value)
    digits = str(value)
    return f"{digits[0]}.{digits[1:3]}e{len(digits) - 1}"


def seconds_text(seconds: float) -> str:
    """A duration for people: 42 s, 3.4 min, 5.1 h, 12.3 d."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if abs(seconds) < limit:
            return f"{seconds / size:.0f} {unit}" if unit == "s" else f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"
