"""What was noted of a commit against its second row (law/witness.py), and events against what they were judged by. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from flopmeter.collector.law.witness import ENTRIES, JUDGED, RULES, rules_number
from flopmeter.collector.store.base import Noted

from .event_check import StoredEvent
from .rederive import Difference

#: A store of an older flopmeter has no second rows before the first of its kind.
At = tuple[int, int]  # from_position, from_unix_ns


class JudgedSpan(NamedTuple):
    """A row of the judged table."""

    regime: str
    digest: str
    from_position: int
    from_unix_ns: int
    until_position: int | None

    def holds(self, position: int) -> bool:
        """Whether runs were judged by it in the commit that begins there."""
        return self.from_position <= position and (
            self.until_position is None or self.until_position >= position
        )


def check_applied(noted: Iterable[Noted], applied: Iterable[tuple[int, int, int]]) -> None:
    """`applied`: entry_no, from_position, from_unix_ns. Raises Difference."""
    last: dict[int, tuple[int, At]] = {}  # of several entries applied at one position the last is noted again
    for entry_no, position, unix_ns in sorted(applied):
        last[position] = entry_no, (position, unix_ns)
    _both("applied", "entry_no", {p: value for p, (value, _) in last.items()}, _of(noted, ENTRIES))
    _times("applied", [at for _, at in last.values()], noted, ENTRIES)


def check_rules(noted: Iterable[Noted], lists: Iterable[tuple[int, int, str]]) -> None:
    """`lists`: from_position, from_unix_ns, digest of identity_rules. Raises Difference."""
    rows = sorted(lists)
    derived = {position: rules_number(digest) for position, _, digest in rows}
    _both("identity_rules", "digest", derived, _of(noted, RULES))
    _times("identity_rules", [(position, unix_ns) for position, unix_ns, _ in rows], noted, RULES)


def check_judged(noted: Iterable[Noted], spans: Sequence[JudgedSpan], events: Iterable[StoredEvent]) -> None:
    """As many regimes as were noted held where they were noted, and each event's among them. Raises Difference."""
    rows = _of(noted, JUDGED)
    for position, n in sorted(rows.items()):
        held = sum(span.holds(position) for span in spans)
        if held != n.value:
            raise Difference("judged", f"from_position {position}", "rows", n.value, held)
    begun = {n.from_position: n.from_unix_ns for n in rows.values()}
    for span in spans:
        noted_ns = begun.get(span.from_position)
        if rows and span.from_position >= min(rows) and noted_ns is None:
            raise Difference(
                "judged", f"regime {span.regime}", "from_position", sorted(rows), span.from_position
            )
    for e in events:
        data = json.loads(e.data)
        digest = data.get("regime_digest")
        if digest is None or not e.key.startswith(("threshold:", "modification:")):
            continue
        mine = [s for s in spans if s.regime == data.get("regime") and s.digest.split("+")[0] == digest]
        # A commit without a record notes the position that is to come, and its events the one before.
        if not any(s.holds(e.position) or s.from_position == e.position + 1 for s in mine):
            raise Difference(
                "judged", f"regime {data.get('regime')}", "row", f"one that holds at {e.name}", "none"
            )


def _of(noted: Iterable[Noted], name: str) -> dict[int, Noted]:
    return {n.from_position: n for n in noted if n.name == name}


def _both(table: str, column: str, derived: Mapping[int, int], rows: Mapping[int, Noted]) -> None:
    """Each row has its second, from the first second row on."""
    for position in sorted(derived.keys() | rows.keys()):
        if not rows or position < min(rows):
            continue
        first = derived.get(position)
        second = rows[position].value if position in rows else None
        if first != second:
            key = f"from_position {position}"
            raise Difference(
                table,
                key,
                column,
                "no row" if second is None else second,
                "no row" if first is None else first,
            )


def _times(table: str, rows: Iterable[At], noted: Iterable[Noted], name: str) -> None:
    seconds = _of(noted, name)
    for position, unix_ns in rows:
        second = seconds.get(position)
        if second is not None and second.from_unix_ns != unix_ns:
            raise Difference(table, f"from_position {position}", "from_unix_ns", second.from_unix_ns, unix_ns)
