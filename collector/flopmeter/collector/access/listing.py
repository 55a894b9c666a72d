"""Who may ship records, for people: every agent that was ever let in, and how it stands. Reads the store."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from flopmeter.collector.store.access import SELECT_STANDING, access_rows
from flopmeter.collector.store.reading import open_for_reading

from .errors import AccessRefused
from .rows import ADMITTED, ENDING, ENROLLED

_EVERY = (0, 1 << 62)
_CERTIFICATES = "SELECT agent_id, sequence, not_after_unix_s FROM certificates"
#: So much of an id names an agent, if it is one's only.
SHORTEST_ID = 8


class Listed(NamedTuple):
    """One agent."""

    agent_id: bytes
    node: str
    how: str  # file, first-use, token
    since_unix_ns: int
    state: str  # "admitted", or the kind of row that ended it
    sequence: int  # of its last certificate; 0: it has none of ours
    not_after_unix_s: int

    def document(self) -> dict[str, Any]:
        """As --json prints it."""
        return {
            "agent": self.agent_id.hex(),
            "node": self.node,
            "how": self.how,
            "since_unix_ns": str(self.since_unix_ns),
            "state": self.state,
            "certificate": {
                "sequence": str(self.sequence),
                "not_after_unix_s": str(self.not_after_unix_s),
            }
            if self.sequence
            else None,
        }


def listed(store: Path) -> list[Listed]:
    """In the order in which they were let in. Raises StoreError."""
    with closing(open_for_reading(store)) as connection:
        rows = access_rows(connection.execute(SELECT_STANDING, _EVERY).fetchall())
        given = {bytes(r[0]): (r[1], r[2]) for r in connection.execute(_CERTIFICATES).fetchall()}
    found: dict[bytes, Listed] = {}
    for row in rows:
        known = found.get(row.agent_id)
        if row.kind in ENDING:
            if known is not None:
                found[row.agent_id] = known._replace(state=row.kind)
            continue
        how = "token" if row.kind == ENROLLED else json.loads(row.detail)["how"]
        if known is None:
            sequence, end = given.get(row.agent_id, (0, 0))
            found[row.agent_id] = Listed(row.agent_id, row.subject, how, row.unix_ns, ADMITTED, sequence, end)
        else:
            found[row.agent_id] = known._replace(node=row.subject, how=how)
    return list(found.values())


def named(agents: list[Listed], name: str) -> Listed:
    """The one of that id, beginning of an id, or node name. Raises AccessRefused."""
    matching = [
        a
        for a in agents
        if a.node == name or (len(name) >= SHORTEST_ID and a.agent_id.hex().startswith(name.lower()))
    ]
    standing = [a for a in matching if a.state == ADMITTED] or matching
    if len(standing) == 1:
        return standing[0]
    got = f"{len(standing)} of them" if standing else "none"
    raise AccessRefused(
        404,
        "not-found",
        f"agent {name[:80]!r}: expected one agent of that id or node name, found {got}",
        "`flopmeter collector agents list` has them; name one by its id",
    )
