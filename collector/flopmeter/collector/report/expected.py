"""The operator's own list of nodes (`--expect FILE`): what must exist, whether or not an agent ever spoke of it.

    [[node]]
    names = ["gpu-001", "gpu-002"]     # as agents name their nodes
    gpus = 8                           # of each
    since = 2026-11-01T00:00:00Z       # optional: from when on their time is expected

    [[node]]
    names = ["gpu-003"]
    gpus = 8
    gone = 2026-11-20T09:00:00Z        # out of service: nothing is expected of it any more; needs by and why
    by = "R. Ops"
    why = "returned to the vendor, RMA 1234"

It is a claim: it adds to what is expected, and it ends what a silent agent's node is charged for; what is in the books
it never changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.site_files import read_file, toml
from flopmeter.contract.limits import MAX_ENTITIES

MAX_FILE_BYTES = 8 << 20
_KEYS = ("names", "gpus", "since", "gone", "by", "why")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HINT = "docs/coverage.md shows the file"


@dataclass(frozen=True, slots=True)
class ExpectedNode:
    """One node that must exist. Times are unix ns; None = not said."""

    name: str
    gpus: int
    since_unix_ns: int | None = None
    gone_unix_ns: int | None = None
    by: str = ""
    why: str = ""


def read_expected(path: Path) -> tuple[ExpectedNode, ...]:
    """The nodes of the file, each once, in its order. Raises CollectorError naming entry and key."""
    name = f"--expect {path}"
    raw = read_file(CollectorError, name, path, MAX_FILE_BYTES, write="name a TOML file of nodes", hint=_HINT)
    document = toml(CollectorError, name, raw, hint=_HINT)
    unknown = [key for key in document if key != "node"]
    entries = document.get("node")
    if unknown or not isinstance(entries, list) or not entries:
        got = f"key {unknown[0]!r}" if unknown else f"{entries!r:.60}"
        raise CollectorError(f"--expect {path}: expected [[node]] entries and nothing else, got {got}", _HINT)
    found: dict[str, ExpectedNode] = {}
    for number, entry in enumerate(entries, 1):
        where = f"--expect {path}: node {number}"
        for node in _nodes(where, entry):
            if node.name in found:
                raise CollectorError(
                    f"{where}: names: expected each node once, got {node.name!r} again", _HINT
                )
            found[node.name] = node
    return tuple(found.values())


def _nodes(where: str, entry: Any) -> list[ExpectedNode]:
    if not isinstance(entry, dict):
        raise CollectorError(f"{where}: expected a table, got {entry!r:.60}", _HINT)
    for key in entry:
        if key not in _KEYS:
            raise CollectorError(f"{where}: unknown key {key!r}", f"known keys: {', '.join(_KEYS)}")
    names, gpus = entry.get("names"), entry.get("gpus")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise CollectorError(f"{where}: names: expected a list of node names, got {names!r:.60}", _HINT)
    if type(gpus) is not int or not 0 < gpus <= MAX_ENTITIES:
        raise CollectorError(f"{where}: gpus: expected 1 to {MAX_ENTITIES}, got {gpus!r:.60}", _HINT)
    since, gone = (_instant(where, key, entry) for key in ("since", "gone"))
    by, why = (_text(where, key, entry) for key in ("by", "why"))
    if gone is not None and not (by and why):
        raise CollectorError(
            f"{where}: expected `by` and `why` beside `gone`: it ends what a node may have done, got "
            f"{'no why' if by else 'no by'}",
            "say who took it out of service, and why",
        )
    if since is not None and gone is not None and gone < since:
        raise CollectorError(f"{where}: gone: expected a time after `since`, got one before", _HINT)
    return [ExpectedNode(name, gpus, since, gone, by, why) for name in names]


def _instant(where: str, key: str, entry: Mapping[str, Any]) -> int | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise CollectorError(
            f"{where}: {key}: expected a time with its offset, got {value!s:.60}",
            "write 2026-11-01T00:00:00Z",
        )
    return (value - _EPOCH) // timedelta(microseconds=1) * 1000


def _text(where: str, key: str, entry: Mapping[str, Any]) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str) or len(value) > 500 or any(ord(c) < 32 for c in value):
        raise CollectorError(f"{where}: {key}: expected a line of at most 500 characters", _HINT)
    return value
