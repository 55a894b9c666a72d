"""Salted digests of fields, by the rule of RFC 9901 4.2.3 (reference/attestation.md 3.1):

    disclosure    = base64url without padding of the canonical JSON [salt, path, value]
    field digest  = base64url without padding of SHA-256(disclosure): 43 characters
    record digest = SHA-256 in hex of all field digests in ASCII order, each followed by a line feed

The salt is base64url of 16 random bytes (22 characters), another for each field of each record.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, NoReturn

from flopmeter.evidence.errors import EvidenceError


def field_digest(disclosure: str) -> str:
    return urlsafe_b64encode(sha256(disclosure.encode()).digest()).rstrip(b"=").decode()


def record_digest(field_digests: Sequence[str]) -> str:
    if list(field_digests) != sorted({*field_digests}) or any(
        len(_bytes(one)) != 32 for one in field_digests
    ):
        raise EvidenceError("disclosures", "expected digests in order and none twice")
    return sha256("".join(f"{digest}\n" for digest in field_digests).encode()).hexdigest()


def open_disclosures(disclosures: Sequence[str], field_digests: Sequence[str]) -> dict[str, object]:
    """What is disclosed, by path: each is in the list of digests, and no path and no salt is there twice."""
    known, salts, fields = {*field_digests}, set[str](), dict[str, object]()
    for disclosure in disclosures:
        match parse_canonical(_bytes(disclosure), "disclosures"):
            case [str(salt), str(path), value] if len(salt) == 22 and _bytes(salt):
                if salt in salts or path in fields or field_digest(disclosure) not in known:
                    raise EvidenceError("disclosures", f"{path[:100]!r} comes twice or is not of the record")
                salts.add(salt)
                fields[path] = value
            case _:
                raise EvidenceError("disclosures", f"not [salt, path, value]: {disclosure[:100]!r}")
    return fields


def parse_canonical(data: bytes, step: str) -> Any:
    """The value of canonical JSON (RFC 8785) that has no numbers: anything else is refused."""

    def refuse(text: str) -> NoReturn:
        raise ValueError(text)

    def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(sorted(pairs, key=lambda pair: pair[0].encode("utf-16-be")))

    try:
        value = json.JSONDecoder(
            object_pairs_hook=ordered, parse_int=refuse, parse_float=refuse, parse_constant=refuse
        ).decode(data.decode())
        same = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() == data
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise EvidenceError(step, f"not canonical JSON without numbers: {data[:100]!r}")
    return value


def _bytes(text: str) -> bytes:
    """Strict base64url without padding."""
    try:
        data = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        data = b""
    if not data or urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise EvidenceError("disclosures", f"not base64url: {text[:100]!r}")
    return data
