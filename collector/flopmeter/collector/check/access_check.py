"""Who might speak when: the access table by its own rules, and every record under a key that was good where it stands.

Not the collector's way of deciding, which asks for one agent at a time, but all rows in their order. Pure but for the
signatures of a key change.
"""

import fnmatch
import hashlib
import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field

from flopmeter.collector.access.clone import clone_key
from flopmeter.collector.access.rows import (
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
    check_chain,
)
from flopmeter.collector.ingest.intake import verified
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.access import SELECT, access_rows
from flopmeter.contract.enrolment import KEY_CHANGE_DOMAIN
from flopmeter.contract.ids import agent_id as id_of_key

from .rederive import AgentBooks, Difference, compare

_SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class _Token:
    detail: Mapping[str, str]
    used: int = 0
    revoked: bool = False


@dataclass(slots=True)
class _Agent:
    """What the rows so far say of one agent."""

    key: str  # hex
    node: str
    begun_no: int  # the row from which on its records count …
    ended_no: int = 0  # … and the one from which on none does; 0: none
    cloned: bool = False  # that row says that its keys are in use twice
    sequence: int = 0  # of its last certificate; 0: it has none from here
    last: Mapping[str, str] = field(default_factory=dict)  # detail of the row of that certificate


class AccessCheck:
    """Checks the table when it is made; told of each record."""

    def __init__(self, reader: Reader, index_of: Callable[[str, int], int | None] | None) -> None:
        """`index_of`: of a row by kind and number, in the log; None: that does not hold together, as its own check says.

        Raises Difference.
        """
        self._tokens: dict[str, _Token] = {}
        self._agents: dict[bytes, _Agent] = {}
        rows = access_rows(reader.rows(SELECT))
        fault = check_chain(rows)
        if fault is not None:
            raise Difference("access", f"access_no {fault.number}", fault.column, fault.expected, fault.got)
        self.rows = len(rows)
        self._take(rows)
        self._certificates(reader)
        self._last_record = -1  # the highest index of a record's leaf
        self._spans: dict[bytes, tuple[int | None, int | None]] | None = None
        if index_of is not None:
            self._spans = {
                agent_id: (
                    index_of("access", a.begun_no),
                    index_of("access", a.ended_no) if a.ended_no else None,
                )
                for agent_id, a in self._agents.items()
            }

    def record(self, position: int, agent: AgentBooks, index: int) -> None:
        """The record at `position`, whose leaf has that index (-1: none, which the log's check says). Raises Difference."""
        known = self._agents.get(agent.agent_id)
        key = f"position {position}"
        if known is None:
            raise Difference("access", agent.name, "row", f"one that admits it, before {key}", "none")
        compare("access", agent.name, [("detail.key", agent.public_key.hex(), known.key)])
        if index < 0 or self._spans is None:
            return
        self._last_record = max(self._last_record, index)
        begun, ended = self._spans[agent.agent_id]
        if begun is None or index < begun:
            said = (
                f"behind {begun}, where access_no {known.begun_no} admits its agent"
                if begun is not None
                else (f"behind access_no {known.begun_no}, which admits its agent and is not in the log")
            )
            raise Difference("records", key, "leaf's index", said, index)
        if ended is not None and index > ended:
            said = f"before {ended}, where access_no {known.ended_no} ends its agent's"
            raise Difference("records", key, "leaf's index", said, index)

    def clone_keys(self, raised: Container[str]) -> dict[str, str]:
        """Keys of events that clones must have: of each whose row was applied, after all records were told of.

        A row in the log behind the last record may be of a collector that was stopped before it raised the event.
        """
        found = {}
        for agent_id, a in self._agents.items():
            if a.cloned:
                key, index = clone_key(agent_id), (self._spans or {}).get(agent_id, (None, None))[1]
                if key in raised or (index is not None and index < self._last_record):
                    found[key] = f"access_no {a.ended_no}"
        return found

    # --- the rows by themselves ---

    def _take(self, rows: Iterable[AccessRow]) -> None:
        before: AccessRow | None = None
        for row in rows:
            if before is not None and before.kind == TOKEN_USED:
                self._followed(before, row)
            try:
                self._one(row, before)
            except (
                ValueError,
                TypeError,
                KeyError,
            ) as e:  # a text that is no number, no hex: the hash says nothing of that
                raise _wrong(row, "detail", f"what a {row.kind} row says", repr(e)) from e
            before = row
        if before is not None and before.kind == TOKEN_USED:
            raise _wrong(before, "row behind it", "the enrolment by this token", "none")

    def _one(self, row: AccessRow, before: AccessRow | None) -> None:
        detail = json.loads(row.detail)
        if row.kind in (TOKEN_MADE, TOKEN_USED, TOKEN_REVOKED):
            self._token(row, detail)
        elif row.kind in (ADMITTED, ENROLLED):
            self._begins(row, detail, before)
        else:
            self._goes_on(row, detail)

    def _token(self, row: AccessRow, detail: Mapping[str, str]) -> None:
        if row.agent_id:
            raise _wrong(row, "agent_id", "none: it is about a token", row.agent_id)
        known = self._tokens.get(row.subject)
        if row.kind == TOKEN_MADE:
            if known is not None:
                raise _wrong(row, "subject", "an id that no token has yet", row.subject)
            _needs(row, detail, ("secret_sha256", "role", "nodes", "uses", "expires_unix_s"))
            self._tokens[row.subject] = _Token(detail)
            return
        if known is None:
            raise _wrong(row, "subject", "a token that was made before", row.subject)
        if known.revoked:
            raise _wrong(row, "kind", "no more of a token that is revoked", row.kind)
        if row.kind == TOKEN_REVOKED:
            known.revoked = True
            return
        if known.detail["role"]:
            raise _wrong(row, "subject", "a token that nodes join by", f"one of role {known.detail['role']}")
        expires = int(known.detail["expires_unix_s"])
        if row.unix_ns // _SECOND_NS >= expires:
            raise _wrong(row, "unix_ns", f"before {expires} s, when the token expires", row.unix_ns)
        known.used += 1
        if known.used > int(known.detail["uses"]):
            raise _wrong(
                row, "row", f"at most {known.detail['uses']} uses of {row.subject}", f"use {known.used}"
            )
        if not fnmatch.fnmatchcase(detail.get("node", ""), known.detail["nodes"]):
            raise _wrong(row, "detail.node", f"one named {known.detail['nodes']}", detail.get("node"))

    def _followed(self, used: AccessRow, row: AccessRow) -> None:
        """A token is used by the enrolment behind it, and by no other."""
        said = json.loads(used.detail)
        expected = (ENROLLED, said.get("agent"), said.get("node"), used.subject)
        got = (row.kind, row.agent_id.hex(), row.subject, json.loads(row.detail).get("token"))
        if got != expected:
            raise _wrong(row, "kind, agent_id, subject, detail.token", expected, got)

    def _begins(self, row: AccessRow, detail: Mapping[str, str], before: AccessRow | None) -> None:
        _needs(row, detail, ("key",))
        key = bytes.fromhex(detail["key"])
        if len(row.agent_id) != 16 or id_of_key(key) != row.agent_id:
            raise _wrong(row, "agent_id", id_of_key(key), row.agent_id)
        known = self._agents.get(row.agent_id)
        if known is not None and known.ended_no:
            raise _wrong(row, "kind", f"no more of an agent that access_no {known.ended_no} ends", row.kind)
        if row.kind == ENROLLED and "token" in detail:
            if before is None or before.kind != TOKEN_USED or before.subject != detail["token"]:
                raise _wrong(row, "row before it", f"the use of token {detail['token']}", "another")
        elif row.kind == ENROLLED and (
            before is None
            or before.kind != KEY_CHANGED
            or json.loads(before.detail).get("new") != row.agent_id.hex()
        ):
            raise _wrong(row, "row before it", "the use of a token, or a change to this key", "another")
        if known is None:
            known = self._agents[row.agent_id] = _Agent(detail["key"], row.subject, row.access_no)
        compare("access", _name(row), [("detail.key", known.key, detail["key"])])
        if row.kind == ENROLLED:
            self._sequence(row, detail, known)

    def _goes_on(self, row: AccessRow, detail: Mapping[str, str]) -> None:
        known = self._agents.get(row.agent_id)
        if known is None:
            raise _wrong(row, "agent_id", "an agent that was admitted before", row.agent_id)
        if known.ended_no:
            raise _wrong(row, "kind", f"no more of an agent that access_no {known.ended_no} ends", row.kind)
        if row.kind == RENEWED:
            self._sequence(row, detail, known)
        elif row.kind == KEY_CHANGED:
            _key_change(row, detail, known)
        elif row.kind == CLONE_SEEN and detail.get("expected") != str(known.sequence):
            raise _wrong(row, "detail.expected", str(known.sequence), detail.get("expected"))
        if row.kind in (REVOKED, KEY_CHANGED, CLONE_SEEN):
            known.ended_no, known.cloned = row.access_no, row.kind == CLONE_SEEN

    def _sequence(self, row: AccessRow, detail: Mapping[str, str], known: _Agent) -> None:
        # A renewal from ahead: the store had been set back to an older copy.
        expected = max(known.sequence, int(detail.get("asked", "0")) if row.kind == RENEWED else 0) + 1
        compare("access", _name(row), [("detail.sequence", str(expected), detail.get("sequence"))])
        known.sequence, known.last = expected, detail

    def _certificates(self, reader: Reader) -> None:
        """The certificate that is kept of each agent is the one that its last row tells of."""
        kept = {}
        for agent_id, sequence, csr, der, not_after in reader.rows(
            "SELECT agent_id, sequence, csr_sha256, certificate, not_after_unix_s FROM certificates ORDER BY agent_id"
        ):
            kept[bytes(agent_id)] = {
                "sequence": str(sequence),
                "csr_sha256": bytes(csr).hex(),
                "certificate_sha256": hashlib.sha256(der).hexdigest(),
                "not_after_unix_s": str(not_after),
            }
        for agent_id in sorted(kept.keys() | self._agents.keys()):
            known, name = self._agents.get(agent_id), f"agent {agent_id.hex()}"
            if agent_id not in kept:
                if known is not None and known.sequence:
                    raise Difference(
                        "certificates", name, "row", f"that of sequence {known.sequence}", "none"
                    )
                continue
            said: Mapping[str, str] = known.last if known is not None else {}
            compare("certificates", name, ((k, said.get(k), v) for k, v in kept[agent_id].items()))


def _key_change(row: AccessRow, detail: Mapping[str, str], known: _Agent) -> None:
    """Signed by both keys, as contract.enrolment.key_change_message has it."""
    _needs(row, detail, ("old", "new", "key", "sequence", "csr_sha256", "by_old", "by_new"))
    new_key, digest = bytes.fromhex(detail["key"]), bytes.fromhex(detail["csr_sha256"])
    compare(
        "access",
        _name(row),
        [
            ("detail.old", row.agent_id.hex(), detail["old"]),
            ("detail.new", id_of_key(new_key).hex(), detail["new"]),
            ("detail.sequence", str(known.sequence), detail["sequence"]),
        ],
    )
    message = b"".join((KEY_CHANGE_DOMAIN, row.agent_id, new_key, digest, known.sequence.to_bytes(8, "big")))
    for name, key in (("by_old", bytes.fromhex(known.key)), ("by_new", new_key)):
        if not verified(message, bytes.fromhex(detail[name]), key):
            raise _wrong(row, f"detail.{name}", "a signature by that key", "one that does not verify")


def _needs(row: AccessRow, detail: Mapping[str, str], names: Iterable[str]) -> None:
    for name in names:
        if name not in detail:
            raise _wrong(row, f"detail.{name}", "a text", "none")


def _name(row: AccessRow) -> str:
    return f"access_no {row.access_no}"


def _wrong(row: AccessRow, column: str, expected: object, got: object) -> Difference:
    return Difference("access", _name(row), column, expected, got)
