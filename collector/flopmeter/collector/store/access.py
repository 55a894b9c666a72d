"""The access table: appended by people's commands, by enrolment and renewal, and by the collector's commits."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from flopmeter.collector.access.enrol import Given
from flopmeter.collector.access.rows import STANDING, TOKEN_MADE, AccessRow, NewAccess, sealed

from .appending import Appender, Execute, blob
from .backfill import INSERT_ACCESS
from .told import told

_T = TypeVar("_T")
_COLUMNS = ", ".join(AccessRow._fields)
#: All of it, in order.
SELECT = f"SELECT {_COLUMNS} FROM access ORDER BY access_no"  # noqa: S608
#: As the index access_standing has it, word for word.
_STANDING = "kind IN ('admitted', 'enrolled', 'revoked', 'key-changed', 'clone-seen')"
assert all(f"'{kind}'" in _STANDING for kind in STANDING)
SELECT_STANDING = (
    f"SELECT {_COLUMNS} FROM access WHERE {_STANDING} AND access_no > ? AND access_no <= ? ORDER BY access_no"  # noqa: S608
)
LAST_NO = "SELECT coalesce(max(access_no), 0) FROM access"
_LAST = (
    f"SELECT ({LAST_NO}), (SELECT hash FROM access ORDER BY access_no DESC LIMIT 1), "  # noqa: S608
    "(SELECT coalesce(max(position), 0) FROM records)"
)
_OF_SUBJECT = f"SELECT {_COLUMNS} FROM access WHERE subject = ? ORDER BY access_no"  # noqa: S608
_OF_AGENT = f"SELECT {_COLUMNS} FROM access WHERE agent_id = ? ORDER BY access_no"  # noqa: S608
_TOKENS = f"SELECT {_COLUMNS} FROM access WHERE agent_id = zeroblob(0) ORDER BY access_no"  # noqa: S608
_GIVEN = "SELECT sequence, csr_sha256, certificate, not_after_unix_s FROM certificates WHERE agent_id = ?"
_GIVE = (
    "INSERT OR REPLACE INTO certificates (agent_id, sequence, csr_sha256, certificate, not_after_unix_s) "
    "VALUES (?, ?, ?, ?, ?)"
)


def access_rows(rows: Iterable[Any]) -> list[AccessRow]:
    """What a SELECT found."""
    return [AccessRow._make((*r[:4], blob(r[4]), *r[5:7], blob(r[7]), blob(r[8]))) for r in rows]


def append(execute: Execute, news: Sequence[NewAccess]) -> list[AccessRow]:
    """Write `news` behind what is there. Within the caller's transaction (BEGIN IMMEDIATE)."""
    if not news:
        return []
    rows = sealed(news, *execute(_LAST).fetchone())
    for row in rows:
        execute(INSERT_ACCESS, row)
    return rows


def of_subject(execute: Execute, subject: str) -> list[AccessRow]:
    """All rows about a token, or about nodes of that name."""
    return access_rows(execute(_OF_SUBJECT, (subject,)).fetchall())


def of_agent(execute: Execute, agent_id: bytes) -> list[AccessRow]:
    return access_rows(execute(_OF_AGENT, (agent_id,)).fetchall())


def of_tokens(execute: Execute) -> list[AccessRow]:
    """All rows that are about tokens."""
    rows = access_rows(execute(_TOKENS).fetchall())
    assert not rows or rows[0].kind == TOKEN_MADE
    return rows


def given(execute: Execute, agent_id: bytes) -> Given | None:
    """The certificate that the agent was given last."""
    row = execute(_GIVEN, (agent_id,)).fetchone()
    return None if row is None else Given(row[0], blob(row[1]), blob(row[2]), row[3])


def give(execute: Execute, agent_id: bytes, to_give: Given) -> None:
    execute(_GIVE, (agent_id, *to_give))


class SqliteAccess(Appender):
    """A connection of its own, beside a collector that runs. Use as a context manager."""

    def change(self, act: Callable[[Execute], _T]) -> _T:
        """Run `act` while nobody else can write; what it wrote is durable on return. Raises StoreError.

        Whatever `act` raises is raised, and then nothing was written.
        """
        with self._writing() as execute:
            return act(execute)

    def ask(self, question: Callable[[Execute], _T]) -> _T:
        """What `question` reads. Raises StoreError."""
        with told(self._path, "read"):
            return question(self._connection.execute)
