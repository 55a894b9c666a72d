"""Events of agents and their records: a key in use twice, an entity metered twice, records lost, silence. Pure."""

from flopmeter.collector.spelling import time_text

from .events import AGENT_SILENT, COVERAGE_LOST, EVIDENCE_FORK, NewEvent, of_agent

#: How the keys of those begin that are about two agents on one entity.
TWICE_PREFIX = "fork:entity:"


def fork_event(
    agent_id: bytes,
    node: str,
    seq: int,
    *,
    stored_hash: bytes | None,
    refused_hash: bytes,
    at_unix_ns: int,
    position: int,
) -> NewEvent:
    """One agent signed two records of one number: a cloned key, or a spool set back. Once per refused record.

    `stored_hash` None: the record in the books is older than what the collector compared with.
    """
    agent = agent_id.hex()
    return of_agent(
        EVIDENCE_FORK,
        f"fork:{agent}:{seq}:{refused_hash.hex()}",
        (agent_id, node),
        f"Agent {agent} of node {node} signed another record number {seq} than the one in the "
        "books: its key is in use twice, or its spool was set back. The second was refused and kept.",
        at_unix_ns=at_unix_ns,
        position=position,
        seq=str(seq),
        stored_hash=stored_hash.hex() if stored_hash is not None else None,
        refused_hash=refused_hash.hex(),
    )


def twice_key(entity: str, agent_id: bytes, other_agent_id: bytes) -> str:
    """The key of the one event about two agents on one entity, whichever of them was first."""
    one, two = sorted((agent_id.hex(), other_agent_id.hex()))
    return f"{TWICE_PREFIX}{entity}:{one}:{two}"


def twice_event(
    entity: str,
    booked: tuple[bytes, str],
    left_out: tuple[bytes, str],
    since_unix_ns: int,
    *,
    at_unix_ns: int,
    position: int,
) -> NewEvent:
    """Two agents (id, node) told of the same time of one entity. Once per entity and pair of agents."""
    (first, first_node), (second, second_node) = booked, left_out
    return of_agent(
        EVIDENCE_FORK,
        twice_key(entity, first, second),
        (second, second_node),
        f"Agents {first.hex()} of node {first_node} and {second.hex()} of node {second_node} both "
        f"meter {entity}, from {time_text(since_unix_ns)} on. Of each time only what came first is in the "
        "totals; the other's records are kept, and their other entities count. Stop one of the two; or one "
        "of the nodes' clocks is wrong.",
        at_unix_ns=at_unix_ns,
        position=position,
        entity=entity,
        booked_agent=first.hex(),
        booked_node=first_node,
        since=time_text(since_unix_ns),
    )


def loss_event(
    agent_id: bytes, node: str, from_seq: int, to_seq: int, reason: str, *, at_unix_ns: int, position: int
) -> NewEvent:
    """Records from_seq … to_seq of an agent will never come: their time is missing, and named."""
    agent = agent_id.hex()
    return of_agent(
        COVERAGE_LOST,
        f"loss:{agent}:{from_seq}:{to_seq}",
        (agent_id, node),
        f"Records {from_seq} to {to_seq} of agent {agent} on node {node} are lost: {reason}. "
        "What the node did in their time is in no total.",
        at_unix_ns=at_unix_ns,
        position=position,
        from_seq=str(from_seq),
        to_seq=str(to_seq),
        reason=reason,
    )


def silent_key(agent_id: str, last_seq: int, window_end_unix_ns: int) -> str:
    """The key of the one event of a silence: it is over when the agent's last record is another."""
    return f"silent:{agent_id}:{last_seq}:{window_end_unix_ns}"


def silent_event(
    agent_id: bytes,
    node: str,
    last_seq: int,
    window_end_unix_ns: int,
    received_unix_ns: int,
    *,
    at_unix_ns: int,
    position: int,
) -> NewEvent:
    """Nothing was heard of an agent for too long. Once per silence: the next record ends it."""
    agent = agent_id.hex()
    return of_agent(
        AGENT_SILENT,
        silent_key(agent, last_seq, window_end_unix_ns),
        (agent_id, node),
        f"Agent {agent} of node {node} has been silent since {time_text(received_unix_ns)}: "
        f"what its GPUs did since {time_text(window_end_unix_ns)} is in no total until it reports.",
        at_unix_ns=at_unix_ns,
        position=position,
        last_seq=str(last_seq),
        window_end=time_text(window_end_unix_ns),
        received=time_text(received_unix_ns),
    )
