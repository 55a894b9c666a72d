"""What a rederivation begins with: the store's agents, losses, numbers for names, and rule lists."""

from typing import NamedTuple

from flopmeter.collector.books import BRIDGE, BRIDGE_S
from flopmeter.collector.errors import SettingsError
from flopmeter.collector.ingest.identity import RuleList
from flopmeter.collector.ingest.identity_rules import of_text
from flopmeter.collector.law.witness import SECOND_ROWS
from flopmeter.collector.report.queries import Reader

from .rederive import AgentBooks, Difference, Names, Rederivation, check_inventory, compare


class Stored(NamedTuple):
    """Empty books of a store, to be fed its records in order."""

    books: Rederivation
    names: Names
    slots_from: int  # the first position whose usage stands in slots
    loss_keys: dict[str, str]  # of the events that tell of losses; agent and numbers


def stored_books(reader: Reader, *, signatures: bool = True) -> Stored:
    """The books behind `reader`. `signatures`: whether each is to be verified again. Raises Difference."""
    db = reader.rows
    agents = {
        r[0]: AgentBooks(r[0], bytes(r[1]), bytes(r[2]))
        for r in db("SELECT agent_no, agent_id, public_key FROM agents ORDER BY agent_no")
    }
    loss_keys: dict[str, str] = {}
    for agent_no, first, last in db(
        "SELECT agent_no, from_seq, to_seq FROM losses ORDER BY agent_no, from_seq, loss_no"
    ):
        agent = agents.get(agent_no)
        if agent is None or not 1 <= first <= last:
            raise Difference(
                "losses",
                f"agent_no {agent_no}",
                "from_seq, to_seq",
                "numbers of an admitted agent",
                (first, last),
            )
        agent.losses.append((first, last))
        loss_keys[f"loss:{agent.agent_id.hex()}:{first}:{last}"] = f"{agent.name}, {first} to {last}"
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
    (formerly_from,) = db("SELECT coalesce(max(from_position), 1) FROM formerly_kept").fetchone()
    slots_from = _slots_from(reader)
    books = Rederivation(
        agents.values(),
        names,
        claimed_from,
        _identity_rules(reader),
        formerly_from=formerly_from,
        slots_from=slots_from,
        signatures=signatures,
    )
    return Stored(books, names, slots_from, loss_keys)


def _slots_from(reader: Reader) -> int:
    """The first position whose usage stands in slots (books.Slot): no later than any second row, which are as young."""
    rows = reader.rows("SELECT name, from_position, value FROM noted").fetchall()
    found = sorted((position, value) for name, position, value in rows if name == BRIDGE)
    for position, value in found:
        compare("noted", f"{BRIDGE}, from_position {position}", [("value", BRIDGE_S, value)])
    (last,) = reader.rows("SELECT coalesce(max(position), 0) FROM records").fetchone()
    since = int(found[0][0]) if found else last + 1
    least = min((position for name, position, _ in rows if name in SECOND_ROWS), default=since)
    if since > least:
        raise Difference("noted", BRIDGE, "from_position", f"at most {least}", since if found else "no row")
    return since


def _identity_rules(reader: Reader) -> list[tuple[int, RuleList]]:
    """The lists by which runs were chosen, and from which position on."""
    found = []
    for position, digest, text in reader.rows(
        "SELECT from_position, digest, text FROM identity_rules ORDER BY from_position"
    ):
        key = f"from_position {position}"
        try:
            rules = of_text(text)
        except SettingsError as e:
            raise Difference("identity_rules", key, "text", "a rule list", str(e)) from e
        compare("identity_rules", key, [("text", rules.text, text), ("digest", rules.digest, digest)])
        found.append((position, rules))
    return found
