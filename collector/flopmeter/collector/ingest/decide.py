"""The decisions of ingest. Pure: a head and a record in, one outcome out; no clock, no socket, no store.

The rules (DESIGN.md 5): records are taken strictly in sequence per agent. The same number with the same
bytes is acknowledged again and counts nothing; with other bytes it is a fork; a number too high waits.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from flopmeter.collector.books import SUM_FIELDS, GroupKey
from flopmeter.contract.limits import MAX_CLOCK_AHEAD_NS
from flopmeter.contract.record import ZERO_HASH, Record
from flopmeter.contract.usage import Batch, Inventory, Workload, WorkloadKind

if TYPE_CHECKING:
    from .encode import BatchView


class RefusalCode(IntEnum):
    """Never: this record will not be taken. The numbers are the wire's (ingest.proto Refusal.Code)."""

    MALFORMED = 1
    BAD_SIGNATURE = 2
    UNKNOWN_AGENT = 3
    CONFLICT = 4
    BROKEN_CHAIN = 5
    OVERLAP = 6
    IMPLAUSIBLE = 7
    WRONG_AGENT = 8
    TOO_LARGE = 9


class PushbackReason(IntEnum):
    """Not now. The numbers are the wire's (ingest.proto Pushback.Reason)."""

    STORE_UNAVAILABLE = 1
    OVERLOADED = 2
    SHUTTING_DOWN = 3
    OUT_OF_SEQUENCE = 4
    INVENTORY_UNKNOWN = 5
    FROM_THE_FUTURE = 6


@dataclass(frozen=True, slots=True)
class Refused:
    """The record will never be taken; the agent sets it aside and goes on."""

    code: RefusalCode
    message: str


@dataclass(frozen=True, slots=True)
class PushedBack:
    """The record may be taken later."""

    reason: PushbackReason
    message: str
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Duplicate:
    """In the books (or on the way there) already, byte for byte."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Goes into the open group; durable only when that group has been committed."""


TAKEN = Taken()
DUPLICATE = Duplicate()
Outcome = Taken | Duplicate | Refused | PushedBack


@dataclass(slots=True)
class Head:
    """Where one agent's chain stands. `lost` are number ranges that the agent no longer had."""

    last_seq: int = 0
    last_hash: bytes = ZERO_HASH
    boot_id: bytes = b""
    window_end_boot_ns: int = 0
    window_end_unix_ns: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    #: Boots before the head's, with where their usage in the books ends. A boot never comes back.
    boots: dict[bytes, int] = field(default_factory=dict)
    received_unix_ns: int = 0  # when its last record came, by the collector's clock
    usual_window_ns: int = 0  # the longest of late: a short one at a stop or start does not hide it
    stopped: bool = False  # the last record says that the agent was stopped on purpose

    @property
    def next_seq(self) -> int:
        """The only number that will be taken next."""
        return (max(self.last_seq, self.lost[-1][1]) if self.lost else self.last_seq) + 1

    @property
    def any_prev(self) -> bool:
        """Whether the record before the next one was lost, so that its hash cannot be known."""
        return bool(self.lost) and self.lost[-1][1] > self.last_seq


def loss(head: Head, oldest_seq: int) -> tuple[int, int] | None:
    """The range that is gone if the agent's oldest record is `oldest_seq` (0 = it holds none)."""
    return (head.next_seq, oldest_seq - 1) if oldest_seq > head.next_seq else None


def sequence(head: Head, record: Record) -> PushedBack | Refused | None:
    """Judge a number that is not behind the head: None = it is the next one and its chain holds."""
    expected = head.next_seq
    if record.seq > expected:
        return PushedBack(
            PushbackReason.OUT_OF_SEQUENCE,
            f"expected record {expected}, got {record.seq}; send from {expected}",
        )
    if not head.any_prev and record.prev_hash != head.last_hash:
        return Refused(
            RefusalCode.BROKEN_CHAIN,
            f"record {record.seq}: expected prev_hash {head.last_hash.hex()}, got {record.prev_hash.hex()}; "
            "seal it again behind the collector's head",
        )
    return None


def behind(head: Head, record: Record, record_hash: bytes, known_hash: bytes | None) -> Duplicate | Refused:
    """Judge a number that the head has passed; `known_hash` is that of the stored record, if one is stored."""
    if known_hash == record_hash:
        return DUPLICATE
    for first, last in head.lost:
        if first <= record.seq <= last:
            return Refused(
                RefusalCode.BROKEN_CHAIN,
                f"record {record.seq}: numbers {first} to {last} were declared lost before; "
                "seal it again behind the collector's head",
            )
    return Refused(
        RefusalCode.CONFLICT,
        f"record {record.seq}: another record of this number is in the books; two agents share one key, "
        "or a spool was restored from a copy",
    )


def window(
    head: Head,
    record: Record,
    start_boot_ns: int,
    end_unix_ns: int,
    now_unix_ns: int,
) -> PushedBack | Refused | None:
    """Judge a record's window against the head and the collector's clock; None = good."""
    ahead = end_unix_ns - now_unix_ns
    if ahead > MAX_CLOCK_AHEAD_NS:
        return PushedBack(
            PushbackReason.FROM_THE_FUTURE,
            f"record {record.seq}: its window ends {ahead / 1e9:.0f} s ahead of this clock, "
            f"at most {MAX_CLOCK_AHEAD_NS / 1e9:.0f} s are allowed; set the node's clock",
            retry_after_ms=60_000,
        )
    current = bool(head.last_seq) and record.boot_id == head.boot_id
    booked = head.window_end_boot_ns if current else head.boots.get(record.boot_id, -1)
    if start_boot_ns < booked:
        return Refused(
            RefusalCode.OVERLAP,
            f"record {record.seq}: its window starts at {start_boot_ns} ns of its boot, but usage up to "
            f"{booked} ns is in the books already",
        )
    if not current and record.boot_id in head.boots:
        return Refused(
            RefusalCode.CONFLICT,
            f"record {record.seq}: boot {record.boot_id.hex()} was over when boot {head.boot_id.hex()} began, "
            "and reports again; two agents share one key, or a machine was set back to a copy",
        )
    return None


def move(
    head: Head,
    record: Record,
    digest: bytes,
    window: "BatchView | Batch",
    *,
    received_unix_ns: int,
    stopped: bool,
) -> None:
    """Make the taken `record`, of `window`, the head."""
    if head.last_seq and record.boot_id != head.boot_id:
        head.boots[head.boot_id] = head.window_end_boot_ns
    head.last_seq, head.last_hash, head.boot_id = record.seq, digest, record.boot_id
    head.window_end_boot_ns, head.window_end_unix_ns = window.window_end_boot_ns, window.window_end_unix_ns
    length_ns = window.window_end_boot_ns - window.window_start_boot_ns
    head.usual_window_ns = max(length_ns, head.usual_window_ns - head.usual_window_ns // 4)
    head.received_unix_ns, head.stopped = received_unix_ns, stopped


def scope_of(workload: Workload, inventory: Inventory) -> str:
    """Within what a workload's job name means one thing: the cluster, or one node of it."""
    if workload.kind in (WorkloadKind.SLURM, WorkloadKind.POD, WorkloadKind.OTHER):
        return inventory.cluster
    return f"{inventory.cluster}/{inventory.node}"


def told_ns(batch: "BatchView | Batch") -> int:
    """The most time that a batch tells of any entity: its window, or rows that reach back behind its start.

    The plain path; BatchView.told_ns is what ingest has.
    """
    spent: dict[int, int] = {}
    for u in batch.usage:
        spent[u.entity_index] = spent.get(u.entity_index, 0) + u.duration_ns
    return max(batch.window_end_boot_ns - batch.window_start_boot_ns, *spent.values(), 0)


def usage_rows(
    batch: "BatchView | Batch",
    workload_nos: Sequence[int],
    model_nos: Sequence[int],
    left_out: AbstractSet[int] = frozenset(),
) -> Iterable[tuple[GroupKey, tuple[int, ...]]]:
    """A decoded batch's rows for books.add_rows: the slow, plain path that fsck derives the books by.

    `workload_nos` by workload_index, `model_nos` by entity_index; entities in `left_out` are (claims.py).
    """
    for u in batch.usage:
        if u.entity_index in left_out:
            continue
        key = GroupKey(
            workload_nos[u.workload_index],
            model_nos[u.entity_index],
            int(u.evidence_class),
            int(u.measured),
            u.spread_ppm,
            int(u.gap_reason),
        )
        yield key, tuple(getattr(u, name) for name in SUM_FIELDS)
