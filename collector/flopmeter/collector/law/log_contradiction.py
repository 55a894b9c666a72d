"""What agents say against the collector's own log (notices of kind LOG_CONTRADICTION) as `evidence.fork` events.

Agents remember the last signed head that they saw. One that is shown a smaller or another log says so in its next
batch: to the collector that was set back, or to whichever stands in its place. When a fleet says it, three agents a
day are witnesses enough, and one alone cannot keep the others from being heard. An event rests on one record, the
first of its UTC day in which that agent tells of it; fsck derives it again from that record's bytes. Pure.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from flopmeter.collector.spelling import time_text
from flopmeter.contract.usage import Notice, NoticeKind

from .events import EVIDENCE_FORK, NewEvent, of_agent

#: How the keys of these events begin; other forks are an agent's own.
LOG_PREFIX = "fork:log:"
#: Agents that are heard of one UTC day.
MOST_A_DAY = 3


class LogFlag(NamedTuple):
    """One agent's word of one record."""

    agent_id: bytes
    node: str
    detail: str
    noticed_unix_ns: int
    window_end_unix_ns: int

    @property
    def day_prefix(self) -> str:
        return f"{LOG_PREFIX}{time_text(self.window_end_unix_ns)[:10]}:"

    @property
    def key(self) -> str:
        return f"{self.day_prefix}{self.agent_id.hex()}"


def log_flags(
    notices: Iterable[Notice], agent_id: bytes, node: str, window_end_unix_ns: int
) -> list[LogFlag]:
    """The first of a record, if it tells of any."""
    for n in notices:
        if n.kind is NoticeKind.LOG_CONTRADICTION:
            return [LogFlag(agent_id, node, n.detail, n.t_unix_ns, window_end_unix_ns)]
    return []


def heard(flag: LogFlag, keys: Collection[str]) -> bool:
    """Whether it becomes an event; `keys`: those of its day that there are."""
    return flag.key not in keys and len(keys) < MOST_A_DAY


def contradiction_event(flag: LogFlag, *, at_unix_ns: int, position: int) -> NewEvent:
    """`flag`, told of by the record at `position`."""
    agent = flag.agent_id.hex()
    return of_agent(
        EVIDENCE_FORK,
        flag.key,
        (flag.agent_id, flag.node),
        f"Agent {agent} of node {flag.node} says that this collector's evidence log contradicts the "
        f"last signed head that it saw ({flag.detail}). The collector was restored from an older copy, another "
        "stands in its place, or its log was rewritten; or the agent lies. Its state directory keeps both signed "
        f"heads. At most {MOST_A_DAY} agents are named a day.",
        at_unix_ns=at_unix_ns,
        position=position,
        detail=flag.detail,
        noticed=time_text(flag.noticed_unix_ns),
    )
