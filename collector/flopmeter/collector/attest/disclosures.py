"""Salted digests of a record's fields, by the rule of RFC 9901 4.2.3 (flopmeter.evidence.disclosure checks them). Pure.

Salts come from whoever calls, who must take them from the operating system's generator: numbers and models have few
preimages, and what one salt hides another record must not share.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flopmeter.evidence.disclosure import field_digest, record_digest

from .errors import AttestError

SALT_BYTES = 16
#: Digests of nothing among the others: how many fields a record has is nobody's to count. So many at least, and the
#: list is filled up to a multiple of the other.
LEAST_DECOYS, DECOYS_TO = 4, 16

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """All fields of one record as disclosures, by path, and digests of nothing. It is as secret as the books."""

    disclosures: Mapping[str, str]  # path -> base64url of the canonical JSON [salt, path, value]
    decoys: tuple[str, ...]

    @property
    def field_digests(self) -> list[str]:
        """Sorted, so that order tells nothing."""
        return sorted([*map(field_digest, self.disclosures.values()), *self.decoys])

    @property
    def digest(self) -> str:
        """What two recipients compare, and what is logged."""
        return record_digest(self.field_digests)

    def value(self, path: str) -> Any:
        """What the field says."""
        return opened(self.disclosures[path])[2]

    @property
    def values(self) -> dict[str, Any]:
        """All of it, by path."""
        return {path: opened(text)[2] for path, text in self.disclosures.items()}

    def as_json(self) -> dict[str, Any]:
        return {"disclosures": list(self.disclosures.values()), "decoys": list(self.decoys)}


def sealed(fields: Mapping[str, Any], random: Random) -> Record:
    """`fields` by path, each with a salt of its own. Raises AttestError where salts repeat."""
    salts: set[bytes] = set()

    def salt() -> str:
        found = random(SALT_BYTES)
        if len(found) != SALT_BYTES or found in salts:
            raise AttestError("salts: expected 16 new random bytes each, got some twice or too few")
        salts.add(found)
        return base64url(found)

    made = {path: disclosure(salt(), path, fields[path]) for path in sorted(fields)}
    missing = LEAST_DECOYS + -(len(made) + LEAST_DECOYS) % DECOYS_TO
    return Record(made, tuple(base64url(hashlib.sha256(random(32)).digest()) for _ in range(missing)))


def of_json(document: Mapping[str, Any]) -> Record:
    """The record that `as_json` wrote."""
    return Record({opened(text)[1]: text for text in document["disclosures"]}, tuple(document["decoys"]))


def disclosure(salt: str, path: str, value: Any) -> str:
    import rfc8785

    check_value(path, value)
    return base64url(rfc8785.dumps([salt, path, value]))


def opened(text: str) -> tuple[str, str, Any]:
    """(salt, path, value)."""
    salt, path, value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return salt, path, value


def check_value(path: str, value: Any) -> None:
    """Raise AttestError for a number: quantities are decimal strings (reference/attestation.md 0.2)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise AttestError(f"{path}: expected text, got the number {value!r}")
    inner: Iterable[Any] = ()
    if isinstance(value, Mapping):
        inner = value.values()
    elif isinstance(value, (list, tuple)):
        inner = value
    for part in inner:
        check_value(path, part)


def base64url(raw: bytes) -> str:
    """Without padding, as RFC 9901 writes it."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
