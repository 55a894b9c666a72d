"""What a record was made of, as the store keeps it: its salted fields, what opens them, and where its work lies. Pure.

Another view of the same record is made of this, so that two recipients can compare one digest. It has every name and
every salt: as secret as the books it lies in, and never leaves with a file but for what a view discloses.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.figures import is_others

from . import disclosures
from .disclosures import Record
from .errors import AttestRefused
from .fields import Fields
from .gather import Gathered
from .rows import rows_root
from .sum_tree import SumLeaf, SumTree, sum_tree
from .values import figure_of


@dataclass(frozen=True, slots=True)
class Material:
    """A record with all that views of it need."""

    record: Record
    tree: SumTree
    devices: tuple[str, ...]
    facts: Mapping[str, Any]
    commitment: str  # hex

    @classmethod
    def of_json(cls, text: str) -> "Material":
        """What `material_json` wrote. Raises AttestRefused where it is something else."""
        try:
            document = json.loads(text)
            record = disclosures.of_json(document["record"])
            leaves = [
                SumLeaf(tuple(int(n) for n in leaf["sums"]), leaf["opening"]) for leaf in document["groups"]
            ]
            return cls(
                record,
                sum_tree(leaves),
                tuple(document["devices"]),
                document["facts"],
                str(record.value("/run/commitment")).removeprefix("sha256:"),
            )
        except (ValueError, KeyError, TypeError) as e:
            raise AttestRefused(
                f"record: expected what a record was made of, got {e!r}",
                "see what is wrong with `flopmeter collector fsck`",
            ) from e


def fault_in(text: str, record_digest: str) -> tuple[str, object, object] | None:
    """(what, expected, got) of the first thing that contradicts the record's digest; None: all of it agrees.

    Raises AttestRefused where the text is no material at all.
    """
    m = Material.of_json(text)
    values = m.record.values
    flop = figure_of(values["/totals/executedFlop"])
    for what, expected, got in (
        ("its digest", record_digest, m.record.digest),
        ("groups, their sum", (flop.lower, flop.point, flop.upper), m.tree.total[:3]),
        ("devices, their root", values["/inventory/commitment"], f"sha256:{rows_root(m.devices).hex()}"),
    ):
        if expected != got:
            return what, expected, got
    return None


def material_json(record: Record, made: Fields, facts: Mapping[str, Any]) -> str:
    """As the store keeps it."""
    document = {
        "record": record.as_json(),
        "groups": [{"sums": [str(n) for n in leaf.sums], "opening": leaf.opening} for leaf in made.leaves],
        "names": made.openings.names,
        "lineage": list(made.openings.lineage),
        "devices": list(made.openings.devices),
        "agents": list(made.openings.agents),
        "facts": dict(facts),
    }
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def facts_of(g: Gathered, made: Fields, start_index: int | None) -> dict[str, Any]:
    """Where the run's work lies, and what of it no record tells."""
    sums = [0] * len(SUM_FIELDS)
    for group in (*g.booked, *g.owed):
        if not is_others(group.key.measured):
            sums = [a + b for a, b in zip(sums, group.sums, strict=True)]
    return {
        "workloads": [str(m.workload_no) for m in g.members],
        "firstPosition": str(g.seen.first_position),
        "lastPosition": str(g.seen.last_position),
        "smCycles": [str(n) for n in sums],
        "owed": [
            {
                "model": list(g.models[group.key.model_no]),
                "class": str(group.key.evidence_class),
                "measured": str(group.key.measured),
                "spread": str(group.key.spread_ppm),
                "dtype": group.key.dtype,
                "cycles": [str(n) for n in group.sums],
            }
            for group in g.owed
        ],
        "wTableSha256": g.table.digest,
        "startIndex": None if start_index is None else str(start_index),
        "unknownAncestors": str(made.unknown_ancestors),
    }
