"""How values are written in a statement: no number anywhere, one spelling of each (docs/attestation-format.md 2). Pure."""

import hashlib
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from flopmeter.contract.flop import Figure

SECOND_NS = 1_000_000_000


def figure(f: Figure) -> dict[str, str]:
    return {"lower": str(f.lower), "point": str(f.point), "upper": str(f.upper)}


def figure_of(value: Any) -> Figure:
    """What `figure` wrote."""
    return Figure(int(value["lower"]), int(value["point"]), int(value["upper"]))


def fraction(value: Fraction | int) -> str:
    """In lowest terms: 3, 1/3."""
    return str(Fraction(value))


def seconds(ns: int) -> str:
    """Device or wall time in ns as exact seconds."""
    return fraction(Fraction(ns, SECOND_NS))


def time_text(unix_ns: int) -> str:
    """RFC 3339 in UTC with nine decimals, or none where they are all 0."""
    whole, ns = divmod(unix_ns, SECOND_NS)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns:09d}Z" if ns else f"{text}Z"


def unix_ns_of(text: str) -> int:
    """Of an RFC 3339 time, to the microsecond."""
    return (
        (datetime.fromisoformat(text) - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1) * 1_000
    )


def sha256(raw: bytes) -> str:
    """As a hash is written."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def canonical(document: Any) -> bytes:
    """RFC 8785. Imported here: only those who attest need it."""
    import rfc8785

    return rfc8785.dumps(document)


def escaped(key: str) -> str:
    """A key within a path (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
