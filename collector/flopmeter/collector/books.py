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

HOUR_NS = 3_600_000_000_000
#: A record that tells of more time than this, in seconds, stands under all hours that it spans; any other under that of
#: its end, so that the edge of an hour is blurred by less than this. Five usual windows (60 s): a window that crosses an
#: hour would else make every row of that hour twice, and an agent that is down for longer is no restart.
BRIDGE_S = 300
#: How the constant is called where the store notes by which value it was written, and from which position on.
BRIDGE = "bridge-seconds"


class GroupKey(NamedTuple):
    """What usage must share to be added together: derivation to FLOP is linear within one group."""

    workload_no: int
    model_no: int
    evidence_class: int
    measured: int
    spread_ppm: int
    gap_reason: int


class Slot(NamedTuple):
    """When a record's usage was, as finely as the books keep it: the hours since 1970 from `first` to `hour`.

    Nearly all of it is of one hour, and `back` is 0. What a record tells of more than BRIDGE_NS cannot be divided among
    the hours that it spans: it stands apart under the last of them, with how many it began before.
    """

    hour: int
    back: int = 0

    @property
    def first(self) -> int:
        return self.hour - self.back


class HourKey(NamedTuple):
    """A group within one slot."""

    slot: Slot
    group: GroupKey


Sums = list[int]


def slot_of(start_unix_ns: int, end_unix_ns: int, told_ns: int, bridge_s: int = BRIDGE_S) -> Slot:
    """Where the usage of a record stands. Start and end are its window's, by the agent's wall clock.

    `told_ns`: the most time that the record tells of any entity. It reaches back behind the window's start where an
    interval, or a gap over a reboot, ends in the window; and it does not step where the wall clock does.
    `bridge_s` 0 is the rule of stores before there were slots: the hour at whose beginning or in which a window ended.
    """
    if not bridge_s:
        return Slot(end_unix_ns // HOUR_NS)
    hour = (end_unix_ns - 1) // HOUR_NS  # of its last nanosecond
    since = min(start_unix_ns, end_unix_ns - told_ns)
    if end_unix_ns - since <= bridge_s * 1_000_000_000:
        return Slot(hour)
    return Slot(hour, hour - max(since, 0) // HOUR_NS)


def add_rows(into: dict[GroupKey, Sums], rows: Iterable[tuple[GroupKey, Iterable[int]]]) -> None:
    """Add each row's numbers (SUM_FIELDS order) to its group."""
    for key, numbers in rows:
        sums = into.get(key)
        if sums is None:
            into[key] = list(numbers)
        else:
            for i, number in enumerate(numbers):
                sums[i] += number
