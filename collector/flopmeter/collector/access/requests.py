"""What stands in an enrolment request and its answer: JSON in, JSON out. Pure (docs/identity.md says each field)."""

import json
import re
from collections.abc import Mapping
from typing import Any

from flopmeter.contract.ids import AGENT_ID_BYTES

from .desk import Certificate
from .enrol import Enrolment
from .errors import AccessRefused

NONCE_BYTES = 32
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


def read_object(body: bytes) -> Mapping[str, Any]:
    """Raises AccessRefused for what is no JSON object of texts."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise malformed("a JSON object", "no JSON") from e
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise malformed("a JSON object of texts", type(found).__name__)
    return found


def enrolment_of(said: Mapping[str, Any]) -> Enrolment:
    """Raises AccessRefused."""
    _only(said, "token_id", "secret", "node", "public_key", "csr", "nonce", "signature")
    return Enrolment(
        said["token_id"][:64],
        _hex(said, "secret", 32),
        said["node"],
        _hex(said, "public_key", 32),
        _csr(said),
        _hex(said, "nonce", NONCE_BYTES),
        _hex(said, "signature", 64),
    )


def renewal_of(said: Mapping[str, Any]) -> tuple[bytes, bytes, int, bytes, bytes]:
    """(agent id, CSR, sequence, nonce, signature). Raises AccessRefused."""
    _only(said, "agent_id", "csr", "sequence", "nonce", "signature")
    if not _NUMBER.match(said["sequence"]) or int(said["sequence"]) >= 1 << 63:
        raise malformed("sequence: a number below 2^63 in decimal", repr(said["sequence"][:40]))
    return (
        _hex(said, "agent_id", AGENT_ID_BYTES),
        _csr(said),
        int(said["sequence"]),
        _hex(said, "nonce", NONCE_BYTES),
        _hex(said, "signature", 64),
    )


def certificate_json(given: Certificate) -> dict[str, str]:
    return {
        "certificate_pem": given.pem.decode(),
        "ca_pem": given.ca_pem.decode(),
        "trust_domain": given.trust_domain,
        "sequence": str(given.sequence),
        "not_after_unix_s": str(given.not_after_unix_s),
    }


def refusal_json(refused: AccessRefused) -> dict[str, str]:
    return {"error": refused.code, "message": str(refused), "todo": refused.hint}


def malformed(expected: str, got: str) -> AccessRefused:
    return AccessRefused(400, "malformed", f"expected {expected}, got {got}", "see docs/identity.md")


def _only(said: Mapping[str, Any], *names: str) -> None:
    if set(said) != set(names):
        raise malformed(f"the fields {', '.join(names)}", ", ".join(sorted(said))[:200] or "none")


def _hex(said: Mapping[str, Any], name: str, length: int) -> bytes:
    text = said[name]
    if len(text) != 2 * length or not re.fullmatch("[0-9a-f]*", text):
        raise malformed(f"{name}: {2 * length} hex digits", f"{len(text)} characters")
    return bytes.fromhex(text)


def _csr(said: Mapping[str, Any]) -> bytes:
    text: str = said["csr"]
    if not text.isascii():
        raise malformed("csr: PEM", "other characters")
    return text.encode()
