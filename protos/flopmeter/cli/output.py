"""What every printing command shares: `--json`, and figures for people."""

import json
import sys
from collections.abc import Mapping
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


_SHOWN = 3  # significant digits that people are shown
_WHOLE = 4  # numbers of so many digits are said whole


def flop_text(value: int) -> str:
    """A figure for people, FLOP or cycles: 1.23e25, to the nearest, halves up; below 10,000 whole.

    Never up onto a power of ten, which is where laws draw their lines: 10^25 - 1 is 9.99e24. Of a bound it may say what
    excludes it: those are `lower_text` and `upper_text`.
    """
    lead, exponent = _cut(value)
    if exponent is None:
        return str(value)
    unit = 10 ** (exponent - _SHOWN + 1)
    up = lead < 10**_SHOWN - 1 and 2 * (abs(value) - lead * unit) >= unit
    return _scientific(lead + up, exponent, value)


def lower_text(value: int) -> str:
    """A lower bound for people: like `flop_text`, rounded down, so that it is still one."""
    return _bound(value, away=value < 0)


def upper_text(value: int) -> str:
    """An upper bound for people: like `flop_text`, rounded up, so that it is still one."""
    return _bound(value, away=value > 0)


def band_texts(figure: Mapping[str, str]) -> tuple[str, str, str]:
    """Lower, point and upper of a figure as documents have it, each rounded its way."""
    return lower_text(int(figure["lower"])), flop_text(int(figure["point"])), upper_text(int(figure["upper"]))


def _bound(value: int, *, away: bool) -> str:
    lead, exponent = _cut(value)
    if exponent is None:
        return str(value)
    return _scientific(lead + (away and abs(value) != lead * 10 ** (exponent - _SHOWN + 1)), exponent, value)


def _cut(value: int) -> tuple[int, int | None]:
    """Leading digits and the power of ten of the first; None: said whole."""
    digits = str(abs(value))
    return (0, None) if len(digits) <= _WHOLE else (int(digits[:_SHOWN]), len(digits) - 1)


def _scientific(lead: int, exponent: int, value: int) -> str:
    if lead == 10**_SHOWN:  # 9.99 and a bit, rounded away from nought
        lead, exponent = lead // 10, exponent + 1
    text = str(lead)
    return f"{'-' * (value < 0)}{text[0]}.{text[1:]}e{exponent}"


def seconds_text(seconds: float) -> str:
    """A duration for people: 42 s, 3.4 min, 5.1 h, 12.3 d."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if abs(seconds) < limit:
            return f"{seconds / size:.0f} {unit}" if unit == "s" else f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"
