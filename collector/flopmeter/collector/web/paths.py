"""A request's path and query, read strictly: each part is decoded once, and what could be read twice is refused. Pure."""

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from .says import Refused

#: Longest path and query; the head as a whole is cut at edge_protocol.MAX_HEAD_BYTES.
MAX_PARTS = 12
MAX_PARAMETERS = 32
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def segments_of(raw_path: bytes) -> tuple[str, ...]:
    """The decoded parts of "/api/v1/runs/slurm%3Ademo%2F88121". Raises Refused (400).

    It is split before it is decoded, so that a name may hold a slash; and decoded once, so that "%252e" is "%2e".
    """
    if not raw_path.startswith(b"/"):
        raise Refused(400, "path: expected one that begins with a slash")
    parts = raw_path[1:].split(b"/")
    if len(parts) > MAX_PARTS:
        raise Refused(400, f"path: expected at most {MAX_PARTS} parts, got {len(parts)}")
    return tuple(_decoded("path", part) for part in parts)


def parameters_of(query: bytes) -> Mapping[str, str]:
    """The decoded parameters of "?a=1&b=2". Raises Refused (400): also for one that stands twice."""
    found: dict[str, str] = {}
    for part in query.split(b"&") if query else ():
        name, _, value = part.replace(b"+", b" ").partition(b"=")
        key = _decoded("query", name)
        if not key or key in found:
            raise Refused(
                400,
                "query: expected each parameter once, with a name, got one "
                + ("without a name" if not key else f"that stands twice: {key[:40]!r}"),
            )
        found[key] = _decoded("query", value)
        if len(found) > MAX_PARAMETERS:
            raise Refused(400, f"query: expected at most {MAX_PARAMETERS} parameters")
    return found


def _decoded(what: str, part: bytes) -> str:
    if _BAD_PERCENT.search(part):
        raise Refused(400, f"{what}: expected two hexadecimal digits behind each per cent sign")
    try:
        text = unquote_to_bytes(part).decode("utf-8")
    except UnicodeDecodeError as e:
        raise Refused(400, f"{what}: expected UTF-8, got bytes that are none") from e
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Refused(400, f"{what}: expected no control characters")
    return text
