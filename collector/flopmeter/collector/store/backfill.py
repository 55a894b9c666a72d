"""What a migration writes of what is there, where SQL alone cannot: hash chains. In the migration's transaction."""

import sqlite3
from collections.abc import Callable, Mapping

from flopmeter.collector.access.rows import ADMITTED, AccessRow, NewAccess, sealed

Execute = Callable[..., sqlite3.Cursor]
INSERT_ACCESS = (
    f"INSERT INTO access ({', '.join(AccessRow._fields)}) VALUES ({', '.join('?' * len(AccessRow._fields))})"  # noqa: S608
)


def _access(execute: Execute) -> None:
    """A row for each agent that was admitted before there were any; their place is before all records: position 0."""
    agents = execute(
        "SELECT admitted_unix_ns, agent_id, node, admitted_how, public_key FROM agents ORDER BY agent_no"
    ).fetchall()
    news = [
        NewAccess(unix_ns, ADMITTED, agent_id, node, {"how": how, "key": key.hex()})
        for unix_ns, agent_id, node, how, key in agents
    ]
    for row in sealed(news, 0, None, 0):
        execute(INSERT_ACCESS, row)


#: Name of a migration -> what runs behind its script.
BACKFILLS: Mapping[str, Callable[[Execute], None]] = {"0015-access": _access}
