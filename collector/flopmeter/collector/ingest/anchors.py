"""Usage against the raw counters that agents quote: what lies between two anchors must be in the books. Pure.

An interval belongs to the window in which it ends, and an anchor stands at a reading inside a window. So
the counters' difference between two anchors of one epoch, times their k, is at least what the windows between them
hold, and at most that plus what the two windows hold in which the anchors stand. What others did beside an
apportioned row (Measured.OTHERS) is no part of the entity's own numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from operator import attrgetter

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import ALL_MEASURED, Anchor, Batch, Device, Inventory, Measured

#: GPM counter id -> (place in SUM_FIELDS, the bit that says it was read); reference/metering.md section 3.
#: Left out: 250 (any tensor, less the rest and its noise), 251 and 254 (the larger of two, per interval).
_COUNTERS = {
    248: ("sm_elapsed_cycles", Measured(0)),
    249: ("sm_active_cycles", Measured.SM_ACTIVE),
    252: ("hmma_cycles", Measured.HMMA),
    253: ("imma_cycles", Measured.IMMA),
    257: ("int_cycles", Measured.INT),
    258: ("fp64_cycles", Measured.FP64),
    259: ("fp32_cycles", Measured.FP32),
    260: ("fp16_cycles", Measured.FP16),
}
_PLACES = {number: (SUM_FIELDS.index(name), name, bit) for number, (name, bit) in _COUNTERS.items()}
_NUMBERS = attrgetter(*SUM_FIELDS)

_ONE = 1_000_000  # k in parts per million

Fault = tuple[str, str, str]  # column, expected, got


@dataclass(slots=True)
class _Since:
    """What the books hold of one entity since its last anchor."""

    anchor: Anchor
    boot_id: bytes
    inner: list[int]  # windows that began at or after the anchor
    outer: list[int]  # those, and the window in which the anchor stands
    measured: Measured = ALL_MEASURED  # read in every row
    sound: bool = True  # only A1 rows: nothing was estimated, nothing is a gap
    whole: bool = True  # each window began where the one before ended

    def add(self, rows: "_Rows", batch: Batch, *, own: bool = False) -> None:
        """Add the entity's rows of `batch`; `own`: it quotes the anchor, and may hold usage from before it.

        So it may even where it begins at the anchor: a reading at the very end of a window is in the next one.
        """
        if batch.window_end_boot_ns <= self.anchor.t_boot_ns:
            return
        self.measured &= rows.measured
        self.sound = self.sound and rows.sound
        _into(self.outer, rows.sums)
        if batch.window_start_boot_ns >= self.anchor.t_boot_ns and not own:
            _into(self.inner, rows.sums)


@dataclass(slots=True)
class _Rows:
    """One entity's rows of one batch, added up."""

    sums: list[int]
    measured: Measured = ALL_MEASURED
    sound: bool = True


class AnchorCheck:
    """Feed it every batch in order; it names the first anchor that the usage before it contradicts."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, str], _Since] = {}
        self._ends: dict[int, tuple[bytes, int]] = {}  # by agent: boot, and where its last window ended
        self.compared = 0  # pairs of anchors

    def forget(self, agent_no: int) -> None:
        """Records of this agent were lost: nothing can be said until its next anchors."""
        for key in [k for k in self._since if k[0] == agent_no]:
            del self._since[key]

    def take(self, agent_no: int, boot_id: bytes, batch: Batch, inventory: Inventory) -> Fault | None:
        """Add one batch; the fault in its anchors, if there is one."""
        if self._ends.get(agent_no) != (boot_id, batch.window_start_boot_ns):
            # Time that is in no window (its record was refused for good, the agent had lost its state) is missing
            # in the books by name. What they hold of the rest is still at most what the counters say.
            for (agent, _), known in self._since.items():
                known.whole = known.whole and agent != agent_no
        self._ends[agent_no] = boot_id, batch.window_end_boot_ns
        anchors: dict[int, list[Anchor]] = {}
        for anchor in batch.anchors:
            anchors.setdefault(anchor.entity_index, []).append(anchor)
        for index, rows in self._rows(agent_no, batch, inventory, anchors).items():
            device = inventory.devices[index]
            key = (agent_no, device.entity)
            since = self._since.get(key)
            if since is not None and since.boot_id != boot_id:
                since = None  # boot time started again
                del self._since[key]
            if since is not None:
                in_full = replace(since, inner=since.inner.copy(), outer=since.outer.copy())
                in_full.add(rows, batch)
            for anchor in sorted(anchors.get(index, ()), key=lambda a: a.t_boot_ns):
                if since is not None and _comparable(since.anchor, anchor):
                    inner = in_full.inner if batch.window_end_boot_ns <= anchor.t_boot_ns else since.inner
                    self.compared += 1
                    fault = _fault(in_full, inner, anchor, device)
                    if fault is not None:
                        return fault
                since = self._since[key] = _Since(
                    anchor, boot_id, [0] * len(SUM_FIELDS), [0] * len(SUM_FIELDS)
                )
                in_full = _Since(anchor, boot_id, since.inner.copy(), since.outer.copy())
                in_full.add(rows, batch, own=True)
            if since is not None:
                self._since[key] = in_full
        return None

    def _rows(
        self, agent_no: int, batch: Batch, inventory: Inventory, anchors: dict[int, list[Anchor]]
    ) -> dict[int, _Rows]:
        """Rows of each entity that has an anchor, in this batch or before."""
        found = {i: _Rows([0] * len(SUM_FIELDS)) for i in anchors}
        for row in batch.usage:
            if row.measured & Measured.OTHERS:
                continue  # the shares beside it add up to the entity's counters
            rows = found.get(row.entity_index)
            if rows is None:
                if (agent_no, inventory.devices[row.entity_index].entity) not in self._since:
                    continue
                rows = found[row.entity_index] = _Rows([0] * len(SUM_FIELDS))
            _into(rows.sums, _NUMBERS(row))
            rows.measured &= row.measured
            rows.sound = rows.sound and row.evidence_class is EvidenceClass.A1
        return found


def _into(into: list[int], numbers: Iterable[int]) -> None:
    for i, number in enumerate(numbers):
        into[i] += number


def _comparable(before: Anchor, anchor: Anchor) -> bool:
    return (
        anchor.epoch == before.epoch
        and anchor.scale == before.scale
        and anchor.k_ppm == before.k_ppm
        and anchor.scale > 0
        and anchor.t_boot_ns > before.t_boot_ns
    )


def _fault(since: _Since, inner: list[int], anchor: Anchor, device: Device) -> Fault | None:
    if not since.sound or not device.sm_count:
        return None
    before = dict(since.anchor.counters)
    k_ppm = dict(zip((n for n, _ in anchor.counters), anchor.k_ppm, strict=False))
    for number, counter in anchor.counters:
        place, name, bit = _PLACES.get(number, (-1, "", Measured(0)))
        if place < 0 or number not in before or bit not in since.measured:
            continue
        k = k_ppm.get(number, _ONE)
        grown = (counter - before[number]) * device.sm_count * k // (anchor.scale * _ONE)
        slack = int(k != _ONE)  # the fraction of a cycle that the agent carries from interval to interval
        missing = since.whole and grown > since.outer[place] + slack
        if missing or grown < inner[place] - slack:
            between = f"its anchors at {since.anchor.t_boot_ns} and {anchor.t_boot_ns} ns"
            return (
                f"usage of {device.entity}, {name}, against {between}",
                f"counter {number} grew by {grown} SM-cycles",
                f"{inner[place]} to {since.outer[place]} in the windows between",
            )
    return None
