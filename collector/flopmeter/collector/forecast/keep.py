"""Which forecasts are kept: the first, one a day, and any that says something else than the last. Pure.

At most 24 a day and run, usually one; none of a run that has no line in sight and never had.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .project import DAY_NS


class Kept(NamedTuple):
    """What of the last forecast kept decides on the next."""

    unix_ns: int
    in_sight: bool  # any line
    at_rest: bool
    says: tuple[tuple[str, str, str, bool], ...]  # regime, original, answer, whether by plan
    crosses: tuple[int | None, ...]  # by the point, in the order of `says`


def to_text(document: Mapping[str, Any]) -> str:
    """As the store keeps it: one spelling, so that fsck can compare text."""
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def kept(document: Mapping[str, Any] | str) -> Kept:
    """Of a forecast as it is, or as the store keeps it."""
    found: Mapping[str, Any] = json.loads(document) if isinstance(document, str) else document
    lines = found["lines"]
    return Kept(
        int(found["unix_ns"]),
        bool(lines),
        bool(found["series"]) and all(s["state"] == "at-rest" for s in found["series"]),
        tuple((str(x["regime"]), str(x["original"]), str(x["answer"]), bool(x["by_plan"])) for x in lines),
        tuple(
            None if not x["crosses"] or not x["crosses"]["point"] else int(x["crosses"]["point"])
            for x in lines
        ),
    )


def worth_keeping(last: Kept | None, now: Kept) -> bool:
    """Whether `now` must be kept behind `last`."""
    if last is None:
        return now.in_sight
    if (last.says, last.at_rest) != (now.says, now.at_rest):
        return True
    if now.unix_ns // DAY_NS != last.unix_ns // DAY_NS:
        return now.in_sight and not now.at_rest
    return any(map(_moved, last.crosses, now.crosses, [now.unix_ns] * len(now.crosses)))


def _moved(before: int | None, after: int | None, now: int) -> bool:
    """Whether a date has moved by more than an eighth of what was left until it."""
    if before is None or after is None:
        return before is not after
    return abs(after - before) * 8 > max(before - now, 0)
