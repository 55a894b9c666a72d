"""What coverage.py and unreported.py ask of the store: agents not heard, who took their GPUs over, cards known since when."""

from collections.abc import Iterable

from flopmeter.collector.figures import is_others
from flopmeter.collector.store.reading import Rows
from flopmeter.contract.errors import ContractError
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import GapReason

from .coverage import Booked, name_of
from .fleet import AgentState

_CLAIMS = """
    SELECT c.entity, c.agent_no, a.agent_id, c.since_unix_ns, coalesce(c.until_unix_ns, r.window_end_unix_ns) AS ends
    FROM claims c JOIN agents a USING (agent_no) JOIN heads h USING (agent_no) JOIN records r ON r.position = h.position
    WHERE ends > ?"""


def not_heard(agents: Iterable[AgentState], now_unix_ns: int) -> list[AgentState]:
    """Those that shipped and are not heard any more: silent, or stopped on purpose and gone."""
    return [a for a in agents if a.status(now_unix_ns) in ("silent", "stopped")]


def taken_over(rows: Rows, agents: Iterable[AgentState]) -> dict[tuple[str, str], int]:
    """(agent id, entity) -> from when on another agent's time of the entity is in the books, behind this one's."""
    ends = {a.agent_id: a.window_end_unix_ns for a in agents if a.inventory is not None}
    if not ends:
        return {}
    owners: dict[str, list[str]] = {}
    for a in agents:
        for device in a.inventory.devices if a.inventory else ():
            owners.setdefault(device.entity, []).append(a.agent_id)
    found: dict[tuple[str, str], int] = {}
    for entity, _, by, since, until in rows(_CLAIMS, (min(ends.values()),)):
        for agent_id in owners.get(entity, ()):
            if agent_id != by.hex() and until > ends[agent_id]:
                key = (agent_id, entity)
                begins = max(since, ends[agent_id])
                found[key] = min(begins, found.get(key, begins))
    return found


def known_since(rows: Rows, agents: Iterable[AgentState]) -> dict[tuple[str, str], int]:
    """(agent id, name of an uncovered card) -> when the first inventory that lists it so was received."""
    from flopmeter.collector.encode import decode_inventory

    now = {
        bytes.fromhex(a.agent_id): {name_of(card) for card in a.inventory.uncovered}
        for a in agents
        if a.inventory is not None and a.inventory.uncovered
    }
    found: dict[tuple[str, str], int] = {}
    if not now:
        return found
    sql = "SELECT a.agent_id, i.bytes, i.received_unix_ns FROM inventories i JOIN agents a USING (agent_no)"
    for agent_id, raw, received in rows(sql):  # once over all, not once an agent: there is no index
        wanted = now.get(agent_id)
        if wanted is None:
            continue
        try:
            cards = decode_inventory(raw).uncovered
        except ContractError:  # an older one that this version cannot read: fsck says so
            continue
        for card in cards:
            if name_of(card) in wanted:
                key = (agent_id.hex(), name_of(card))
                found[key] = min(received, found.get(key, received))
    return found


def booked(rows: Rows) -> Booked:
    """Device time in the books, of all workloads."""
    whole_ns, gaps = 0, dict.fromkeys(GapReason, 0)
    for evidence_class, measured, reason, text in rows(
        "SELECT evidence_class, measured, gap_reason, duration_ns FROM totals"
    ):
        duration_ns = int(text)
        whole_ns += duration_ns
        if evidence_class == EvidenceClass.GAP and not is_others(measured):
            gaps[GapReason(reason)] += duration_ns
    return Booked(whole_ns, gaps)
