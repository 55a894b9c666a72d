"""What moves when the books do: asked before anything is made again."""

from typing import NamedTuple

from flopmeter.collector.report.queries import Reader

MINUTE_NS = 60_000_000_000
_ASK = """
    SELECT (SELECT coalesce(max(position), 0) FROM records), (SELECT coalesce(max(event_no), 0) FROM events),
        (SELECT coalesce(max(answer_no), 0) FROM answers), (SELECT coalesce(max(entry_no), 0) FROM entries),
        (SELECT coalesce(max(change_no), 0) FROM law_changes), (SELECT coalesce(max(forecast_no), 0) FROM forecasts),
        (SELECT coalesce(max(loss_no), 0) FROM losses), (SELECT count(*) FROM conflicts),
        (SELECT coalesce(max(agent_no), 0) FROM agents), (SELECT count(*) FROM formerly)"""
_FIRST_HOUR = "SELECT min(window_end_unix_ns) FROM records WHERE position > ?"
_HOUR_NS = 3_600_000_000_000


class Numbers(NamedTuple):
    """The last of each that is counted up."""

    position: int
    event: int
    answer: int
    entry: int
    law: int
    forecast: int
    loss: int
    conflicts: int
    agent: int
    formerly: int

    def before(self, other: "Numbers") -> bool:
        """Whether this is no later state of that store: of what is only appended to, something is missing."""
        return any(a < b for a, b in zip(self[:6], other[:6], strict=True)) or self.agent < other.agent


def numbers_of(reader: Reader) -> Numbers:
    return Numbers(*reader.rows(_ASK).fetchone())


def first_hour(reader: Reader, position: int) -> int | None:
    """The earliest hour in which the window of a record behind that position ended; None: there is none."""
    (unix_ns,) = reader.rows(_FIRST_HOUR, (position,)).fetchone()
    return None if unix_ns is None else (int(unix_ns) - 1) // _HOUR_NS
