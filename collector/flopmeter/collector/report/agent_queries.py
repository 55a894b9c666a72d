"""Agents as the store has them: each with its latest record decoded, and with what is kept of its clock."""

import sqlite3
from collections.abc import Iterable
from typing import Protocol

from flopmeter.collector.clock_offset import Offset
from flopmeter.collector.law.agent_events import silent_key
from flopmeter.collector.law.events import AGENT_SILENT
from flopmeter.collector.store.reading import Rows
from flopmeter.contract.errors import ContractError
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Batch, Inventory

from .fleet import AgentState

_AGENTS = """
    SELECT a.*, heads.usual_window_ns, r.seq, r.window_end_unix_ns, r.received_unix_ns, r.record,
        (SELECT count(*) FROM conflicts c WHERE c.agent_no = a.agent_no) AS conflict_count,
        (SELECT coalesce(sum(to_seq - from_seq + 1), 0) FROM losses l WHERE l.agent_no = a.agent_no) AS lost_records
    FROM agents a LEFT JOIN heads USING (agent_no) LEFT JOIN records r USING (position)"""
_KEPT = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'clocks'"
_CLOCKS = """
    SELECT agent_no, lower_ns, upper_ns, measured_unix_ns FROM clocks WHERE agent_no BETWEEN ? AND ?
        AND typeof(lower_ns) = 'integer' AND typeof(upper_ns) = 'integer' AND typeof(measured_unix_ns) = 'integer'"""


class Books(Protocol):
    """One state of the store. `inventories`: those that are decoded already, by digest."""

    inventories: dict[bytes, Inventory]

    @property
    def connection(self) -> sqlite3.Connection: ...

    @property
    def rows(self) -> Rows: ...


def all_agents(reader: Books) -> list[AgentState]:
    return list(_states(reader, "1 = ?", 1, clocks(reader)).values())


def agents_numbered(reader: Books, numbers: Iterable[int]) -> dict[int, AgentState]:
    """By number."""
    wanted = sorted(numbers)
    if not wanted:
        return {}
    few = ", ".join(map(str, wanted))  # numbers of this program
    where = f"a.agent_no >= ? AND a.agent_no IN ({few})"
    return _states(reader, where, wanted[0], clocks(reader, wanted[0], wanted[-1]))


def agents_until(reader: Books, window_end_unix_ns: int) -> list[AgentState]:
    """Those whose last window ended before that. Nothing of their clocks."""
    return list(_states(reader, "r.window_end_unix_ns < ?", window_end_unix_ns, {}).values())


def clocks(reader: Books, first_no: int = 0, last_no: int = 1 << 62) -> dict[int, Offset]:
    """How far each agent's clock was off, by agent_no. A store that no collector of this version has opened knows none."""
    if reader.rows(_KEPT).fetchone() is None:
        return {}
    return {no: Offset(*found) for no, *found in reader.rows(_CLOCKS, (first_no, last_no))}


def _states(reader: Books, where: str, value: int, known: dict[int, Offset]) -> dict[int, AgentState]:
    rows = reader.connection.execute(
        f"{_AGENTS} WHERE {where} ORDER BY node, a.agent_no", (value,)
    ).fetchall()
    return {row["agent_no"]: _state(reader, row, known.get(row["agent_no"])) for row in rows}


def _state(reader: Books, row: sqlite3.Row, clock: Offset | None) -> AgentState:
    batch, inventory, fault = _last_batch(reader, row["record"])
    agent = row["agent_id"].hex()
    silences = reader.rows(
        "SELECT key FROM events WHERE subject = ? AND type = ?", (f"agent/{agent}", AGENT_SILENT)
    ).fetchall()
    open_key = silent_key(agent, row["seq"] or 0, row["window_end_unix_ns"] or 0)
    return AgentState(
        agent_id=agent,
        node=row["node"],
        version=row["version"],
        admitted_how=row["admitted_how"],
        admitted_unix_ns=row["admitted_unix_ns"],
        last_seq=row["seq"] or 0,
        window_end_unix_ns=row["window_end_unix_ns"] or 0,
        received_unix_ns=row["received_unix_ns"] or 0,
        usual_window_ns=row["usual_window_ns"] or 0,
        conflicts=row["conflict_count"],
        lost_records=row["lost_records"],
        silences=len(silences),
        silence_open=any(key == open_key for (key,) in silences),
        inventory=inventory,
        batch=batch,
        fault=fault,
        clock=clock,
    )


def _last_batch(reader: Books, raw: bytes | None) -> tuple[Batch | None, Inventory | None, str]:
    from flopmeter.collector.encode import decode_batch, decode_inventory

    if raw is None:
        return None, None, ""
    try:
        batch = decode_batch(parse_record(raw).payload)
        inventory = reader.inventories.get(batch.inventory_digest)
        if inventory is None:
            known = reader.rows(
                "SELECT bytes FROM inventories WHERE digest = ?", (batch.inventory_digest,)
            ).fetchone()
            if known is None:
                return None, None, "its last record's inventory is not in the store"
            inventory = reader.inventories[batch.inventory_digest] = decode_inventory(known[0])
        return batch, inventory, ""
    except ContractError as e:
        return None, None, str(e)
