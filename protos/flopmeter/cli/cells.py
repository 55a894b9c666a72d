"""Columns that text takes on a terminal, and text cut to them. Pure."""

import unicodedata


def columns(text: str) -> int:
    """Columns that `text` takes: wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )


def fit(text: str, cells: int, more: str = "…") -> str:
    """`text` cut to `cells` columns, `more` at its end where it was; control characters shown as ?."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    if columns(text) <= cells:
        return text
    if cells < len(more):
        return ""
    out, room = [], cells - len(more)
    for c in text:
        room -= columns(c)
        if room < 0:
            break
        out.append(c)
    return "".join(out) + more


def padded(text: str, cells: int, *, right: bool = False, more: str = "…") -> str:
    """Cut or filled to exactly `cells` columns."""
    text = fit(text, cells, more)
    blank = " " * (cells - columns(text))
    return blank + text if right else text + blank
