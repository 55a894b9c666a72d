"""What a document on paper is made of: sections of paragraphs, fields and tables, as plain JSON values. Pure.

The document is the one template of all three formats: JSON is the document itself, Markdown and HTML walk it
(markdown.py, html.py), so that a figure cannot be another in one of them. Every value is text that was made once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SCHEMA = "flopmeter-draft/1"
#: What is known of a field.
GIVEN = "given"
TO_FILL = "to be filled in"
WITHHELD = "withheld"
UNKNOWN = "not known"

Document = dict[str, Any]


def given(name: str, label: str, value: str, note: str = "") -> Document:
    """A field that the books answer. `name` is for programs, and stable."""
    return _field(name, label, GIVEN, value, note)


def to_fill(name: str, label: str, why: str) -> Document:
    """A field that no counter sees: a person fills it in. `why` says what is asked."""
    return _field(name, label, TO_FILL, None, why)


def withheld(name: str, label: str, reason: str) -> Document:
    """A field that the recipient is not owed; its name stands, its value does not (regulations.md 13.18)."""
    return _field(name, label, WITHHELD, None, reason)


def unknown(name: str, label: str, why: str) -> Document:
    """A field that the books ought to answer and cannot."""
    return _field(name, label, UNKNOWN, None, why)


def _field(name: str, label: str, state: str, value: str | None, note: str) -> Document:
    return {"name": name, "label": label, "state": state, "value": value, "note": note or None}


def table(name: str, title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Document:
    """A table; every cell is text. One without rows is shown as "none"."""
    return {"name": name, "title": title, "head": list(head), "rows": [list(row) for row in rows]}


def section(
    name: str,
    title: str,
    *,
    text: Iterable[str] = (),
    fields: Iterable[Document] = (),
    tables: Iterable[Document] = (),
    points: Iterable[str] = (),
) -> Document:
    """One section, shown in this order: paragraphs, fields, tables, points."""
    return {
        "name": name,
        "title": title,
        "text": list(text),
        "fields": list(fields),
        "tables": list(tables),
        "points": list(points),
    }


def every_field(document: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The fields of all sections, in order."""
    for part in document["sections"]:
        yield from part["fields"]
