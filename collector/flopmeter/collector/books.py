"""The books: exact integer sums of usage, keyed so that FLOP can be derived again with any W table.

Pure. `add_rows` is the plain way to add, by which fsck derives the books; ingest's fast way (encode.py, writer.py)
must come to the same, and fsck is what says so.
"""

from collections.abc import Iterable
from typing import NamedTuple

#: The numbers that are added up per group, in this order, in memory, in SQLite and in fsck.
SUM_FIELDS = (
    "duration_ns",
    "sm_elapsed_cycles",
    "sm_active_cycles",
    "hmma_cycles",
    "imma_cycles",
    "dmma_cycles",
    "tensor_other_cycles",
    "fp64_cycles",
    "fp32_cycles",
    "fp16_cycles",
    "int_cycles",
    "energy_mj",
)
NO_SUMS = (0,) * len(SUM_FIELDS)


class GroupKey(NamedTuple):
    """What usage must share to be added together: derivation to FLOP is linear within one group."""

    workload_no: int
    model_no: int
    evidence_class: int
    measured: int
    spread_ppm: int
    gap_reason: int


class HourKey(NamedTuple):
    """A group within one hour (hours since 1970, of the window's end), for curves."""

    hour: int
    group: GroupKey


Sums = list[int]


def add_rows(into: dict[GroupKey, Sums], rows: Iterable[tuple[GroupKey, Iterable[int]]]) -> None:
    """Add each row's numbers (SUM_FIELDS order) to its group."""
    for key, numbers in rows:
        sums = into.get(key)
        if sums is None:
            into[key] = list(numbers)
        else:
            for i, number in enumerate(numbers):
                sums[i] += number
