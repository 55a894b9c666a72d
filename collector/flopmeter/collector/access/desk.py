"""Where certificates are given and access is changed: each decision and its rows in one transaction of the store.

It has a connection of its own, as a person's command has: a collector that runs sees the rows at its next look.
"""

import hashlib
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from cryptography.x509 import CertificateSigningRequest

from flopmeter.collector.store.access import (
    SqliteAccess,
    append,
    give,
    given,
    of_agent,
    of_subject,
    of_tokens,
)
from flopmeter.collector.store.appending import Execute
from flopmeter.contract.enrolment import (
    SECRET_BYTES,
    JoinToken,
    enrol_message,
    key_change_message,
    renew_message,
)
from flopmeter.contract.ids import agent_id as id_of_key

from . import enrol
from .ca import CertificateAuthority, Issued, at, check_csr, csr_der, csr_sha256, pem_of
from .enrol import Enrolment, Given, KeyChange
from .errors import AccessRefused
from .rows import (
    ADMITTED,
    CLONE_SEEN,
    ENROLLED,
    KEY_CHANGED,
    RENEWED,
    REVOKED,
    TOKEN_MADE,
    TOKEN_REVOKED,
    TOKEN_USED,
    AccessRow,
    NewAccess,
)
from .tokens import (
    ID_BYTES,
    Token,
    TokenState,
    api_text,
    api_token,
    check_secret,
    check_usable,
    join_token,
    tokens_of,
)

_SECOND_NS = 1_000_000_000
#: Half of what SQLite's integers hold: the next one always fits.
_MAX_SEQUENCE = 1 << 62
log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Certificate(NamedTuple):
    """What an agent is answered."""

    pem: bytes
    ca_pem: bytes
    trust_domain: str
    sequence: int
    not_after_unix_s: int


class Desk:
    """Opens the store for each call and closes it again: calls come from several threads, and seldom."""

    def __init__(
        self,
        store: Path,
        ca: CertificateAuthority | None,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`ca` None: this site's certificates come from elsewhere, and none is given here."""
        self._store, self._ca, self._unix_ns = store, ca, unix_ns
        self._one = (
            threading.Lock()
        )  # else they would wait for each other in SQLite's busy loop, and time out

    @property
    def ca(self) -> CertificateAuthority:
        """Raises AccessRefused where there is none."""
        if self._ca is None:
            raise AccessRefused(
                404,
                "not-found",
                "this collector issues no certificates",
                "start it with --tls-name, or get the agent's certificate where the site's come from",
            )
        return self._ca

    # --- certificates ---

    def enrol(self, request: Enrolment) -> Certificate:
        """The first certificate of an agent, or another by another token. Raises AccessRefused, StoreError."""
        ca, now = self.ca, self._unix_ns()
        enrol.check_node(request.node)
        agent_id = request.agent_id

        def act(execute: Execute) -> Certificate:
            tokens = tokens_of(of_subject(execute, request.token_id))
            state = check_secret(
                tokens.get(request.token_id), request.secret
            )  # before a stranger's CSR is read
            csr = check_csr(request.csr, ca.trust_domain, agent_id)
            message = enrol_message(request.nonce, csr_der(csr), request.token_id, request.node)
            enrol.check_proof(message, request.signature, request.public_key, "enrolment")
            enrol.check_standing(enrol.ended_by(row.kind for row in of_agent(execute, agent_id)))
            known, digest = given(execute, agent_id), csr_sha256(csr)
            if known is not None and known.csr_sha256 == digest:
                return self._certificate(known)  # it never got the answer: no second use of the token
            check_usable(state, request.node, now // _SECOND_NS)
            issued = ca.sign_agent(csr, agent_id, at(now))
            to_give = _next(known, digest, issued)
            detail = {"token": request.token_id, "key": request.public_key.hex(), **_detail(issued, to_give)}
            used = {"agent": agent_id.hex(), "node": request.node}
            append(
                execute,
                [
                    NewAccess(now, TOKEN_USED, b"", request.token_id, used),
                    NewAccess(now, ENROLLED, agent_id, request.node, detail),
                ],
            )
            give(execute, agent_id, to_give)
            return self._certificate(to_give)

        return self._change(act)

    def renew(self, agent_id: bytes, csr_bytes: bytes, sequence: int) -> Certificate:
        """The next certificate of the agent that the caller's certificate names. Raises AccessRefused, StoreError."""
        csr = check_csr(csr_bytes, self.ca.trust_domain, agent_id)
        return self._renew(agent_id, csr, sequence, lambda _: None)

    def renew_expired(
        self, agent_id: bytes, csr_bytes: bytes, sequence: int, nonce: bytes, signature: bytes
    ) -> Certificate:
        """… of an agent that has no valid one any more, by its record key. Raises AccessRefused, StoreError."""
        csr = check_csr(csr_bytes, self.ca.trust_domain, agent_id)
        message = renew_message(nonce, csr_der(csr), agent_id, sequence)

        def proven(rows: list[AccessRow]) -> None:
            enrol.check_proof(message, signature, _key_of(rows), "renewal")

        return self._renew(agent_id, csr, sequence, proven)

    def _renew(
        self,
        agent_id: bytes,
        csr: "CertificateSigningRequest",
        sequence: int,
        check: Callable[[list[AccessRow]], None],
    ) -> Certificate:
        now = self._unix_ns()
        if not 0 <= sequence < _MAX_SEQUENCE:
            raise AccessRefused(
                400, "malformed", f"renewal: expected a sequence below {_MAX_SEQUENCE}, got {sequence}"
            )

        def act(execute: Execute) -> Certificate | AccessRefused:
            rows, known = of_agent(execute, agent_id), given(execute, agent_id)
            if known is None:
                raise _unknown_agent()
            check(rows)
            enrol.check_standing(enrol.ended_by(row.kind for row in rows))
            digest, node = csr_sha256(csr), node_of(rows)
            match enrol.judge_sequence(known, digest, sequence):
                case enrol.REPEAT:
                    return self._certificate(known)
                case enrol.CLONED:
                    return _clone(execute, NewAccess(now, CLONE_SEEN, agent_id, node, {}), known, sequence)
            issued = self.ca.sign_agent(csr, agent_id, at(now))
            ahead = {"asked": str(sequence)} if sequence > known.sequence else {}
            if ahead:
                log.warning(
                    "agent %s names sequence %d, and %d is the last in the store: was it set back to an older copy? Then "
                    "revocations since are to be said again",
                    agent_id.hex(),
                    sequence,
                    known.sequence,
                )
            to_give = _next(known._replace(sequence=max(sequence, known.sequence)), digest, issued)
            append(execute, [NewAccess(now, RENEWED, agent_id, node, {**ahead, **_detail(issued, to_give)})])
            give(execute, agent_id, to_give)
            return self._certificate(to_give)

        return _raised(self._change(act))

    def change_key(self, asked: KeyChange) -> Certificate:
        """The agent goes on as the one with the new record key. Raises AccessRefused, StoreError."""
        ca, now = self.ca, self._unix_ns()
        agent_id, public_key, sequence = asked.agent_id, asked.public_key, asked.sequence
        if len(public_key) != 32:
            raise AccessRefused(400, "malformed", f"public key: expected 32 bytes, got {len(public_key)}")
        new_id = id_of_key(public_key)
        csr = check_csr(asked.csr, ca.trust_domain, new_id)
        message = key_change_message(agent_id, public_key, csr_der(csr), sequence)

        def act(execute: Execute) -> Certificate | AccessRefused:
            rows, known = of_agent(execute, agent_id), given(execute, agent_id)
            if known is None:
                raise _unknown_agent()
            enrol.check_proof(message, asked.by_old, _key_of(rows), "key change, old key")
            enrol.check_proof(message, asked.by_new, public_key, "key change, new key")
            digest, node = csr_sha256(csr), node_of(rows)
            ended, after = enrol.ended_by(row.kind for row in rows), given(execute, new_id)
            if ended == KEY_CHANGED and after is not None and after.csr_sha256 == digest:
                return self._certificate(after)  # it never got the answer
            enrol.check_standing(ended)
            if of_agent(execute, new_id):
                raise AccessRefused(
                    403,
                    "revoked",
                    "key change: expected a key that was never used, got one that was",
                    enrol.JOIN_AGAIN,
                )
            if sequence > known.sequence:
                raise AccessRefused(
                    400,
                    "malformed",
                    f"key change: expected sequence {known.sequence}, got {sequence}",
                    "renew first",
                )
            if enrol.judge_sequence(known, b"", sequence) != enrol.NEW:
                return _clone(execute, NewAccess(now, CLONE_SEEN, agent_id, node, {}), known, sequence)
            issued = ca.sign_agent(csr, new_id, at(now))
            to_give = _next(None, digest, issued)
            said = {"old": agent_id.hex(), "new": new_id.hex(), "key": public_key.hex()}
            proofs = {
                "sequence": str(sequence),
                "csr_sha256": digest.hex(),
                "by_old": asked.by_old.hex(),
                "by_new": asked.by_new.hex(),
            }
            append(
                execute,
                [
                    NewAccess(now, KEY_CHANGED, agent_id, node, {**said, **proofs}),
                    NewAccess(now, ENROLLED, new_id, node, {**said, **_detail(issued, to_give)}),
                ],
            )
            give(execute, new_id, to_give)
            return self._certificate(to_give)

        return _raised(self._change(act))

    def _certificate(self, g: Given) -> Certificate:
        ca = self.ca
        return Certificate(pem_of(g.certificate), ca.pem, ca.trust_domain, g.sequence, g.not_after_unix_s)

    # --- people ---

    def make_join_token(
        self, *, name: str, nodes: str, uses: int, lasts_s: int, who: str
    ) -> tuple[JoinToken, Token]:
        """The token with its secret, which is kept nowhere. Raises AccessError, StoreError."""
        now = self._unix_ns()
        token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_bytes(SECRET_BYTES)
        expires = now // _SECOND_NS + lasts_s
        token = join_token(token_id, secret, name=name, nodes=nodes, uses=uses, expires_unix_s=expires)
        found = JoinToken(self.ca.pin, token_id, secret)
        self._append(NewAccess(now, TOKEN_MADE, b"", token_id, {**token.detail(), "who": who}))
        return found, token

    def make_api_token(
        self, *, role: str, name: str, lasts_s: int, who: str, tenant: str = ""
    ) -> tuple[str, Token]:
        """The token's text, which is kept nowhere. `lasts_s` 0: for ever. Raises AccessError, StoreError."""
        now = self._unix_ns()
        token_id, secret = secrets.token_hex(ID_BYTES), secrets.token_bytes(SECRET_BYTES)
        expires = now // _SECOND_NS + lasts_s if lasts_s else 0
        token = api_token(token_id, secret, role=role, name=name, expires_unix_s=expires, tenant=tenant)
        self._append(NewAccess(now, TOKEN_MADE, b"", token_id, {**token.detail(), "who": who}))
        return api_text(token_id, secret), token

    def tokens(self) -> dict[str, TokenState]:
        """Every token that was ever made, by id."""
        with SqliteAccess(self._store) as store:
            return tokens_of(store.ask(of_tokens))

    def revoke_token(self, token_id: str, *, who: str, why: str) -> None:
        """Raises AccessRefused where there is none, or it is revoked already."""
        now = self._unix_ns()

        def act(execute: Execute) -> None:
            state = tokens_of(of_subject(execute, token_id)).get(token_id)
            if state is None or state.revoked:
                raise AccessRefused(
                    404,
                    "not-found",
                    f"token: expected one that stands, got {token_id[:40]!r}",
                    "`flopmeter collector token list` has them",
                )
            append(execute, [NewAccess(now, TOKEN_REVOKED, b"", token_id, {"who": who, "why": why})])

        self._change(act)

    def revoke_agent(self, agent_id: bytes, *, who: str, why: str) -> AccessRow:
        """No record of the agent is taken any more, from the collector's next look on. Raises AccessRefused, StoreError."""
        now = self._unix_ns()

        def act(execute: Execute) -> AccessRow:
            rows = of_agent(execute, agent_id)
            if not rows:
                raise AccessRefused(
                    404,
                    "not-found",
                    f"agent {agent_id.hex()}: expected one that was admitted, found none",
                    "`flopmeter collector agents list` has them",
                )
            ended = enrol.ended_by(row.kind for row in rows)
            if ended:
                raise AccessRefused(409, "revoked", f"agent {agent_id.hex()}: it is {ended} already")
            return append(
                execute, [NewAccess(now, REVOKED, agent_id, node_of(rows), {"who": who, "why": why})]
            )[0]

        return self._change(act)

    def _append(self, new: NewAccess) -> None:
        self._change(lambda execute: append(execute, [new]))

    def _change(self, act: Callable[[Execute], _T]) -> _T:
        with self._one, SqliteAccess(self._store) as store:
            return store.change(act)


def _next(known: Given | None, digest: bytes, issued: Issued) -> Given:
    return Given(1 if known is None else known.sequence + 1, digest, issued.der, issued.not_after_unix_s)


def _detail(issued: Issued, given_now: Given) -> dict[str, str]:
    return {
        "sequence": str(given_now.sequence),
        "csr_sha256": given_now.csr_sha256.hex(),
        "certificate_sha256": hashlib.sha256(issued.der).hexdigest(),
        "not_after_unix_s": str(issued.not_after_unix_s),
    }


def _clone(execute: Execute, seen: NewAccess, known: Given, sequence: int) -> AccessRefused:
    """Note it; returned and not raised, so that the row stays."""
    append(execute, [seen._replace(detail={"expected": str(known.sequence), "got": str(sequence)})])
    return enrol.cloned(known, sequence)


def _raised(answer: Certificate | AccessRefused) -> Certificate:
    if isinstance(answer, AccessRefused):
        raise answer
    return answer


def _unknown_agent() -> AccessRefused:
    return AccessRefused(
        403,
        "unknown-agent",
        "renewal: expected an agent that was given a certificate here, got another",
        "join with a token: `flopmeter collector token create`",
    )


def _key_of(rows: list[AccessRow]) -> bytes:
    """The agent's record key, of the rows that let it in."""
    for row in rows:
        if row.kind in (ADMITTED, ENROLLED):
            return bytes.fromhex(json.loads(row.detail)["key"])
    return b""


def node_of(rows: list[AccessRow]) -> str:
    """What the agent's node is called, by the last row that says it."""
    return next((row.subject for row in reversed(rows) if row.kind in (ADMITTED, ENROLLED)), "")
