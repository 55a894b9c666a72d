"""Ingest's protobuf edge: payload bytes in, checked and added-up numbers out.

`BatchView` checks everything against the contract and adds rows up by group: protobuf fields go straight into
tuples, and no object is made per row. The plain way, to the contract's types, is flopmeter.collector.encode.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from flopmeter.collector.books import SUM_FIELDS, Sums
from flopmeter.collector.encode import decode_notice, decode_progress, decode_workload, parse_batch
from flopmeter.contract.errors import ContractError
from flopmeter.contract.evidence_class import SPREAD_STEPS_PPM, EvidenceClass
from flopmeter.contract.ids import check_label
from flopmeter.contract.limits import (
    MAX_ANCHORS,
    MAX_NOTICES,
    MAX_PROGRESS,
    MAX_ROWS,
    MAX_SM_CLOCK_MHZ,
    MAX_TEXT_CHARS,
    MAX_WORKLOADS,
    MIN_TICK_NS,
)
from flopmeter.contract.usage import (
    Device,
    GapReason,
    Inventory,
    Measured,
    Notice,
    NoticeKind,
    Progress,
    Workload,
)
from flopmeter.wire.v1 import batch_pb2, ingest_pb2

from .shared_rows import NOT_OF_OTHERS, OTHERS, fault_in_marks, fault_in_others

#: A row, or a window, may bridge an outage of the agent, which can be far longer than a window
#: (limits.MAX_WINDOW_NS bounds the *setting*). 400 days: longer than any uptime worth metering.
MAX_BRIDGE_NS = 400 * 86_400 * 1_000_000_000
#: A pipe cannot be active longer than the clock ran: 0.5 % for readings not taken at one instant
#: (reference/metering.md 7.2 item 4 accepts 100.5 %), plus rounding of many small intervals.
PIPE_SLACK_CYCLES = 1_000
#: Elapsed cycles against time: 2 %, plus one shortest tick, for a reading that the driver answered late.
ELAPSED_SLACK_PPM = 20_000
ELAPSED_SLACK_NS = MIN_TICK_NS
#: Far above any GPU (1.4 kW): refuses the absurd. Energy counters may lag a scrape by minutes.
MAX_DEVICE_WATTS = 10_000
ENERGY_SLACK_NS = 120_000_000_000
_ANY_TIME_MJ = ENERGY_SLACK_NS * MAX_DEVICE_WATTS // 1_000_000  # plausible over any time, however short
_MAX_NS = (1 << 63) - 1

_SPREADS = frozenset(SPREAD_STEPS_PPM)
_CLASSES = frozenset(int(c) for c in EvidenceClass)
_GAP_REASONS = frozenset(int(r) for r in GapReason)
_NOTICES = frozenset(int(k) for k in NoticeKind)
_GAP = int(EvidenceClass.GAP)
_ALL_BITS = sum(int(bit) for bit in Measured)
#: Position in SUM_FIELDS -> the bit that says whether the number was read.
_BIT_OF = {
    "sm_active_cycles": Measured.SM_ACTIVE,
    "hmma_cycles": Measured.HMMA,
    "imma_cycles": Measured.IMMA,
    "dmma_cycles": Measured.DMMA,
    "tensor_other_cycles": Measured.TENSOR_OTHER,
    "fp64_cycles": Measured.FP64,
    "fp32_cycles": Measured.FP32,
    "fp16_cycles": Measured.FP16,
    "int_cycles": Measured.INT,
    "energy_mj": Measured.ENERGY,
}
_NUMBERS = attrgetter(*SUM_FIELDS)
_BITS = tuple((i, int(_BIT_OF[name])) for i, name in enumerate(SUM_FIELDS) if name in _BIT_OF)


class Implausible(ContractError):  # noqa: N818 - named as the refusal is
    """Well formed, and no device can have counted it."""


class DeviceBounds(NamedTuple):
    """What a device can have counted; made once per inventory, read once per row."""

    model_no: int
    cycles_per_us: int  # most SM-cycles in 1,000 ns, 2 % included
    slack: int  # SM-cycles x 1,000 that one late reading may add
    divided: bool = False  # a GPU cut into MIG instances: its SMs are metered there, so its gap has no price


class LocalKey(NamedTuple):
    """books.GroupKey before the workload has its number: the index into this batch's workloads."""

    workload_index: int
    model_no: int
    evidence_class: int
    measured: int
    spread_ppm: int
    gap_reason: int


#: (evidence class, measured, spread, gap reason) combinations found valid -> positions that must be 0.
_VALID: dict[tuple[int, int, int, int], tuple[int, ...]] = {}
_VALID_MAX = 4_096


def device_bounds(device: Device, model_no: int, parents: frozenset[str] = frozenset()) -> DeviceBounds:
    """Bounds of `device`; `parents` are the GPUs of its inventory that are cut into MIG instances.

    With sm_count 0 (not known) no cycle can have been metered.
    """
    per_us = device.sm_count * MAX_SM_CLOCK_MHZ * (1_000_000 + ELAPSED_SLACK_PPM) // 1_000_000
    slack = device.sm_count * MAX_SM_CLOCK_MHZ * ELAPSED_SLACK_NS
    return DeviceBounds(model_no, per_us, slack, device.entity in parents)


def divided(inventory: Inventory) -> frozenset[str]:
    """The GPUs of an inventory that are cut into MIG instances."""
    return frozenset(d.parent for d in inventory.devices if d.mig and d.parent)


_STOPPED = int(NoticeKind.AGENT_STOPPED)
_FLAGS = frozenset({int(NoticeKind.CROSS_CHECK), int(NoticeKind.LOG_CONTRADICTION)})


#: batch.proto's Switch; a number that is not known here says "not known".
class BatchView:
    """A parsed payload. `groups` checks it whole; nothing of it may be used before that returned."""

    __slots__ = (
        "_message",
        "_notices",
        "entities",
        "inventory_digest",
        "stopped",
        "told_ns",
        "window_end_boot_ns",
        "window_end_unix_ns",
        "window_start_boot_ns",
        "window_start_unix_ns",
    )

    def __init__(self, payload: bytes) -> None:
        """Raises ContractError if `payload` is not a Batch or names impossible times."""
        self._message = message = parse_batch(payload)
        self.inventory_digest: bytes = message.inventory_digest
        self.window_start_boot_ns: int = message.window_start_boot_ns
        self.window_end_boot_ns: int = message.window_end_boot_ns
        self.window_start_unix_ns: int = message.window_start_unix_ns
        self.window_end_unix_ns: int = message.window_end_unix_ns
        self._notices = message.notices or ()
        #: Whether the agent says that this is its last record before a stop on purpose.
        self.stopped = bool(self._notices) and any(n.kind == _STOPPED for n in self._notices)
        #: Indices of the entities with usage, and the most time of any (decide.told_ns); known after `groups`.
        self.entities: set[int] = set()
        self.told_ns = self.window_end_boot_ns - self.window_start_boot_ns
        _check_window(self)
        check_label("agent_version", message.agent_version)

    def workload_keys(self) -> list[bytes]:
        """Bytes that name each workload of the batch; equal bytes are equal workloads."""
        return [w.SerializeToString() for w in self._message.workloads]

    def workload(self, index: int) -> Workload:
        """The workload at `index`, checked. Raises ContractError."""
        return decode_workload(self._message.workloads[index], index)

    def groups(self, devices: Sequence[DeviceBounds]) -> dict[LocalKey, Sums]:
        """Check every field against the contract and `devices`; add the rows up by group.

        Raises ContractError (malformed) or Implausible. Workloads themselves are checked by `workload`.
        """
        message = self._message
        rows = message.usage
        if len(rows) > MAX_ROWS:
            raise ContractError(f"usage: expected at most {MAX_ROWS} rows, got {len(rows)}")
        if len(message.workloads) > MAX_WORKLOADS:
            raise ContractError(f"workloads: expected at most {MAX_WORKLOADS}, got {len(message.workloads)}")
        by_key: dict[tuple[int, int, int, int, int, int], list[tuple[int, ...]]] = {}
        spent: dict[int, int] = {}
        others = False
        # Most rows of a batch are of devices alike and as long as each other: their bound is worked out once.
        device, length = None, -1
        for row in rows:
            entity, numbers = row.entity_index, _NUMBERS(row)
            duration, elapsed, energy = numbers[0], numbers[1], numbers[11]
            try:
                bounds = devices[entity]
            except IndexError:
                raise ContractError(
                    f"usage: entity_index {entity} points past the inventory's {len(devices)} devices"
                ) from None
            if bounds is not device or duration != length:
                device, length = bounds, duration
                model_no, cycles_per_us, slack, parent = bounds
                most = (duration * cycles_per_us + slack) // 1_000 if duration <= MAX_BRIDGE_NS else -1
            busiest = max(numbers[2:11])
            if (
                elapsed > most
                or (busiest > elapsed and busiest > elapsed + elapsed // 200 + PIPE_SLACK_CYCLES)
                or (
                    energy > _ANY_TIME_MJ
                    and energy * 1_000_000 > (duration + ENERGY_SLACK_NS) * MAX_DEVICE_WATTS
                )
            ):
                if not row.measured & OTHERS:
                    _say_why_implausible(entity, numbers, cycles_per_us, slack)
                others = True
            evidence_class = row.evidence_class
            if not elapsed and duration and cycles_per_us and evidence_class == _GAP and not parent:
                raise ContractError(
                    f"usage of entity {entity}: a gap of {duration} ns must state the most SM-cycles that can "
                    "have elapsed, got 0; a gap is never priced at nothing"
                )
            key = (row.workload_index, model_no, evidence_class, row.measured, row.spread_ppm, row.gap_reason)
            same = by_key.get(key)
            if same is None:
                by_key[key] = [numbers]
            else:
                same.append(numbers)
            spent[entity] = spent.get(entity, 0) + duration
        self.entities = set(spent)
        self.told_ns = max(self.told_ns, *spent.values(), 0)
        if others and (fault := fault_in_others(rows, PIPE_SLACK_CYCLES)):
            raise Implausible(fault)
        workloads = len(message.workloads)
        result: dict[LocalKey, Sums] = {}
        for key, lines in by_key.items():
            sums = list(lines[0]) if len(lines) == 1 else list(map(sum, zip(*lines, strict=True)))
            if key[0] >= workloads:
                raise ContractError(f"usage: workload_index {key[0]} points past {workloads} workloads")
            _check_group(key[2:], sums)
            result[LocalKey._make(key)] = sums
        if self._notices or message.anchors or message.progress:
            _check_asides(message, len(devices))
        return result

    @property
    def flags(self) -> list[Notice]:
        """Notices that may become events of their own."""
        return [decode_notice(n) for n in self._notices if n.kind in _FLAGS] if self._notices else []

    @property
    def progress(self) -> list[Progress]:
        """Claims of training code; checked by `groups`."""
        claims = self._message.progress
        return [decode_progress(p) for p in claims] if claims else []

    @property
    def usage(self) -> Sequence[Any]:
        """The rows as they came; they have the fields of contract.usage.Usage."""
        return self._message.usage


def _check_window(view: BatchView) -> None:
    start, end = view.window_start_boot_ns, view.window_end_boot_ns
    if start > end or end > _MAX_NS or end - start > MAX_BRIDGE_NS:
        raise ContractError(f"window: expected boot-time start <= end within 400 days, got {start} … {end}")
    first, last = view.window_start_unix_ns, view.window_end_unix_ns
    if not (0 < first <= _MAX_NS and 0 < last <= _MAX_NS):  # a stepped clock may put first past last
        raise ContractError(f"window: expected wall-clock times in 1 … 2^63-1 ns, got {first} … {last}")
    if len(view.inventory_digest) != 32:
        raise ContractError(f"inventory_digest: expected 32 bytes, got {len(view.inventory_digest)}")


def _check_group(kind: tuple[int, ...], sums: Sums) -> None:
    """Check what all rows of a group share. Numbers are never negative, so their sums show any non-zero."""
    evidence_class, measured, spread_ppm, gap_reason = kind
    zeros = _VALID.get((evidence_class, measured, spread_ppm, gap_reason))
    if zeros is None:
        zeros = _zeros(evidence_class, measured, spread_ppm, gap_reason)
    for i in zeros:
        if sums[i]:
            raise ContractError(
                f"usage: {SUM_FIELDS[i]} is {sums[i]}, but measured ({measured:#x}) says it was not read, or "
                "that others did it; such a number must be 0"
            )


def _zeros(evidence_class: int, measured: int, spread_ppm: int, gap_reason: int) -> tuple[int, ...]:
    if evidence_class not in _CLASSES:
        raise ContractError(f"usage: evidence_class {evidence_class} is not known")
    if measured & ~_ALL_BITS:
        raise ContractError(f"usage: measured has unknown bits: {measured:#x}")
    if spread_ppm not in _SPREADS:
        raise ContractError(f"usage: spread_ppm {spread_ppm} is not one of {SPREAD_STEPS_PPM}")
    if gap_reason not in _GAP_REASONS:
        raise ContractError(f"usage: gap_reason {gap_reason} is not known")
    if (evidence_class == _GAP) != (gap_reason != 0):
        raise ContractError(
            f"usage: expected a gap reason for gaps and only for gaps, got class {evidence_class}, "
            f"reason {gap_reason}"
        )
    if fault := fault_in_marks(evidence_class, measured):
        raise ContractError(fault)
    zeros = tuple(i for i, bit in _BITS if not measured & bit) + (NOT_OF_OTHERS if measured & OTHERS else ())
    if len(_VALID) >= _VALID_MAX:
        _VALID.clear()
    _VALID[evidence_class, measured, spread_ppm, gap_reason] = zeros
    return zeros


def _say_why_implausible(entity: int, numbers: tuple[int, ...], cycles_per_us: int, slack: int) -> None:
    duration, elapsed = numbers[0], numbers[1]
    where = f"usage of entity {entity} over {duration} ns"
    if duration > MAX_BRIDGE_NS:
        raise Implausible(f"{where}: expected at most {MAX_BRIDGE_NS} ns")
    most = (duration * cycles_per_us + slack) // 1_000
    if elapsed > most:
        raise Implausible(f"{where}: expected at most {most} elapsed SM-cycles, got {elapsed}")
    limit = elapsed + elapsed // 200 + PIPE_SLACK_CYCLES
    for name, number in zip(SUM_FIELDS[2:11], numbers[2:11], strict=True):
        if number > limit:
            raise Implausible(f"{where}: {name} {number} exceed the {elapsed} elapsed by more than 0.5 %")
    raise Implausible(f"{where}: {numbers[11]} mJ is more than {MAX_DEVICE_WATTS} W")


def _check_asides(message: batch_pb2.Batch, devices: int) -> None:
    """Anchors and notices: kept in the record as evidence; checked so that every reader can rely on them."""
    if len(message.anchors) > MAX_ANCHORS or len(message.notices) > MAX_NOTICES:
        raise ContractError(
            f"expected at most {MAX_ANCHORS} anchors and {MAX_NOTICES} notices, "
            f"got {len(message.anchors)} and {len(message.notices)}"
        )
    for anchor in message.anchors:
        if anchor.entity_index >= devices:
            raise ContractError(f"anchor: entity_index {anchor.entity_index} points past {devices} devices")
        if len(anchor.counter_ids) != len(anchor.counter_values):
            raise ContractError(
                f"anchor: expected as many values as ids, got {len(anchor.counter_values)} "
                f"for {len(anchor.counter_ids)}"
            )
        if anchor.k_ppm and len(anchor.k_ppm) != len(anchor.counter_ids):
            raise ContractError(
                f"anchor: expected no k_ppm or one for each id, got {len(anchor.k_ppm)} "
                f"for {len(anchor.counter_ids)}"
            )
        if len(set(anchor.counter_ids)) != len(anchor.counter_ids):
            raise ContractError("anchor: expected each counter once")
    for notice in message.notices:
        if notice.kind not in _NOTICES:
            raise ContractError(f"notice: kind {notice.kind} is not known")
        if notice.entity_index_plus_one > devices:
            raise ContractError(
                f"notice: entity {notice.entity_index_plus_one - 1} is past {devices} devices"
            )
        if len(notice.detail) > MAX_TEXT_CHARS:
            raise ContractError(f"notice: expected at most {MAX_TEXT_CHARS} characters of detail")
    if message.progress:
        _check_progress(message)


def _check_progress(message: batch_pb2.Batch) -> None:
    if len(message.progress) > MAX_PROGRESS:
        raise ContractError(f"expected at most {MAX_PROGRESS} progress claims, got {len(message.progress)}")
    for claim in message.progress:
        if claim.workload_index >= len(message.workloads):
            raise ContractError(
                f"progress: workload_index {claim.workload_index} points past {len(message.workloads)} workloads"
            )
        if not 0 < claim.t_unix_ns <= _MAX_NS or claim.t_boot_ns > _MAX_NS:
            raise ContractError(f"progress: expected times in 1 … 2^63-1 ns, got {claim.t_unix_ns}")


def checkpoint(
    note: bytes, consistency: Sequence[bytes], covered_seq: int, vkey: str
) -> ingest_pb2.Checkpoint:
    """What an agent is told of the log's head (heads.Told)."""
    return ingest_pb2.Checkpoint(note=note, consistency=consistency, covered_seq=covered_seq, vkey=vkey)


def pushback(reason: int, message: str, retry_after_ms: int, resume_seq: int = 0) -> ingest_pb2.Pushback:
    """Not now (decide.PushedBack)."""
    return ingest_pb2.Pushback(
        reason=reason,  # type: ignore[arg-type]
        retry_after_ms=retry_after_ms,
        resume_seq=resume_seq,
        message=message,
    )


def refusal(code: int, message: str, seq: int = 0, resume_seq: int = 0) -> ingest_pb2.Refusal:
    """Never (decide.Refused): of one record, or of the whole stream (seq 0)."""
    return ingest_pb2.Refusal(
        code=code,  # type: ignore[arg-type]
        seq=seq,
        resume_seq=resume_seq,
        message=message,
    )
