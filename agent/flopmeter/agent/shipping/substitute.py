"""What stands in the books in the place of a record that the collector will never take: its time, as a gap.

The same window and inventory, and for each entity as much time as the record told of, priced from nothing to
the most that can have run. So the sum of an entity's time stays whole, and the loss stands where it happened.
"""

from collections.abc import Collection, Mapping, Sequence

from flopmeter.agent.metering.entity import describe
from flopmeter.agent.metering.interval import gap_numbers
from flopmeter.agent.metering.window import MAX_DETAIL_CHARS
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import (
    UNATTRIBUTED,
    Batch,
    Device,
    GapReason,
    Measured,
    Notice,
    NoticeKind,
    Usage,
)
from flopmeter.contract.w_table import current

from .encode import Outline, decode_devices, encode_batch


def is_substitute(outline: Outline) -> bool:
    """Whether the batch is one of ours: put in the place of a record that was lost, and metering nothing."""
    return outline.only_lost and NoticeKind.RECORD_REFUSED in outline.notices


def substitute(
    outline: Outline,
    inventory: bytes,
    detail: str,
    *,
    start_boot_ns: int = 0,
    ends: Mapping[int, int] | None = None,
) -> bytes:
    """The payload that replaces the batch of `outline`; `detail` says why, in its RECORD_REFUSED notice.

    `start_boot_ns`: usage up to there is in the books already, so that only the rest is lost: up to the entity's
    last reading (`ends`, by index) where that is known, else to the end of the window.
    The time is nobody's: names of workloads may be what the record was refused for.
    """
    devices = decode_devices(inventory)
    start = max(outline.window_start_boot_ns, start_boot_ns)
    last = ends or {}
    lost: dict[int, int] = {}
    for index, time_ns in sorted(outline.time_ns.items()):
        until = min(last.get(index, outline.window_end_boot_ns), outline.window_end_boot_ns)
        lost_ns = min(time_ns, until - start) if start_boot_ns else time_ns
        if 0 <= index < len(devices) and lost_ns > 0:
            lost[index] = lost_ns
    usage = _gaps(devices, lost)
    end, end_unix = outline.window_end_boot_ns, outline.window_end_unix_ns
    return encode_batch(
        Batch(
            agent_version=outline.agent_version,
            inventory_digest=outline.inventory_digest,
            window_start_boot_ns=start,
            window_end_boot_ns=end,
            window_start_unix_ns=outline.window_start_unix_ns,
            window_end_unix_ns=end_unix,
            workloads=(UNATTRIBUTED,) if usage else (),
            usage=usage,
            notices=(Notice(NoticeKind.RECORD_REFUSED, end, end_unix, -1, detail[:MAX_DETAIL_CHARS]),),
        )
    )


def lost_stretch(outline: Outline, inventory: bytes, start_boot_ns: int, came: Collection[str]) -> bytes:
    """A batch of the time from `start_boot_ns` to the window of `outline`, of which the state was lost: a gap.

    For every device of the inventory but those that only `came` later.
    """
    devices = decode_devices(inventory)
    end, end_unix = outline.window_start_boot_ns, outline.window_start_unix_ns
    usage = _gaps(devices, {i: end - start_boot_ns for i, d in enumerate(devices) if d.entity not in came})
    detail = "no state from here to the end of this window: a spool that was lost, or a journal that could not be read"
    return encode_batch(
        Batch(
            agent_version=outline.agent_version,
            inventory_digest=outline.inventory_digest,
            window_start_boot_ns=start_boot_ns,
            window_end_boot_ns=end,
            window_start_unix_ns=max(1, end_unix - (end - start_boot_ns)),
            window_end_unix_ns=end_unix,
            workloads=(UNATTRIBUTED,) if usage else (),
            usage=usage,
            notices=(Notice(NoticeKind.SPOOL_LOST, end, end_unix, -1, detail),),
        )
    )


def _gaps(devices: Sequence[Device], lost_ns: Mapping[int, int]) -> tuple[Usage, ...]:
    """A row for each device by its index, priced from nothing to the most that can have run."""
    parents = frozenset(d.parent for d in devices if d.mig and d.parent)
    rows = []
    for index, ns in lost_ns.items():
        entity = describe(devices[index], current(), source="", parents=parents)
        duration_ns, most_cycles, *_ = gap_numbers(entity, ns)
        reason = GapReason.RECORD_LOST
        rows.append(
            Usage(index, 0, EvidenceClass.GAP, Measured(0), 0, duration_ns, most_cycles, gap_reason=reason)
        )
    return tuple(rows)
