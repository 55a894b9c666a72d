"""Cross-checks that agents tell of (notices of kind CROSS_CHECK) as events: once per agent, entity, check and day.

An event rests on one record, the first of its UTC day that tells of the check; fsck derives it again from that
record's bytes. Pure.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from flopmeter.collector.spelling import time_text
from flopmeter.contract.checks import check_name
from flopmeter.contract.usage import Notice, NoticeKind

from .events import METHOD_DISAGREES, NewEvent

#: How the keys of those begin; the other method.disagrees are of declared estimates.
CHECK_PREFIX = "check:"
_DAY_NS = 86_400_000_000_000


class Flag(NamedTuple):
    """One failed check of one record."""

    agent_id: bytes
    node: str
    entity: str  # "" = the node
    check: str
    detail: str
    noticed_unix_ns: int
    window_end_unix_ns: int

    @property
    def key(self) -> str:
        day = time_text(self.window_end_unix_ns // _DAY_NS * _DAY_NS)[:10]
        return f"{CHECK_PREFIX}{self.agent_id.hex()}:{self.entity}:{self.check}:{day}"


def flags(
    notices: Iterable[Notice], agent_id: bytes, node: str, entities: Sequence[str], window_end_unix_ns: int
) -> list[Flag]:
    """What a record tells of, each entity and check once; `entities` are its inventory's, by index."""
    found: dict[tuple[str, str], Flag] = {}
    for n in notices:
        if n.kind is NoticeKind.CROSS_CHECK:
            entity = entities[n.entity_index] if n.entity_index >= 0 else ""
            check = check_name(n.detail)
            flag = Flag(agent_id, node, entity, check, n.detail, n.t_unix_ns, window_end_unix_ns)
            found.setdefault((entity, check), flag)
    return list(found.values())


def check_event(flag: Flag, *, at_unix_ns: int, position: int) -> NewEvent:
    """`flag`, told of by the record at `position`."""
    agent = flag.agent_id.hex()
    where = flag.entity or f"node {flag.node}"
    return NewEvent(
        key=flag.key,
        type=METHOD_DISAGREES,
        subject=f"entity/{flag.entity}" if flag.entity else f"agent/{agent}",
        time_unix_ns=at_unix_ns,
        since_position=position,
        position=position,
        data={
            "message": f"Agent {agent} of node {flag.node}: two readings of {where} disagree ({flag.detail}). The "
            "totals are as metered: a cross-check flags and corrects nothing. One of the two readings is wrong, or "
            "the work is unusual: docs/agent.md says what each check means.",
            "agent": agent,
            "node": flag.node,
            "entity": flag.entity or None,
            "check": flag.check,
            "detail": flag.detail,
            "noticed": time_text(flag.noticed_unix_ns),
        },
    )
