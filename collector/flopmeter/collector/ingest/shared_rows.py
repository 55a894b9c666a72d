"""What ingest asks of the rows of shared entities (contract.usage.Measured: APPORTIONED, OTHERS). Pure.

Every function says what is wrong, or "": encode.py refuses with it.
"""

from collections.abc import Iterable
from typing import Any

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import Measured

OTHERS = int(Measured.OTHERS)
_MARKS = int(Measured.APPORTIONED | Measured.OTHERS)
_OTHERS_GAP = int(Measured.OTHERS | Measured.SM_ACTIVE)
#: Numbers that an OTHERS row must not have: it is no part of the entity's time.
NOT_OF_OTHERS = tuple(SUM_FIELDS.index(n) for n in ("duration_ns", "sm_elapsed_cycles", "energy_mj"))
_PIPES = SUM_FIELDS[2:11]


def fault_in_marks(evidence_class: int, measured: int) -> str:
    """Whether a row's marks fit each other and its evidence class."""
    if measured & _MARKS == _MARKS:
        return f"usage: a row is a share or what others did, not both: measured {measured:#x}"
    if measured & OTHERS and not measured & Measured.SM_ACTIVE:
        return (
            "usage: what others did must state sm_active_cycles, the most that the SMs can have been active for them, "
            f"got measured {measured:#x}; pipes that nobody read are never priced at nothing"
        )
    if evidence_class == EvidenceClass.GAP and measured not in (0, int(Measured.APPORTIONED), _OTHERS_GAP):
        return f"usage: a gap measures nothing, got measured {measured:#x}"
    return ""


def fault_in_others(rows: Iterable[Any], slack_cycles: int) -> str:
    """Whether all that a workload's others did fits in what the entity's own rows elapsed (0.5 % more at most)."""
    elapsed: dict[int, int] = {}
    others: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        if row.measured & OTHERS:
            sums = others.setdefault((row.entity_index, row.workload_index), [0] * len(_PIPES))
            for i, name in enumerate(_PIPES):
                sums[i] += getattr(row, name)
        else:
            elapsed[row.entity_index] = elapsed.get(row.entity_index, 0) + row.sm_elapsed_cycles
    for (entity, workload), sums in others.items():
        room = elapsed.get(entity, 0)
        for name, number in zip(_PIPES, sums, strict=True):
            if number > room + room // 200 + slack_cycles:
                return (
                    f"usage of entity {entity}, what others than workload {workload} did: {name} {number} exceed the "
                    f"{room} that the entity elapsed by more than 0.5 %"
                )
    return ""
