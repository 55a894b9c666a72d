"""Salted digests of fields, by the rule of RFC 9901 4.2.3 (reference/attestation.md 3.1):

    disclosure    = base64url(UTF-8 of the canonical JSON [salt, path, value]), without padding
    field digest  = base64url(SHA-256(ASCII of the disclosure)), without padding: 43 characters
    record digest = SHA-256 in hex of all field digests in ASCII order, each followed by a newline

The salt is base64url of 16 random bytes without padding (22 characters), made anew for each field of each
record; the path is a text, the value any JSON without numbers (quantities are decimal strings).
"""

from collections.abc import Sequence


def field_digest(disclosure: str) -> str:
    raise NotImplementedError


def record_digest(field_digests: Sequence[str]) -> str:
    raise NotImplementedError


def open_disclosures(disclosures: Sequence[str], field_digests: Sequence[str]) -> dict[str, object]:
    """What is disclosed, by path: each disclosure's digest is in the list, no path or salt comes twice."""
    raise NotImplementedError
