"""What a rederivation begins with: the store's agents, losses, numbers for names, and rule lists."""

from flopmeter.collector.report.queries import Reader

from .fsck import _identity_rules
from .rederive import AgentBooks, Names, Rederivation, check_inventory


def stored_books(reader: Reader) -> Rederivation:
    """Empty books of the store behind `reader`, to be fed its records. Raises Difference."""
    db = reader.rows
    agents = [
        AgentBooks(r[0], bytes(r[1]), bytes(r[2]))
        for r in db("SELECT agent_no, agent_id, public_key FROM agents ORDER BY agent_no")
    ]
    by_no = {a.agent_no: a for a in agents}
    for agent_no, first, last in db(
        "SELECT agent_no, from_seq, to_seq FROM losses ORDER BY agent_no, from_seq, loss_no"
    ):
        if agent_no in by_no:
            by_no[agent_no].losses.append((first, last))
    names = Names(
        models={(r[1], r[2]): r[0] for r in db("SELECT model_no, name, compute_capability FROM models")},
        workloads={
            tuple(r[1:]): r[0]
            for r in db(
                "SELECT workload_no, scope, kind, job, step, run_label, user, dtype, restart, identities FROM workloads"
            )
        },
        inventories={
            bytes(r[0]): check_inventory(bytes(r[0]), bytes(r[1]))
            for r in db("SELECT digest, bytes FROM inventories ORDER BY digest")
        },
    )
    (claimed_from,) = db("SELECT coalesce(max(from_position), 1) FROM claimed").fetchone()
    return Rederivation(agents, names, claimed_from, _identity_rules(reader))
