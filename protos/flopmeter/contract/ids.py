"""Identifiers: which text may name an agent, an entity, a run; refusals say what to do."""

import hashlib
import re

from .errors import ContractError
from .limits import MAX_LABEL_CHARS

AGENT_ID_BYTES = 16
_ENTITY = re.compile(r"(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z-]{0,127}\Z")


def agent_id(public_key: bytes) -> bytes:
    """An agent's id is the first 16 bytes of SHA-256 of its Ed25519 public key (32 bytes).

    So an id cannot be claimed without the key, and needs no registry to be checked.
    """
    if len(public_key) != 32:
        raise ContractError(f"public key: expected 32 bytes, got {len(public_key)}")
    return hashlib.sha256(public_key).digest()[:AGENT_ID_BYTES]


def check_entity(uuid: str) -> str:
    """Return `uuid` if it is an NVIDIA UUID (`GPU-…` or `MIG-…`), else raise ContractError."""
    if not _ENTITY.match(uuid):
        raise ContractError(f"entity: expected an NVIDIA UUID (GPU-… or MIG-…), got {uuid[:80]!r}")
    return uuid


def check_label(what: str, text: str) -> str:
    """Return `text` if it may stand as a name (`what` names the field), else raise ContractError.

    At most 256 characters, printable, not padded; the empty string means "not known".
    """
    if len(text) > MAX_LABEL_CHARS:
        raise ContractError(
            f"{what}: expected at most {MAX_LABEL_CHARS} characters, got {len(text)}; shorten the name"
        )
    if text and (not text.isprintable() or text != text.strip()):
        raise ContractError(
            f"{what}: expected printable text without padding, got {text[:40]!r}; remove control characters"
        )
    return text
