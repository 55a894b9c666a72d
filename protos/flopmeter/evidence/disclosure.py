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

from flopmeter.evidence.errors import require


def field_digest(disclosure: str) -> str:
    return _text(sha256(disclosure.encode()).digest())


def record_digest(field_digests: Sequence[str]) -> str:
    ordered = list(field_digests) == sorted({*field_digests}) and all(
        len(_bytes(one)) == 32 for one in field_digests
    )
    require(ordered, "disclosures", "expected digests in ASCII order and none twice")
    return sha256("".join(f"{digest}\n" for digest in field_digests).encode()).hexdigest()


def open_disclosures(disclosures: Sequence[str], field_digests: Sequence[str]) -> dict[str, Any]:
    """What is disclosed, by path: each is in the list of digests, and no path and no salt is there twice."""
    known, salts, fields = {*field_digests}, set[str](), dict[str, Any]()
    for disclosure in disclosures:
        match parse_canonical(_bytes(disclosure), "disclosures"):
            case [str(salt), str(path), value] if len(salt) == 22 and len(_bytes(salt)) == 16:
                require(
                    field_digest(disclosure) in known, "disclosures", f"{path[:99]!r} is not in the record"
                )
                once = salt not in salts and path not in fields
                require(once, "disclosures", f"{path[:99]!r} or its salt comes twice")
                salts.add(salt)
                fields[path] = value
            case _:
                require(False, "disclosures", f"not [salt, path, value]: {disclosure[:99]!r}")
    return fields


def parse_canonical(data: bytes, step: str, most: int | None = None) -> Any:
    """The value of canonical JSON (RFC 8785) without numbers; anything else is refused.

    `most`: of all brackets and commas, for what nobody has vouched for yet: a value takes thirty times the memory of "[],".
    """

    def no(text: str) -> NoReturn:
        raise ValueError(text)

    def ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(sorted(pairs, key=lambda pair: pair[0].encode("utf-16-be")))

    value = None
    if most is not None:
        require(
            sum(map(data.count, (b"[", b"{", b","))) <= most, step, f"more than {most} brackets and commas"
        )
    try:
        hooks = json.JSONDecoder(object_pairs_hook=ordered, parse_int=no, parse_float=no, parse_constant=no)
        value = hooks.decode(data.decode())
        same = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() == data
    except (ValueError, RecursionError):
        same = False
    require(same, step, f"not canonical JSON without numbers: {data[:99]!r}")
    return value


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        data = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        data = b""
    require(data and _text(data) == text, "disclosures", f"not base64url without padding: {text[:99]!r}")
    return data
