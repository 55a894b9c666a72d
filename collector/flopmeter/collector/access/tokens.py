"""Tokens: what one allows, and whether it is good now. Pure; the secret itself is kept nowhere.

A join token lets nodes enrol; an API token lets a person or a program ask. Both are an id and 256 random bits, of which
the store has the SHA-256: a secret of that size needs no slow hash.
"""

import fnmatch
import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_label

from .errors import AccessError, AccessRefused
from .rows import TOKEN_MADE, TOKEN_REVOKED, TOKEN_USED, AccessRow

ADMIN, OPERATOR, AUDITOR, VIEWER = "admin", "operator", "auditor", "viewer"
ROLES = (ADMIN, OPERATOR, AUDITOR, VIEWER)
#: First part of an API token.
API_VERSION = "FMA1"
ID_BYTES = 6
MAX_USES = 1_000_000
MAX_TENANT_CHARS = 800
MAX_AGE_S = 10 * 366 * 86_400
_API = re.compile(rf"{API_VERSION}\.([0-9a-f]{{12}})\.([0-9a-f]{{64}})\Z")
#: Compared with where there is no such token, so that an unknown id takes as long as a wrong secret.
_NOTHING = hashlib.sha256(b"").hexdigest()
#: As report.tenants.Tenant.id writes them.
_TENANT = re.compile(r"(owner:|(slurm-account|k8s-namespace):[^/]*/)\S")
_AGE = re.compile(r"([1-9][0-9]{0,5})([smhd])\Z")


@dataclass(frozen=True, slots=True)
class Token:
    """What was made. A join token has role ""."""

    token_id: str
    secret_sha256: str
    role: str  # one of ROLES
    name: str  # whose it is
    nodes: str  # of a join token: shell pattern of the node names that it is for
    uses: int  # of a join token: how many nodes may enrol by it
    expires_unix_s: int  # 0: never (API tokens only)
    tenant: str = ""  # of an API token: whose runs it sees, as Tenant.id; "": every run

    def detail(self) -> dict[str, str]:
        """As it stands in its row. One that is bound to nobody says nothing of tenants: rows of old stay as they are."""
        return {
            "secret_sha256": self.secret_sha256,
            "role": self.role,
            "name": self.name,
            "nodes": self.nodes,
            "uses": str(self.uses),
            "expires_unix_s": str(self.expires_unix_s),
            **({"tenant": self.tenant} if self.tenant else {}),
        }


@dataclass(frozen=True, slots=True)
class TokenState:
    """A token, and what became of it."""

    token: Token
    made_unix_ns: int
    used: int = 0
    revoked: bool = False

    def fault(self, now_unix_s: int) -> str:
        """Why it is not good any more: "revoked", "expired", "used"; "" = it is good."""
        t = self.token
        if self.revoked:
            return "revoked"
        if t.expires_unix_s and now_unix_s >= t.expires_unix_s:
            return "expired"
        return "used" if not t.role and self.used >= t.uses else ""


def join_token(
    token_id: str, secret: bytes, *, name: str, nodes: str, uses: int, expires_unix_s: int
) -> Token:
    """Raises AccessError for what cannot be one."""
    if not 1 <= uses <= MAX_USES:
        raise AccessError(f"uses: expected 1 to {MAX_USES}, got {uses}")
    if not nodes or len(nodes) > 256 or not nodes.isprintable():
        raise AccessError(
            f"nodes: expected a pattern of at most 256 printable characters, got {nodes[:40]!r}",
            "write a node's name, or a shell pattern such as gpu-*",
        )
    return Token(token_id, hash_secret(secret), "", _name(name), nodes, uses, expires_unix_s)


def api_token(
    token_id: str, secret: bytes, *, role: str, name: str, expires_unix_s: int, tenant: str = ""
) -> Token:
    """Raises AccessError for what cannot be one."""
    if role not in ROLES:
        raise AccessError(f"role: expected one of {', '.join(ROLES)}, got {role[:40]!r}")
    if not name.strip():
        raise AccessError("name: expected whose token it is, got nothing", "name a person or a program")
    if tenant and (
        _TENANT.match(tenant) is None or len(tenant) > MAX_TENANT_CHARS or not tenant.isprintable()
    ):
        raise AccessError(
            f"tenant: expected owner:NAME, slurm-account:CLUSTER/NAME or k8s-namespace:CLUSTER/NAME, got {tenant[:40]!r}",
            "`flopmeter fleet tenants --json` has them",
        )
    if tenant and role == ADMIN:
        raise AccessError(
            "tenant: expected a viewer, an auditor or an operator of that tenant, got the role admin",
            "an admin's token is of the whole site",
        )
    return Token(token_id, hash_secret(secret), role, _name(name), "", 0, expires_unix_s, tenant)


def _name(name: str) -> str:
    try:
        return check_label("name", name)
    except ContractError as e:
        raise AccessError(str(e)) from e


def hash_secret(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def api_text(token_id: str, secret: bytes) -> str:
    """What is handed to a person, once."""
    return f"{API_VERSION}.{token_id}.{secret.hex()}"


def parse_api(text: str) -> tuple[str, bytes] | None:
    """(id, secret); None: it is no API token."""
    match = _API.match(text)
    return None if match is None else (match[1], bytes.fromhex(match[2]))


def parse_age(text: str) -> int:
    """Seconds of "90s", "30m", "24h", "90d". Raises AccessError."""
    match = _AGE.match(text)
    seconds = int(match[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[match[2]] if match else 0
    if not 0 < seconds <= MAX_AGE_S:
        raise AccessError(
            f"expires: expected a time from now of at most ten years, got {text[:40]!r}", "write 30m, 24h, 7d"
        )
    return seconds


def tokens_of(rows: Iterable[AccessRow]) -> dict[str, TokenState]:
    """Every token by id, of rows in their order; others are passed over."""
    found: dict[str, TokenState] = {}
    for row in rows:
        state = found.get(row.subject)
        if row.kind == TOKEN_MADE:
            d = json.loads(row.detail)
            token = Token(
                row.subject,
                d["secret_sha256"],
                d["role"],
                d["name"],
                d["nodes"],
                int(d["uses"]),
                int(d["expires_unix_s"]),
                d.get("tenant", ""),
            )
            found[row.subject] = TokenState(token, row.unix_ns)
        elif state is not None and row.kind == TOKEN_USED:
            found[row.subject] = TokenState(state.token, state.made_unix_ns, state.used + 1, state.revoked)
        elif state is not None and row.kind == TOKEN_REVOKED:
            found[row.subject] = TokenState(state.token, state.made_unix_ns, state.used, revoked=True)
    return found


def has_secret(state: TokenState | None, secret: bytes, *, join: bool) -> bool:
    """Whether `secret` is the token's, in a time that tells nothing; a token of the other sort has none."""
    known = state is not None and bool(state.token.role) is not join
    expected = state.token.secret_sha256 if known and state is not None else _NOTHING
    return hmac.compare_digest(expected, hash_secret(secret)) and known


def check_secret(state: TokenState | None, secret: bytes) -> TokenState:
    """The join token whose secret this is. Raises AccessRefused, which does not tell an unknown id from another secret."""
    if not has_secret(state, secret, join=True) or state is None:
        raise AccessRefused(
            401,
            "unknown-token",
            "join token: expected one that this collector has made, got an unknown id or another secret",
            "make one with `flopmeter collector token create`",
        )
    return state


def check_usable(state: TokenState, node: str, now_unix_s: int) -> None:
    """Raise AccessRefused unless a node of that name may enrol by the token now. For whoever has its secret."""
    token, fault = state.token, state.fault(now_unix_s)
    if fault:
        said = {
            "revoked": "it was revoked",
            "expired": "it has expired",
            "used": f"its {token.uses} use{'s are' if token.uses != 1 else ' is'} up",
        }
        raise AccessRefused(
            403,
            f"token-{fault}",
            f"join token {token.token_id}: expected one that is good, got one that is not: {said[fault]}",
            "make another with `flopmeter collector token create`",
        )
    if not fnmatch.fnmatchcase(node, token.nodes):
        raise AccessRefused(
            403,
            "wrong-node",
            f"join token {token.token_id}: expected a node named {token.nodes!r}, got {node[:80]!r}",
            "make one for this node: `flopmeter collector token create --nodes NAME`",
        )
