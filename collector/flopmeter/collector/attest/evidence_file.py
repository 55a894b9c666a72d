"""`evidence.json`: disclosures of what a view shows, and the proofs for what the statement says (docs/attestation-format.md 6)."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from flopmeter.collector.log.entry import Kind, row_body
from flopmeter.collector.log.evidence_log import EvidenceLog

from .disclosures import Record
from .profiles import AUDITOR, View
from .rows import rows_proofs
from .sum_tree import SumTree

#: What the place of a row in the log is proven as.
RECORD, START, EVENT, ENTRY = "record", "start", "event", "entry"
#: Of earlier heads; more than that a recipient has hardly been shown.
MAX_HEADS = 100


class Head(NamedTuple):
    """A head of the log."""

    size: int
    root: bytes


class Proof(NamedTuple):
    """A row whose place in the log is proven, and as what."""

    at: int
    role: str


class Place(NamedTuple):
    """Where it is looked up."""

    connection: sqlite3.Connection
    log: EvidenceLog


def evidence(
    place: Place,
    size: int,
    record: Record,
    view: View,
    tree: SumTree,
    *,
    profile: str,
    proofs: Iterable[Proof],
    heads: Sequence[Head],
    devices: Sequence[str],
) -> dict[str, Any]:
    """`heads`: those that the recipient was shown before, the newest first."""
    every = profile == AUDITOR
    unrounded = view.shown.get("/totals/executedFlop") == record.value("/totals/executedFlop")
    openings = range(len(tree.leaves)) if every else range(1) if unrounded else ()
    redacted = {r.path for r in view.redactions}
    return {
        "consistency": [
            {
                "treeSize": str(head.size),
                "rootHash": f"sha256:{head.root.hex()}",
                "proof": _hex(place.log.consistency(head.size, size)),
            }
            for head in sorted(set(heads[:MAX_HEADS]))
            if 0 < head.size <= size
        ],
        "disclosures": [record.disclosures[path] for path in sorted(view.shown) if path not in redacted],
        "proofs": [
            _proof(place, size, proof, said=every or proof.role == RECORD) for proof in sorted(set(proofs))
        ],
        "sumTree": [_opening(tree, index) for index in openings],
        "devices": [
            {"index": str(i), "row": row, "proof": _hex(proof)}
            for i, (row, proof) in enumerate(zip(devices, rows_proofs(devices), strict=True))
            if every
        ],
    }


def row_text(connection: sqlite3.Connection, kind: Kind, number: int) -> str:
    """The canonical JSON whose SHA-256 the leaf has."""
    sql = f"SELECT {', '.join(kind.columns)} FROM {kind.table} WHERE {kind.key} = ?"  # noqa: S608
    return row_body(kind, connection.execute(sql, (number,)).fetchone()).decode()


def _proof(place: Place, size: int, proof: Proof, *, said: bool) -> dict[str, Any]:
    log = place.log
    return {
        "role": proof.role,
        "index": str(proof.at),
        "leaf": log.leaf(proof.at).decode(),
        "body": row_text(place.connection, *log.at(proof.at)) if said else None,
        "proof": _hex(log.inclusion(proof.at, size)),
    }


def _opening(tree: SumTree, index: int) -> Mapping[str, Any]:
    leaf = tree.leaves[index]
    return {
        "index": str(index),
        "sums": [str(n) for n in leaf.sums],
        "commitment": leaf.commitment.hex(),
        "path": [{"hash": n.hash.hex(), "sums": [str(x) for x in n.sums]} for n in tree.opening(index)],
    }


def _hex(hashes: Iterable[bytes]) -> list[str]:
    return [one.hex() for one in hashes]
