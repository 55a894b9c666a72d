"""Rows of the collector's `records` table, whatever its columns are: for filling a store and for bare floors."""

import sqlite3
import time

PLACE = ("window_start_s", "agent_no", "seq", "hash", "record")


class RecordRows:
    """Builds rows for, and inserts into, the `records` table of a migrated store."""

    def __init__(self, db: sqlite3.Connection) -> None:
        columns = [name for _, name, *_ in db.execute("PRAGMA table_info(records)") if name != "position"]
        self.sql = f"INSERT INTO records ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        now = time.time_ns()  # every other column is a time in ns
        self._template = [now] * len(columns)
        self._at = [columns.index(name) for name in PLACE]

    def row(self, window_start_s: int, agent_no: int, seq: int, digest: bytes, record: bytes) -> tuple:
        values = self._template.copy()
        for at, value in zip(self._at, (window_start_s, agent_no, seq, digest, record), strict=True):
            values[at] = value
        return tuple(values)

    def commit(self, db: sqlite3.Connection, rows: list[tuple]) -> None:
        """One transaction of rows and nothing else."""
        db.execute("BEGIN IMMEDIATE")
        db.executemany(self.sql, rows)
        db.execute("COMMIT")
