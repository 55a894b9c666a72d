"""Heads that witnesses refused: each was one that the log signed, and each event of one has its refusal."""

from collections.abc import Callable
from typing import Any

from flopmeter.collector.law.log_fault import REFUSED
from flopmeter.collector.log import witness_rows
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.note import parse_key

from .rederive import Difference, compare


def check_refusals(rows: Callable[..., Any]) -> None:
    """Raises Difference. A refusal whose event is still to come is good: the next commit raises it."""
    told = set()
    for number, key_name, vkey, status, size, root, witness_size in rows(
        "SELECT refusal_no, key_name, vkey, status, size, root, witness_size FROM refused_heads ORDER BY refusal_no"
    ):
        row = f"refusal_no {number}"
        try:
            name = parse_key(vkey).name
        except (EvidenceError, TypeError) as e:
            raise Difference("refused_heads", row, "vkey", "a verifier key", str(e)) from e
        compare("refused_heads", row, [("vkey, its name", key_name, name)])
        if not list(rows("SELECT 1 FROM checkpoints WHERE size = ? AND root = ?", (size, root))):
            raise Difference(
                "refused_heads", row, "size, root", "those of a signed head", f"{size}, {root.hex()}"
            )
        told.add(REFUSED + witness_rows.refusal_text(key_name, size, root, status, witness_size))
    for number, said in rows("SELECT fault_no, said FROM log_faults ORDER BY fault_no"):
        if said.startswith(REFUSED) and said not in told:
            raise Difference(
                "log_faults", f"fault_no {number}", "said", "what a row of refused_heads says", said
            )
