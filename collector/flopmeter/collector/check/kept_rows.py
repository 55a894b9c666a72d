"""Rows that follow from the records, compared with what was derived: heads, claims, names, sums. Pure but for reading."""

from collections.abc import Callable, Iterable
from typing import Any

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.ingest.intake import verified
from flopmeter.collector.report.queries import Reader
from flopmeter.contract.errors import ContractError
from flopmeter.contract.record import parse_record, record_hash

from .rederive import AgentBooks, Difference, Names, Rederivation, compare


def forks_of(reader: Reader, agents: dict[int, AgentBooks]) -> set[tuple[int, int, bytes]]:
    """Every refused record is what it is kept for: signed by the agent, of that number."""
    found = set()
    for agent_no, seq, digest, raw in reader.rows("SELECT agent_no, seq, hash, record FROM conflicts"):
        key = f"agent_no {agent_no}, seq {seq}"
        agent = agents.get(agent_no)
        if agent is None:
            raise Difference("conflicts", key, "agent_no", "an admitted agent", agent_no)
        try:
            record = parse_record(bytes(raw))
        except ContractError as e:
            raise Difference("conflicts", key, "record", "a record of the contract", str(e)) from e
        compare(
            "conflicts",
            key,
            [
                ("hash", record_hash(record.raw), bytes(digest)),
                ("record, its seq", seq, record.seq),
                ("record, its agent id", agent.agent_id, record.agent_id),
            ],
        )
        if not verified(record.message, record.signature, agent.public_key):
            raise Difference(
                "conflicts",
                key,
                "record, its signature",
                f"one by the key of {agent.name}",
                "one that does not verify",
            )
        found.add((agent_no, seq, bytes(digest)))
    return found


def heads_agree(reader: Reader, books: Rederivation) -> None:
    stored = {r[0]: r[1:] for r in reader.rows("SELECT agent_no, position, usual_window_ns FROM heads")}
    for number in sorted(stored.keys() - books.agents.keys()):
        raise Difference("heads", f"agent_no {number}", "row", "none: no such agent", "a row")
    boots: dict[int, dict[bytes, int]] = {}
    for agent_no, boot_id, end in reader.rows("SELECT agent_no, boot_id, window_end_boot_ns FROM boots"):
        boots.setdefault(agent_no, {})[boot_id] = end
    for agent in books.agents.values():
        position, usual_ns = stored.get(agent.agent_no, (0, 0))  # no record, no row
        compare("heads", agent.name, [("position", agent.position, position)])
        compare("heads", agent.name, [("usual_window_ns", agent.head.usual_window_ns, usual_ns)])
        compare("boots", agent.name, [("rows", agent.head.boots, boots.get(agent.agent_no, {}))])
        # Numbers lost after the last record are still to be skipped; anything else had to be met.
        next_seq = agent.head.next_seq
        for first, last in agent.losses:
            compare("losses", agent.name, [("from_seq", next_seq, first)])
            next_seq = last + 1


def claims_agree(reader: Reader, books: Rederivation) -> None:
    stored = {
        r[0]: r
        for r in reader.rows(
            "SELECT claim_no, entity, agent_no, boot_id, since_boot_ns, since_unix_ns, until_boot_id, "
            "until_boot_ns, until_unix_ns FROM claims ORDER BY claim_no"
        )
    }
    derived = {claim.claim_no: claim.row for claim in books.claims.rows}
    for number in sorted(stored.keys() | derived.keys()):
        compare("claims", f"claim_no {number}", [("row", derived.get(number), stored.get(number))])


def models_agree(reader: Reader, names: Names) -> None:
    seen = {(d.name, d.compute_capability) for i in names.inventories.values() for d in i.devices}
    for number, name, capability in reader.rows("SELECT model_no, name, compute_capability FROM models"):
        if (name, capability) not in seen:
            raise Difference("models", f"model_no {number}", "name", "a model of a stored inventory", name)


def workloads_agree(reader: Reader, books: Rederivation) -> None:
    columns = ("run", "run_rule", "first_unix_ns", "last_unix_ns", "begun_unix_ns")
    sql = f"SELECT workload_no, {', '.join(columns)} FROM workloads ORDER BY workload_no"  # noqa: S608
    for number, *got in reader.rows(sql):
        span = books.spans.get(number)
        if span is None:
            raise Difference("workloads", f"workload_no {number}", "row", "none: no record names it", "a row")
        derived = (span.run, span.rule, span.first_unix_ns, span.last_unix_ns, span.begun_unix_ns)
        compare("workloads", f"workload_no {number}", zip(columns, derived, got, strict=True))


def formerly_agree(reader: Reader, books: Rederivation) -> None:
    derived = {(no, run) for run, numbers in books.formerly.items() for no in numbers}
    stored = {(no, run) for no, run in reader.rows("SELECT workload_no, run FROM formerly")}
    for no, run in sorted(stored - derived):
        raise Difference(
            "formerly", f"workload_no {no}", "row", f"none: it was never booked under {run}", "a row"
        )
    for no, run in sorted(derived - stored):
        raise Difference("formerly", f"workload_no {no}", "row", f"one: it was booked under {run}", "none")


def compare_sums(
    table: str, rows: Iterable[Any], derived: dict[Any, list[int]], make: Callable[[Any], Any]
) -> int:
    """Compare a table of sums with what was derived, key by key; the number of rows."""
    width, seen = 0, set()
    for row in rows:
        width = width or len(row) - len(SUM_FIELDS)
        key = make(tuple(row[:width]))
        expected = derived.get(key)
        if expected is None:
            raise Difference(table, str(key), "row", "none: no record adds to it", "a row")
        compare(table, str(key), zip(SUM_FIELDS, map(str, expected), row[width:], strict=True))
        seen.add(key)
    for key in sorted(derived):
        if key not in seen:
            raise Difference(
                table, str(key), "row", f"sums {dict(zip(SUM_FIELDS, derived[key], strict=True))}", "none"
            )
    return len(seen)
