"""The event of a cloned key: raised when the intake applies the row, and derived again from it by fsck. Pure."""

from flopmeter.collector.law.events import EVIDENCE_FORK, NewEvent, of_agent


def clone_key(agent_id: bytes) -> str:
    """Once per agent: it is refused from then on, and can be cloned no second time."""
    return f"fork:{agent_id.hex()}:clone"


def clone_event(agent_id: bytes, node: str, access_no: int, *, at_unix_ns: int, position: int) -> NewEvent:
    """An agent's certificate was to be renewed by an outdated sequence: two copies of its keys are in use."""
    agent = agent_id.hex()
    return of_agent(
        EVIDENCE_FORK,
        clone_key(agent_id),
        (agent_id, node),
        f"The keys of agent {agent} of node {node} are in use twice: a renewal came with an outdated "
        "sequence. Nobody can tell which copy is the node, so both are refused. Find the other copy (a cloned "
        "disk, a snapshot that was restored), then join the node anew with a new key.",
        at_unix_ns=at_unix_ns,
        position=position,
        access_no=str(access_no),
    )
