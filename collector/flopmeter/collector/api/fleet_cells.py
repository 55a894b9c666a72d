"""How each GPU of a node stood in its agent's last window, a letter each; and the fleet's rows in few bytes. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from flopmeter.collector.clock_offset import Offset
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import Batch, Inventory, WorkloadKind

#: Worst first: a GPU that is cut is as its worst part.
WORST_FIRST = "xsguDCB3Ai?"
_OF_CLASS = {
    EvidenceClass.A1: "A",
    EvidenceClass.A2: "A",
    EvidenceClass.A3: "3",
    EvidenceClass.B1: "B",
    EvidenceClass.B2: "B",
    EvidenceClass.C: "C",
    EvidenceClass.D: "D",
    EvidenceClass.GAP: "g",
}
_OF_HOLDER = {WorkloadKind.IDLE: "i", WorkloadKind.UNATTRIBUTED: "u"}
SILENT, UNSUPPORTED, UNKNOWN = "s", "x", "?"
_MS_NS = 1_000_000
#: Clocks of a fleet that keeps time are told by a letter each: two numbers for each of 12,500 would be 70 kB.
WITHIN_MS = dict(zip("abcdefghij", (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000), strict=True))
FURTHER, NOT_KNOWN = "!", "-"
#: Surely further off than this: in numbers, whatever letter would do.
SAID_ABOVE_MS = 20


def entity_codes(inventory: Inventory, batch: Batch) -> list[str]:
    """A letter for each device of the inventory, by what most of its last window was."""
    classes: list[dict[EvidenceClass, int]] = [{} for _ in inventory.devices]
    holders: list[dict[WorkloadKind, int]] = [{} for _ in inventory.devices]
    for u in batch.usage:
        if u.entity_index >= len(classes):
            continue
        by_class, by_kind = classes[u.entity_index], holders[u.entity_index]
        by_class[u.evidence_class] = by_class.get(u.evidence_class, 0) + u.duration_ns
        kind = batch.workloads[u.workload_index].kind
        by_kind[kind] = by_kind.get(kind, 0) + u.duration_ns
    found = []
    for by_class, by_kind in zip(classes, holders, strict=True):
        if not by_class:
            found.append(UNKNOWN)
            continue
        longest = max(by_class, key=lambda c: (by_class[c], -c))
        holder = max(by_kind, key=lambda k: (by_kind[k], -k))
        code = _OF_CLASS[longest]
        found.append(code if code == "g" else _OF_HOLDER.get(holder, code))
    return found


def gpu_codes(inventory: Inventory, codes: Sequence[str]) -> str:
    """A letter for each GPU, in the inventory's order; then one for each card that nothing meters."""
    by_gpu: dict[str, str] = {}
    cut = {d.parent for d in inventory.devices if d.parent}
    for device, code in zip(inventory.devices, codes, strict=True):
        name = device.parent or device.entity
        if device.entity in cut:
            by_gpu.setdefault(name, UNKNOWN)  # its parts say
            continue
        old = by_gpu.get(name, UNKNOWN)
        by_gpu[name] = min(old, code, key=WORST_FIRST.index)
    return "".join(by_gpu.values()) + UNSUPPORTED * len(inventory.uncovered)


class NodeRow(NamedTuple):
    """One agent's node, as the map shows it."""

    node: str
    status: str  # a letter
    gpus: str
    cluster: str
    version: str
    model: str
    marks: str
    window_end_s: int | None
    delay_s: int | None
    clock: Offset | None


def packed(rows: Sequence[NodeRow]) -> dict[str, Any]:
    """`rows` of GET /fleet: by column, what is often the same by its number, names without what the one before had."""
    newest = max((r.window_end_s for r in rows if r.window_end_s is not None), default=None)
    return {
        "count": len(rows),
        "names": front_coded(r.node for r in rows),
        "status": "".join(r.status for r in rows),
        **{
            name: _numbered(getattr(r, name) for r in rows)
            for name in ("gpus", "cluster", "version", "model", "marks")
        },
        "newest": newest,
        "behind": [
            None if r.window_end_s is None or newest is None else newest - r.window_end_s for r in rows
        ],
        "delay": [r.delay_s for r in rows],
        "clock": "".join(map(clock_code, (r.clock for r in rows))),
        "offset": [
            [i, *around_ms(r.clock)]
            for i, r in enumerate(rows)
            if r.clock is not None and clock_code(r.clock) == FURTHER
        ],
    }


def clock_code(clock: Offset | None) -> str:
    """A letter for how near the collector's it surely is; FURTHER for what has to be said in numbers."""
    if clock is None:
        return NOT_KNOWN
    if clock.surely_ns > SAID_ABOVE_MS * _MS_NS:
        return FURTHER
    most_ms = -(-max(abs(clock.lower_ns), abs(clock.upper_ns)) // _MS_NS)
    return next((code for code, ms in WITHIN_MS.items() if most_ms <= ms), FURTHER)


def around_ms(clock: Offset) -> tuple[int, int]:
    """A middle and a distance from it, whole milliseconds, between which all of the interval lies."""
    middle = (clock.lower_ns + clock.upper_ns) // 2_000_000
    return middle, -(-max(clock.upper_ns - middle * _MS_NS, middle * _MS_NS - clock.lower_ns) // _MS_NS)


def codes_of(rows: Iterable[NodeRow]) -> dict[str, int]:
    """How many GPUs of the fleet have each letter."""
    found: dict[str, int] = {}
    for gpus, nodes in Counter(r.gpus for r in rows).items():
        for code in gpus:
            found[code] = found.get(code, 0) + nodes
    return found


def front_coded(names: Iterable[str]) -> list[int | str]:
    """Two a name: how many characters it shares with the one before, and the rest of it."""
    found: list[int | str] = []
    last = ""
    for name in names:
        same = 0
        for a, b in zip(last, name, strict=False):
            if a != b:
                break
            same += 1
        found += (same, name[same:])
        last = name
    return found


def _numbered(values: Iterable[str]) -> dict[str, Any]:
    """`of` None: it is the same of all."""
    numbers: dict[str, int] = {}
    of = [numbers.setdefault(value, len(numbers)) for value in values]
    return {"values": list(numbers), "of": of if len(numbers) > 1 else None}
