"""A draft as one HTML file: no script, no style or font from elsewhere, readable by a screen reader and on paper. Pure."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .blocks import GIVEN
from .visible import visible

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1 { line-height: 1.2; }
h2 { margin-top: 2rem; border-bottom: 1px solid; break-after: avoid; }
.banner { border: 3px solid #b00020; padding: .75rem 1rem; font-weight: 600; }
dl { display: grid; grid-template-columns: minmax(10rem, 18rem) 1fr; gap: .25rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; }
.state { border: 1px solid; padding: 0 .35rem; font-weight: 600; }
.note { font-size: .875rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .875rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
.whole { white-space: nowrap; }
th, td { border: 1px solid; padding: .25rem .5rem; min-width: 4.5em; text-align: left; vertical-align: top; }
.wide { overflow-x: auto; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } .wide { overflow: visible; }
  tr, dd { break-inside: avoid; } }
"""

_UNBROKEN = 17  # characters of a cell: 2026-11-22 18:55 and then one


def shown(text: str) -> str:
    """Text that HTML shows as it is, in an element or in a quoted attribute."""
    return escape(visible(text), quote=True)


def to_html(document: Mapping[str, Any]) -> str:
    """The whole document."""
    parts = [
        *page_head(f"DRAFT: {document['title']}", _STYLE),
        "<body>",
        "<main>",
        f"<h1>{shown(document['title'])}</h1>",
        f'<p class="banner" role="note">{shown(document["banner"])}</p>',
        "<dl>",
        *(_pair(n, shown(v)) for n, v in _head(document)),
        "</dl>",
    ]
    for part in document["sections"]:
        parts += section_html(part)
    parts += [
        f"<footer><p><strong>{shown(document['note'])}</strong></p></footer>",
        "</main>",
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(parts)


def page_head(title: str, style: str) -> list[str]:
    """The beginning of a page that needs no other file."""
    return [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        # Nothing is loaded and nothing runs, whatever a value might have smuggled in.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{shown(title)}</title>",
        f"<style>{style}</style>",
        "</head>",
    ]


def _head(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("Of", document["run"]), ("To", document["recipient"]), ("Made", document["made"])]


def section_html(part: Mapping[str, Any]) -> list[str]:
    """One section of blocks.section."""
    name = shown(part["name"])
    lines = [f'<section aria-labelledby="{name}">', f'<h2 id="{name}">{shown(part["title"])}</h2>']
    lines += [f"<p>{shown(text)}</p>" for text in part["text"]]
    if part["fields"]:
        lines += ["<dl>", *(_field(f) for f in part["fields"]), "</dl>"]
    for found in part["tables"]:
        lines += _table(found)
    if part["points"]:
        lines += ["<ul>", *(f"<li>{shown(point)}</li>" for point in part["points"]), "</ul>"]
    return [*lines, "</section>"]


def _pair(label: str, value: str) -> str:
    return f"<dt>{shown(label)}</dt><dd>{value}</dd>"


def _field(field: Mapping[str, Any]) -> str:
    value = (
        shown(field["value"])
        if field["state"] == GIVEN
        else f'<span class="state">{shown(field["state"])}</span>'
    )
    note = f' <span class="note">({shown(field["note"])})</span>' if field["note"] else ""
    return _pair(field["label"], value + note)


def _table(found: Mapping[str, Any]) -> list[str]:
    if not found["rows"]:
        return [f"<p><strong>{shown(found['title'])}</strong>: none</p>"]
    head = "".join(f'<th scope="col">{shown(cell)}</th>' for cell in found["head"])
    # A wide table scrolls by itself, and by keyboard.
    return [
        f'<div class="wide" role="region" tabindex="0" aria-label="{shown(found["title"])}">',
        f"<table><caption>{shown(found['title'])}</caption>",
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *(_row(row) for row in found["rows"]),
        "</tbody></table></div>",
    ]


def _row(cells: Sequence[str]) -> str:
    first, *rest = cells
    head = f'<th scope="row"{_whole(first)}>{shown(first)}</th>'
    return f"<tr>{head}{''.join(f'<td{_whole(c)}>{shown(c)}</td>' for c in rest)}</tr>"


def _whole(cell: str) -> str:
    """A figure or a time is not broken over lines."""
    return ' class="whole"' if len(cell) <= _UNBROKEN else ""
