"""A draft as Markdown. Pure: the document in, text out; whatever stands in a value is shown and never acts.

Backslash escapes of ASCII punctuation are CommonMark's; names of runs and reasons come from anybody.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .blocks import GIVEN
from .visible import visible

#: What could begin markup anywhere in a line: emphasis, code, links, HTML, entities, tables, mathematics, addresses.
_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#|~!&$@])")
#: What could begin a block, or make a bare address into a link.
_AT_START = re.compile(r"^(\d*)([-+=:.)])")
_LINK = re.compile(r"(?i)(https?|ftp)(:)(?=//)|\b(www)(\.)")


def escaped(text: str) -> str:
    """One line of text that Markdown shows as it is."""
    line = _ACTIVE.sub(r"\\\1", visible(text))
    return _LINK.sub(lambda m: f"{m[1] or m[3]}\\{m[2] or m[4]}", line)


def block(text: str) -> str:
    """A paragraph of its own: it begins no list, heading or rule either."""
    return _AT_START.sub(r"\1\\\2", escaped(text.strip()))


def to_markdown(document: Mapping[str, Any]) -> str:
    """The whole document."""
    lines = [
        f"# {escaped(document['title'])}",
        "",
        f"**{escaped(document['banner'])}**",
        "",
        *_rows(
            [("Of", document["run"]), ("To", document["recipient"]), ("Made", document["made"])],
        ),
        "",
    ]
    for part in document["sections"]:
        lines += section_markdown(part)
    lines += ["---", "", block(document["note"]), ""]
    return "\n".join(lines)


def section_markdown(part: Mapping[str, Any]) -> list[str]:
    """One section of blocks.section."""
    lines = [f"## {escaped(part['title'])}", ""]
    for text in part["text"]:
        lines += [block(text), ""]
    if part["fields"]:
        lines += [*(_field(f) for f in part["fields"]), ""]
    for found in part["tables"]:
        lines += [*_table(found), ""]
    if part["points"]:
        lines += [*(f"- {block(point)}" for point in part["points"]), ""]
    return lines


def _rows(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"- **{escaped(name)}:** {escaped(value)}" for name, value in rows]


def _field(field: Mapping[str, Any]) -> str:
    note = f" ({escaped(field['note'])})" if field["note"] else ""
    if field["state"] == GIVEN:
        return f"- **{escaped(field['label'])}:** {escaped(field['value'])}{note}"
    return f"- **{escaped(field['label'])}:** \\[{escaped(field['state'].upper())}\\]{note}"


def _table(found: Mapping[str, Any]) -> list[str]:
    title = f"**{escaped(found['title'])}**"
    if not found["rows"]:
        return [f"{title}: none"]
    lines = [title, "", _line(found["head"]), "|" + " --- |" * len(found["head"])]
    return lines + [_line(row) for row in found["rows"]]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |"
