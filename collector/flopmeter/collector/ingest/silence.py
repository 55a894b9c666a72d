"""When an agent is silent: it shipped, was not stopped on purpose, and nothing of it comes any more. Pure.

Judged by the collector's clock at which records came, not by what windows say: an agent that catches up after
an outage, or a recording of last year that is replayed, is being heard.
"""

from collections.abc import Iterable

from .decide import Head
from .group import Agent, Silence

#: An agent is silent after this many of its usual windows without a record …
SILENT_WINDOWS = 3
#: … and never before this: with windows of seconds, a reconnect with its jitter is no silence.
SILENT_AT_LEAST_NS = 180_000_000_000
#: After a start, a failed commit or a pause of the collector: what agents need to come back and catch up.
GRACE_NS = 300_000_000_000


def silent_after_ns(head: Head) -> int:
    """How long after its last record the agent of this head counts as silent."""
    return max(SILENT_AT_LEAST_NS, SILENT_WINDOWS * head.usual_window_ns)


def is_silent(head: Head, now_unix_ns: int) -> bool:
    """Whether nothing came for too long. An agent that never shipped, or said that it stops, is not silent."""
    if not head.last_seq or head.stopped:
        return False
    return now_unix_ns - head.received_unix_ns > silent_after_ns(head)


class SilenceWatch:
    """Finds each silence once. What it has told is forgotten by `restart`; the event's key is what holds."""

    def __init__(self) -> None:
        self._grace_until_ns: int | None = None
        self._told: dict[int, int] = {}  # agent_no -> last_seq

    def restart(self) -> None:
        """The collector could not listen until now: agents get the time to come back."""
        self._grace_until_ns = None
        self._told.clear()

    def new(self, agents: Iterable[Agent], now_unix_ns: int) -> list[Silence]:
        """Who has fallen silent since the last call."""
        if self._grace_until_ns is None:
            self._grace_until_ns = now_unix_ns + GRACE_NS
        if now_unix_ns < self._grace_until_ns:
            return []
        latest_ns = now_unix_ns - SILENT_AT_LEAST_NS  # most agents are passed over by this alone
        found = []
        for agent in agents:
            head = agent.head
            if head.received_unix_ns >= latest_ns or agent.uncommitted or not is_silent(head, now_unix_ns):
                continue
            if self._told.get(agent.agent_no) != head.last_seq:
                self._told[agent.agent_no] = head.last_seq
                found.append(Silence(agent, head.last_seq, head.window_end_unix_ns, head.received_unix_ns))
        return found
