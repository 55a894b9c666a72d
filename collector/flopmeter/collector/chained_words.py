"""What the tables of people's words have in common: lines of text, and rows that are chained by their hashes. Pure.

A table's first column is its number, from 1 on; each row names the hash of the one before, and its own covers that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .errors import CollectorError

#: What the first row names as the hash before it.
NO_HASH = bytes(32)
MAX_TEXT_CHARS = 2_000


class Fault(NamedTuple):
    """The first place where a chain does not hold."""

    number: int
    column: str
    expected: object
    got: object


def link_fault(row: Any, number: int, prev_hash: bytes, row_hash: Callable[[Any], bytes]) -> Fault | None:
    """What is wrong with the row that should be the `number`th, behind the one of that hash; of its words nothing."""
    for column, kind in type(row).__annotations__.items():  # SQLite takes any type in any column
        if type(getattr(row, column)) is not kind:
            return Fault(number, column, f"of type {kind.__name__}", repr(getattr(row, column))[:80])
    if row[0] != number:
        return Fault(number, row._fields[0], number, row[0])
    if row.prev_hash != prev_hash:
        return Fault(number, "prev_hash", prev_hash.hex(), row.prev_hash.hex())
    if row.hash != (digest := row_hash(row)):
        return Fault(number, "hash", digest.hex(), row.hash.hex())
    return None


def check_text(
    error: type[CollectorError],
    what: str,
    text: str,
    hint: str,
    *,
    needed: bool = True,
    most: int = MAX_TEXT_CHARS,
    shorter: str = "",
) -> None:
    """Raise `error` unless `text` is one printable line of bearable length. `shorter`: how else to say more."""
    if needed and not text.strip():
        raise error(f"{what}: expected some words, got none", hint)
    if len(text) > most:
        raise error(f"{what}: expected at most {most} characters, got {len(text)}", shorter or hint)
    if not text.isprintable():
        raise error(
            f"{what}: expected one printable line, got {text[:40]!r}",
            "remove line breaks and control characters",
        )
