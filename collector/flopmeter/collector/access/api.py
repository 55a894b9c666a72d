"""The first answers of the HTTP API: who asks, and the evidence log's newest head. Issue 7 builds the rest on it.

A request has a token in its Authorization header, so it is answered on loopback only: this port is plain text.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.settings import is_loopback
from flopmeter.collector.store.access import of_subject
from flopmeter.collector.store.sqlite import open_for_reading

from .tokens import ADMIN, AUDITOR, OPERATOR, ROLES, TokenState, has_secret, parse_api, tokens_of

#: Path -> roles that may ask. What is in no row is not there.
MAY: Mapping[str, frozenset[str]] = {
    "/api/v1/whoami": frozenset(ROLES),
    "/api/v1/log/checkpoint": frozenset({ADMIN, OPERATOR, AUDITOR}),
}
_JSON = "application/json"


class Said(NamedTuple):
    status: int
    kind: str
    body: bytes
    headers: Mapping[str, str] = {}


class Api:
    """Asks the store itself, so that a token is good, or is not, from the moment that somebody said so. Any thread."""

    def __init__(self, store: Path, unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._store, self._unix_ns = store, unix_ns

    def answer(self, path: str, authorization: str | None, address: str) -> Said:
        """The answer to a GET."""
        if not is_loopback(address.partition("%")[0]):
            return _problem(
                403, "plain-text", "expected a request from this machine: tokens do not travel in plain text"
            )
        if path not in MAY:
            return _problem(404, "not-found", f"expected one of {', '.join(MAY)}")
        try:
            state = self._token(authorization)
            if state is None:
                wrong = "" if authorization is None else ', error="invalid_token"'
                headers = {"WWW-Authenticate": f'Bearer realm="flopmeter"{wrong}'}
                return _problem(
                    401, "unauthorized", "expected Authorization: Bearer and a token that is good", headers
                )
            token = state.token
            if token.role not in MAY[path]:
                return _problem(
                    403, "forbidden", f"expected the role {' or '.join(sorted(MAY[path]))}, got {token.role}"
                )
            if path == "/api/v1/whoami":
                who = {"name": token.name, "role": token.role, "token": token.token_id}
                return Said(
                    200, _JSON, json.dumps({**who, "expires_unix_s": str(token.expires_unix_s)}).encode()
                )
            return self._checkpoint()
        except CollectorError as e:
            return _problem(503, "not-now", str(e))

    def _token(self, authorization: str | None) -> TokenState | None:
        scheme, _, text = (authorization or "").partition(" ")
        parsed = parse_api(text.strip()) if scheme.lower() == "bearer" else None
        if parsed is None:
            return None
        token_id, secret = parsed
        with closing(open_for_reading(self._store)) as connection:
            state = tokens_of(of_subject(connection.execute, token_id)).get(token_id)
        if not has_secret(state, secret, join=False) or state is None:
            return None
        return None if state.fault(self._unix_ns() // 1_000_000_000) else state

    def _checkpoint(self) -> Said:
        from flopmeter.collector.log.evidence_log import EvidenceLog

        with closing(open_for_reading(self._store)) as connection:
            latest = EvidenceLog(connection).latest()
        if latest is None:
            return _problem(404, "not-found", "no head of the evidence log is signed yet")
        return Said(200, "text/plain; charset=utf-8", latest.note)


def _problem(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Said:
    return Said(status, _JSON, json.dumps({"error": code, "message": message}).encode(), headers or {})
