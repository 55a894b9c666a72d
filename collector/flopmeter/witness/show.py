"""What a witness remembers, for people and scripts: `flopmeter witness show`."""

import json
from datetime import UTC, datetime
from pathlib import Path

from .errors import StateError
from .heads import Heads


def shown(state: Path, *, as_json: bool) -> tuple[str, bool]:
    """(text, whether a log signed two heads of one size). Raises StateError."""
    if not state.exists():
        raise StateError(
            f"state {state}: there is none", "name the file that `witness serve --state` was given"
        )
    heads = Heads(state)
    try:
        cosigned, refused = heads.all()
    finally:
        heads.close()
    forked = any(r.size == r.head_size for r in refused)
    if as_json:
        document = {
            "heads": [
                {"origin": h.origin, "size": str(h.size), "root": h.root.hex(), "time": _time(h.unix_s), "note": h.note.decode()}
                for h in cosigned
            ],
            "refused": [
                {"origin": r.origin, "size": str(r.size), "root": r.root.hex(), "cosignedSize": str(r.head_size),
                 "time": _time(r.unix_s), "provesFork": r.size == r.head_size, "note": r.note.decode()}
                for r in refused
            ],
        }  # fmt: skip
        return json.dumps(document, ensure_ascii=False), forked
    lines = []
    for h in cosigned:
        lines += [_shown(h.origin), f"  size {h.size}, cosigned {_time(h.unix_s)}", f"  root {h.root.hex()}"]
        for r in (r for r in refused if r.origin == h.origin):
            what = "FORK, signed by the log:" if r.size == r.head_size else "not shown to follow:"
            lines += [f"  refused {_time(r.unix_s)}: {what}", f"    size {r.size} root {r.root.hex()}"]
    return "\n".join(lines) or "nothing cosigned yet", forked


def _time(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(origin: str) -> str:
    return ascii(origin)[1:-1][:80]
