"""Leaves out of a store's rows: the same bytes each time, from what is stored."""

import sqlite3
from collections.abc import Iterator
from hashlib import sha256

from flopmeter.collector.errors import LogForkedError

from .entry import BATCH, Batch, Kind, Salts, batch_leaf, row_leaf


def salts_of(connection: sqlite3.Connection) -> Salts | None:
    """None: nothing was appended to this log yet."""
    row = connection.execute("SELECT salt FROM log_identity").fetchone()
    return None if row is None else Salts(bytes(row[0]))


class Rows:
    """The rows of one store as leaves. Reads what the connection sees."""

    def __init__(self, connection: sqlite3.Connection, salts: Salts) -> None:
        self._connection = connection
        self.salts = salts
        self._agents: dict[int, str] = {}

    def agent(self, agent_no: int) -> str:
        """The id of an agent, hex. Raises LogForkedError if there is none."""
        found = self._agents.get(agent_no)
        if found is None:
            sql = "SELECT agent_id FROM agents WHERE agent_no = ?"
            row = self._connection.execute(sql, (agent_no,)).fetchone()
            if row is None:
                raise LogForkedError(
                    f"agents: expected agent {agent_no}, of which there are records, found none"
                )
            found = self._agents[agent_no] = bytes(row[0]).hex()
        return found

    def leaves(self, kind: Kind, first: int, end: int) -> Iterator[bytes]:
        """Of the rows numbered `first` … `end`-1, in order. Raises LogForkedError where one is missing."""
        sql = f"SELECT {', '.join(kind.columns)} FROM {kind.table} WHERE {kind.key} >= ? AND {kind.key} < ? ORDER BY 1"  # noqa: S608
        number = first
        for row in self._connection.execute(sql, (first, end)):
            if row[0] != number:
                break
            salt = self.salts.of(kind.name, number)
            yield self._batch(row, salt) if kind.name == BATCH else row_leaf(kind, row, salt)
            number += 1
        if number != end:
            raise LogForkedError(
                f"{kind.table}: expected {kind.key} {number}, found none: the log counts on it",
                "keep the store as evidence, and restore a backup: agents send again what they still hold",
            )

    def _batch(self, row: tuple[int, int, int, int, int, bytes], salt: str) -> bytes:
        from .encode import window_start_unix_ns  # protobuf: not for those who read no records

        position, agent_no, seq, window_end, received, record = row
        try:
            start = window_start_unix_ns(record)
        except (ValueError, TypeError) as e:
            raise LogForkedError(f"records: expected a record at position {position}: {e}") from e
        batch = Batch(
            position, self.agent(agent_no), sha256(record).digest(), seq, start, window_end, received
        )
        return batch_leaf(batch, salt)
