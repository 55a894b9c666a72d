"""`fsck.json` beside the store: what the last `collector fsck` came to, for the page. Evidence of nothing: a file that
whoever may write there may write.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

NAME = "fsck.json"
SAME, DIFFERS = "ok", "differs"
MAX_BYTES = 16_384
_KEYS = {"outcome": str, "time": str, "position": str, "version": str}
_MODE = 0o640
_MAX_TEXT = 500


def outcome_document(
    difference: str | None, *, time: str, position: int, records: int, version: str
) -> dict[str, Any]:
    """`position`: of the last record that was read."""
    return {
        "outcome": SAME if difference is None else DIFFERS,
        "time": time,
        "position": str(position),
        "records": records,
        "version": version,
        "difference": None if difference is None else difference[:_MAX_TEXT],
    }


def write_outcome(store: Path, document: dict[str, Any]) -> bool:
    """Whole or not at all; False where this user may not write there, which is no fault of the store."""
    file = store.absolute().with_name(NAME)
    fresh = file.with_name(f"{NAME}.{os.getpid()}.new")
    raw = json.dumps(document, ensure_ascii=False).encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(fresh, flags, _MODE), "wb") as out:
            out.write(raw)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        return False
    return True


def read_outcome(store: Path) -> dict[str, Any] | None:
    """None where there is none, or none that is whole."""
    try:
        handle = os.open(store.absolute().with_name(NAME), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(k), t) for k, t in _KEYS.items()):
        return None
    if found["outcome"] not in (SAME, DIFFERS):
        return None
    difference = found.get("difference")
    kept = {name: found[name][:_MAX_TEXT] for name in _KEYS}
    return kept | {"difference": difference[:_MAX_TEXT] if isinstance(difference, str) else None}
