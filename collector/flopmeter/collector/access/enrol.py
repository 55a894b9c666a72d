"""Whether a certificate is given, and which: pure decisions. What is signed stands in contract/enrolment.py."""

import hmac
from collections.abc import Iterable
from typing import NamedTuple

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import agent_id as id_of_key
from flopmeter.contract.ids import check_label

from .errors import AccessRefused
from .rows import CLONE_SEEN, ENDING, KEY_CHANGED

NEW, REPEAT, CLONED = "new", "repeat", "cloned"
JOIN_AGAIN = "give the node a new identity: a new record key (move the old state away) and a new join token"
_SIGNATURE_BYTES = 64


class Given(NamedTuple):
    """The certificate that an agent was given last."""

    sequence: int
    csr_sha256: bytes
    certificate: bytes  # DER
    not_after_unix_s: int


class Enrolment(NamedTuple):
    """A request to enrol, whose form was checked."""

    token_id: str
    secret: bytes
    node: str
    public_key: bytes
    csr: bytes
    nonce: bytes
    signature: bytes

    @property
    def agent_id(self) -> bytes:
        return id_of_key(self.public_key)


class KeyChange(NamedTuple):
    """A request to go on with another record key."""

    agent_id: bytes  # that the caller's certificate names
    public_key: bytes  # the new one
    csr: bytes
    sequence: int
    by_old: bytes  # signatures
    by_new: bytes


def check_node(node: str) -> str:
    """Raises AccessRefused for what no node is called."""
    try:
        check_label("node", node)
    except ContractError as e:
        raise AccessRefused(400, "malformed", str(e)) from e
    if not node:
        raise AccessRefused(400, "malformed", "node: expected a name, got none", "set --node")
    return node


def check_proof(message: bytes, signature: bytes, public_key: bytes, what: str) -> None:
    """Raise AccessRefused unless the record key has signed this request."""
    try:
        if len(signature) != _SIGNATURE_BYTES or len(public_key) != 32:
            raise CryptoError
        crypto_sign_open(signature + message, public_key)
    except CryptoError as e:
        raise AccessRefused(
            401,
            "bad-proof",
            f"{what}: expected a signature by the record key over this nonce and this CSR, got another or none",
            "the agent must sign each request anew; a signature over another CSR proves nothing",
        ) from e


def check_standing(ended: str) -> None:
    """Raise AccessRefused if the agent is one that no record is taken of any more (rows.ENDING)."""
    if ended in ENDING:
        why = {CLONE_SEEN: "its key was in use twice", KEY_CHANGED: "it took another record key"}
        raise AccessRefused(
            403,
            "revoked",
            f"agent: expected one that may speak, got one that may not any more: {why.get(ended, 'it was revoked')}",
            JOIN_AGAIN,
        )


def judge_sequence(given: Given, csr_sha256: bytes, sequence: int) -> str:
    """NEW: the holder of the last certificate asks for the next. REPEAT: it never got the answer. CLONED: it is outdated.

    Two copies of a key each believe that they hold the last sequence; whichever asks second is outdated, and nobody
    can tell which of them is the node (reference/attestation.md 4.2, after Teleport's join state).

    A sequence ahead of ours was given by a store that was since set back to an older copy: no copy of a key makes it, and
    whoever makes it up is still found, for the other copy is outdated by it.
    """
    if sequence >= given.sequence:
        return NEW
    if sequence == given.sequence - 1 and hmac.compare_digest(csr_sha256, given.csr_sha256):
        return REPEAT
    return CLONED


def cloned(given: Given, sequence: int) -> AccessRefused:
    """What both copies are told."""
    return AccessRefused(
        409,
        "cloned",
        f"renewal: expected sequence {given.sequence}, got {sequence}: this key is in use twice, and both copies are "
        "refused from now on",
        f"find the other copy (a cloned disk, a snapshot that was restored), then {JOIN_AGAIN}",
    )


def ended_by(kinds: Iterable[str]) -> str:
    """The kind of row that ended an agent, of all its rows' kinds; "": it stands."""
    return next((kind for kind in kinds if kind in ENDING), "")
