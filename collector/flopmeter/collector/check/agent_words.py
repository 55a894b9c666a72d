"""What agents say of themselves outside their records, and how far their clocks are off: held against what follows. Pure but for reading.

Node and version stand in the opening of a connection, which nobody signs and nobody keeps. A record does tell a node
(its inventory) and a version, but one that was renamed or upgraded says so before its next record does: what is in none
of its records is a note, and no difference. Offsets are measured by the collector; nothing in the books rests on them.
"""

from collections.abc import Iterator
from typing import Any

from flopmeter.collector.report.queries import Reader

from .rederive import Difference, Rederivation

#: Of agents that say what is in none of their records, so many are named.
_MAX_NAMED = 5


def agent_words(reader: Reader, books: Rederivation) -> Iterator[str]:
    """Notes. Raises Difference for a row that no collector writes."""
    unsaid = []
    for no, node, version in reader.rows("SELECT agent_no, node, version FROM agents ORDER BY agent_no"):
        agent = books.agents[no]
        if agent.position and (node not in agent.nodes or version not in agent.versions):
            unsaid.append(f"{agent.name}: node {node!r}, version {version!r}")
    _clocks_stand(reader, books)
    if unsaid:
        more = f" and {len(unsaid) - _MAX_NAMED} more" if len(unsaid) > _MAX_NAMED else ""
        yield (
            f"agents whose node or version is in none of their records, only in what opened their last connection: "
            f"{'; '.join(unsaid[:_MAX_NAMED])}{more}"
        )


def _clocks_stand(reader: Reader, books: Rederivation) -> None:
    if reader.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'clocks'").fetchone() is None:
        return  # of a store that an older flopmeter wrote last
    sql = "SELECT agent_no, lower_ns, upper_ns, measured_unix_ns FROM clocks ORDER BY agent_no"
    for no, lower, upper, measured in reader.rows(sql):
        if no not in books.agents:
            raise _wrong(no, "agent_no", "an admitted agent", no)
        if lower > upper:
            raise _wrong(no, "lower_ns", f"at most upper_ns, {upper}", lower)
        if measured <= 0:
            raise _wrong(no, "measured_unix_ns", "an instant", measured)


def _wrong(no: int, column: str, expected: object, got: Any) -> Difference:
    return Difference("clocks", f"agent_no {no}", column, expected, got)
