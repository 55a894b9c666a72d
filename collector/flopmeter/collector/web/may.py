"""Which role may ask what. Pure; what stands in no row is not there (404), and a test walks every row."""

from collections.abc import Sequence
from dataclasses import dataclass

from flopmeter.collector.access.tokens import ADMIN, AUDITOR, OPERATOR, ROLES, VIEWER

from .says import Refused

READERS = frozenset(ROLES)
AUDITORS = frozenset({ADMIN, OPERATOR, AUDITOR})
OPERATORS = frozenset({ADMIN, OPERATOR})
assert VIEWER in READERS


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint below /api/v1."""

    method: str
    pattern: tuple[str, ...]  # "*": any one part
    roles: frozenset[str]
    #: Whether a token that is bound to a tenant may ask it. The answer then holds that tenant's runs only.
    tenants: bool = True


def _row(method: str, path: str, roles: frozenset[str], *, tenants: bool = True) -> Row:
    return Row(method, tuple(path.split("/")), roles, tenants)


TABLE = (
    _row("GET", "whoami", READERS),
    _row("GET", "stream", READERS),
    _row("GET", "overview", READERS),
    _row("GET", "state", READERS),
    _row("GET", "runs", READERS),
    _row("GET", "runs/*", READERS),
    _row("GET", "runs/*/curve", READERS),
    _row("GET", "runs/*/report", READERS),
    # As the command writes them they name every run that one comes from, whosever it is.
    _row("GET", "runs/*/report.html", READERS, tenants=False),
    _row("GET", "runs/*/report.md", READERS, tenants=False),
    _row("GET", "runs/*/lineage", READERS),
    _row("GET", "runs/*/entries", AUDITORS),
    # A file holds whole records of nodes, and those tell of everybody whose work ran there.
    _row("POST", "runs/*/attestations", OPERATORS, tenants=False),
    _row("GET", "events", READERS),
    _row("GET", "events/*", READERS),
    _row("POST", "events/*/answers", OPERATORS),
    _row("GET", "deadlines", READERS),
    _row("GET", "deadlines/*", READERS),
    _row("POST", "deadlines/*/answers", OPERATORS),
    _row("GET", "regimes", READERS),
    _row("GET", "fleet", READERS, tenants=False),
    _row("GET", "fleet/nodes/*", READERS, tenants=False),
    _row("GET", "fleet/inventory", READERS, tenants=False),
    _row("GET", "fleet/tenants", AUDITORS, tenants=False),
    _row("GET", "evidence", AUDITORS, tenants=False),
    _row("GET", "log/checkpoint", AUDITORS, tenants=False),
    _row("POST", "verify", AUDITORS),
    _row("GET", "exports/usage", AUDITORS),
    _row("GET", "exports/events", AUDITORS),
    _row("GET", "exports/deadlines", AUDITORS),
    _row("GET", "exports/runs", AUDITORS),
)


def row_for(method: str, segments: Sequence[str]) -> Row:
    """The endpoint that is meant. Raises Refused: 404, or 405 with what it may be asked with."""
    there = [row for row in TABLE if _fits(row.pattern, segments)]
    if not there:
        raise Refused(404, "expected a path of the API, got another", "docs/api.md and /api/v1/openapi.json")
    for row in there:
        if row.method == method:
            return row
    allowed = ", ".join(sorted({row.method for row in there} | {"HEAD" for r in there if r.method == "GET"}))
    raise Refused(405, f"expected {allowed}, got {method[:20]}", headers={"Allow": allowed})


def check(row: Row, role: str, tenant: str) -> None:
    """Raise Refused (403) unless somebody of that role may ask it."""
    if role not in row.roles:
        raise Refused(
            403,
            f"expected the role {' or '.join(sorted(row.roles))}, got {role}",
            "ask with another token, or have one made: flopmeter collector token create --role",
        )
    if tenant and not row.tenants:
        raise Refused(
            403,
            f"expected a token that is not bound to a tenant, got one of {tenant[:200]}",
            "what concerns the whole site is not shown to one of its tenants",
        )


def _fits(pattern: Sequence[str], segments: Sequence[str]) -> bool:
    return len(pattern) == len(segments) and all(
        p == s or (p == "*" and s) for p, s in zip(pattern, segments, strict=True)
    )
