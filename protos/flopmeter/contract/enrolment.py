"""What an agent and its collector sign and compare when the agent gets a certificate (docs/identity.md)."""

import hashlib
import re
from dataclasses import dataclass, field

from .errors import ContractError
from .ids import AGENT_ID_BYTES

ENROL_DOMAIN = b"flopmeter-enrol-v1\n"
RENEW_DOMAIN = b"flopmeter-renew-v1\n"
KEY_CHANGE_DOMAIN = b"flopmeter-key-change-v1\n"
#: First part of a join token; another way of joining gets another one.
JOIN_VERSION = "FM1"
#: Port of `--enrol` where an agent is told of none.
DEFAULT_ENROL_PORT = 9843
SECRET_BYTES = 32
#: Longest body of an enrolment request or answer that either side reads.
MAX_ENROL_BYTES = 16_384
MAX_CSR_BYTES = 2_048
_JOIN = re.compile(r"FM1([0-9a-f]{64})\.([0-9a-z]{8,32})\.([0-9a-f]{64})\Z")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What `flopmeter collector token create` prints."""

    ca_spki_sha256: bytes  # SHA-256 of the certificate authority's SubjectPublicKeyInfo, DER
    token_id: str
    secret: bytes = field(repr=False)

    def text(self) -> str:
        return f"{JOIN_VERSION}{self.ca_spki_sha256.hex()}.{self.token_id}.{self.secret.hex()}"


def parse_join_token(text: str) -> JoinToken:
    """Raises ContractError, whose message does not repeat what was given: it may be most of a secret."""
    match = _JOIN.match(text.strip())
    if match is None:
        raise ContractError(
            f"join token: expected {JOIN_VERSION}<64 hex digits>.<id>.<64 hex digits>, got {len(text)} other "
            "characters; copy the whole line that `flopmeter collector token create` printed"
        )
    return JoinToken(bytes.fromhex(match[1]), match[2], bytes.fromhex(match[3]))


def agent_uri(trust_domain: str, agent_id: bytes) -> str:
    """The one subject alternative name of an agent's certificate (a SPIFFE id)."""
    return f"spiffe://{trust_domain}/flopmeter/agent/{agent_id.hex()}"


def enrol_message(nonce: bytes, csr: bytes, token_id: str, node: str) -> bytes:
    """What the record key signs to enrol: this CSR (DER), by this token, as this node, in answer to this nonce."""
    return b"".join(
        (ENROL_DOMAIN, _sha(nonce), _sha(csr), _sha(token_id.encode()), _sha(node.encode()))
    )  # each of one length, so that no two requests have one text


def renew_message(nonce: bytes, csr: bytes, agent_id: bytes, sequence: int) -> bytes:
    """What the record key signs to get a certificate in place of one that has expired."""
    _check(agent_id, sequence)
    return b"".join((RENEW_DOMAIN, _sha(nonce), _sha(csr), agent_id, sequence.to_bytes(8, "big")))


def key_change_message(agent_id: bytes, new_public_key: bytes, csr: bytes, sequence: int) -> bytes:
    """What both record keys sign: from here on the agent is the one with the new key."""
    _check(agent_id, sequence)
    if len(new_public_key) != 32:
        raise ContractError(f"public key: expected 32 bytes, got {len(new_public_key)}")
    return b"".join((KEY_CHANGE_DOMAIN, agent_id, new_public_key, _sha(csr), sequence.to_bytes(8, "big")))


def _check(agent_id: bytes, sequence: int) -> None:
    if len(agent_id) != AGENT_ID_BYTES or not 0 <= sequence < 1 << 63:
        raise ContractError(
            f"expected an agent id of {AGENT_ID_BYTES} bytes and a sequence below 2^63, got {len(agent_id)}, {sequence}"
        )


def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
