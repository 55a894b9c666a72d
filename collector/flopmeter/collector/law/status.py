"""What the runs of a store are judged by now, beside the law files that are here."""

import tomllib
from typing import TYPE_CHECKING, Any

from flopmeter.collector.spelling import time_text
from flopmeter.collector.store.reading import Rows

from .standing import text_of

if TYPE_CHECKING:
    from .laws import Laws

SAME, OTHER, NOT_HERE, NOT_JUDGED, FAULTY = "same", "other-text", "not-here", "not-judged", "faulty"


def law_status(rows: Rows, laws: "Laws | None") -> dict[str, Any]:
    """`laws`: what is here; None: faulty. Raises StoreError."""
    here = {r.id: r for r in laws.binding} if laws is not None else {}
    judged = rows(
        "SELECT regime, digest, from_unix_ns, from_position FROM judged WHERE until_position IS NULL ORDER BY regime"
    ).fetchall()
    found = []
    for regime_id, text, from_unix_ns, from_position in judged:
        regime = here.pop(regime_id, None)
        if regime is None:
            state = FAULTY if laws is None else NOT_HERE  # of faulty files nothing is compared
        else:
            state = SAME if text_of(regime) == text else OTHER
        found.append(
            {
                "regime": regime_id,
                "version": _version(rows, text),
                "digest": text,
                "since": time_text(from_unix_ns),
                "from_position": str(from_position),
                "files": state,
            }
        )
    found += [
        {
            "regime": r.id,
            "version": None,
            "digest": None,
            "since": None,
            "from_position": None,
            "files": NOT_JUDGED,
        }
        for r in here.values()
    ]
    return {"regimes": found, "ok": all(r["files"] == SAME for r in found)}


def _version(rows: Rows, text: str) -> str | None:
    """What the kept file says; None: an older flopmeter kept none."""
    row = rows("SELECT text FROM texts WHERE digest = ?", (text.split("+", maxsplit=1)[0],)).fetchone()
    try:
        return None if row is None else str(tomllib.loads(row[0])["version"])
    except (ValueError, KeyError):
        return None
