"""Where everything that is appended stands in a state of the books: what a copy must agree upon with its store."""

from collections.abc import Callable
from typing import Any

#: Table -> the column that numbers its rows. Each goes on by appending, and by that alone.
APPENDED = {
    "records": "position",
    "entries": "entry_no",
    "answers": "answer_no",
    "retention": "said_no",
    "events": "event_no",
    "deadlines": "deadline_no",
    "losses": "loss_no",
    "law_changes": "change_no",
    "access": "access_no",
    "attestations": "attestation_no",
    "log": "first_index",
    "checkpoints": "checkpoint_no",
    "refused_heads": "refusal_no",
}


def ends_of(rows: Callable[[str], Any]) -> dict[str, int]:
    """The last number of each table that is appended to, in a store of this version's schema."""
    return {
        table: int(rows(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()[0])  # noqa: S608
        for table, column in APPENDED.items()
    }
