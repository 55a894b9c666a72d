"""Nodes and GPUs: what is metered, how well, since when not, and what was lost. Pure.

What is said per node is read from its agent's latest record; what is said of the fleet is from the totals.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from flopmeter.collector.clock_offset import OFF_NS, STEPS_NS, Offset
from flopmeter.collector.spelling import time_text
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import (
    NO_LIBRARY,
    Batch,
    Inventory,
    Library,
    Measured,
    NoticeKind,
    Usage,
    WorkloadKind,
)

#: An agent that has not been heard of for five default windows (or three of its own) is silent, not late.
SILENT_AFTER_NS = 300_000_000_000
_SILENT_WINDOWS = 3
#: What inventories call the source of a recording that is played again (flopmeter replay).
_RECORDING = "trace"
#: A recording of an exporter keeps the exporter's name: it is known by coming so long after it happened.
_RECORDED_OF_EXPORTER = "dcgm"
_RECORDED_AGO_NS = 86_400_000_000_000
#: Nodes whose clocks are named in the fleet's totals; each node's own is beside the node.
MAX_FURTHEST = 20
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class AgentState:
    """One admitted agent with its latest record. `fault` says why that could not be decoded."""

    agent_id: str
    node: str
    version: str
    admitted_how: str
    admitted_unix_ns: int
    last_seq: int  # 0 = no record yet
    window_end_unix_ns: int
    received_unix_ns: int
    usual_window_ns: int
    conflicts: int
    lost_records: int
    silences: int  # agent.silent events
    silence_open: bool  # the last of them is about now: no record came since
    inventory: Inventory | None
    batch: Batch | None
    fault: str = ""
    clock: Offset | None = None  # how far its wall clock was off when that was measured; None: not known

    @property
    def stopped(self) -> bool:
        """Whether its last record says that it was stopped on purpose."""
        return self.batch is not None and any(n.kind is NoticeKind.AGENT_STOPPED for n in self.batch.notices)

    @property
    def over(self) -> bool:
        """Whether nothing more is to come: stopped on purpose, or a recording of another day that was played."""
        source = self.inventory.source if self.inventory is not None else ""
        late_ns = self.received_unix_ns - self.window_end_unix_ns
        played = source == _RECORDING or (source == _RECORDED_OF_EXPORTER and late_ns > _RECORDED_AGO_NS)
        return self.stopped or played

    def status(self, now_unix_ns: int) -> str:
        """live, stopped, silent, or never (admitted, no record yet)."""
        if not self.last_seq:
            return "never"
        if self.stopped:
            return "stopped"
        late_ns = max(SILENT_AFTER_NS, _SILENT_WINDOWS * self.usual_window_ns)
        return "live" if now_unix_ns - self.window_end_unix_ns < late_ns else "silent"


def fleet_document(
    agents: Iterable[AgentState], unowned: dict[str, Any], all_time_ns: int, *, now_unix_ns: int
) -> dict[str, Any]:
    """`fleet list --json`: totals of the fleet, then one object per node, by name. `unowned`: unowned.py's."""
    agents = list(agents)
    document = fleet_summary(agents, unowned, all_time_ns, now_unix_ns=now_unix_ns)
    odd = odd_nodes(document["library_disagreements"])
    nodes = [node_document(a, now_unix_ns) | {"library_differs": a.node in odd} for a in agents]
    return document | {"nodes": nodes}


def fleet_summary(
    agents: list[AgentState], unowned: dict[str, Any], all_time_ns: int, *, now_unix_ns: int
) -> dict[str, Any]:
    """The totals alone; of an agent's last record nothing is asked but its notices."""
    unattributed_s = unowned["unattributed"]["device_seconds"]
    all_s = all_time_ns / _SECOND_NS
    by_status: dict[str, int] = {}
    for a in agents:
        status = a.status(now_unix_ns)
        by_status[status] = by_status.get(status, 0) + 1
    inventories = [a.inventory for a in agents if a.inventory is not None]
    return {
        "nodes_total": len(agents),
        "nodes_by_status": by_status,
        "gpus": sum(gpus_in(i) for i in inventories),
        "entities": sum(len(i.devices) for i in inventories),
        "uncovered_devices": sum(len(i.uncovered) for i in inventories),
        "library_disagreements": library_disagreements(agents),
        "clocks": clocks_document(agents, now_unix_ns),
        "device_seconds": all_s,
        "idle_device_seconds": unowned["idle"]["device_seconds"],
        "unattributed_device_seconds": unattributed_s,
        "unattributed_share": unattributed_s / all_s if all_s else 0.0,
        "idle": unowned["idle"],
        "unattributed": unowned["unattributed"],
    }


def gpus_in(inventory: Inventory) -> int:
    """Whole GPUs: MIG instances are the one that they are cut from."""
    return len({d.parent or d.entity for d in inventory.devices})


def odd_nodes(disagreements: Iterable[dict[str, Any]]) -> set[str]:
    """Nodes whose library is not the one that most with their driver loaded."""
    return {
        node
        for d in disagreements
        for library in d["libraries"]
        if library["odd"]
        for node in library["nodes"]
    }


def node_document(agent: AgentState, now_unix_ns: int) -> dict[str, Any]:
    """One node as its agent's latest record shows it."""
    devices = agent.inventory.devices if agent.inventory else ()
    usage = agent.batch.usage if agent.batch else ()
    whole_ns = sum(u.duration_ns for u in usage)
    lag_ns = max(0, now_unix_ns - agent.window_end_unix_ns) if agent.last_seq else None
    return {
        "node": agent.node,
        "cluster": agent.inventory.cluster if agent.inventory else "",
        "agent": agent.agent_id,
        "agent_version": agent.version,
        "admitted": agent.admitted_how,
        "status": agent.status(now_unix_ns),
        "gpus": gpus_in(agent.inventory) if agent.inventory else 0,
        "entities": len(devices),
        "models": _models(agent),
        "driver": agent.inventory.driver if agent.inventory else "",
        "source": agent.inventory.source if agent.inventory else "",
        "library": asdict(agent.inventory.library if agent.inventory else NO_LIBRARY),
        "uncovered": [asdict(u) for u in agent.inventory.uncovered] if agent.inventory else [],
        "persistence_off": sum(d.persistence is False for d in devices),
        "confidential": sum(d.confidential is True for d in devices),
        "last_seq": agent.last_seq,
        "last_window_end": time_text(agent.window_end_unix_ns) if agent.last_seq else None,
        "last_received": time_text(agent.received_unix_ns) if agent.last_seq else None,
        "silences": agent.silences,
        "silence_open": agent.silence_open,
        "lag_seconds": lag_ns / _SECOND_NS if lag_ns is not None else None,
        "clock_offset": None if agent.clock is None else offset_document(agent.clock, now_unix_ns),
        "last_window": {
            "classes": _classes(agent),
            "device_seconds": whole_ns / _SECOND_NS,
            "gap_seconds": _seconds(u for u in usage if u.evidence_class is EvidenceClass.GAP),
            "shared_entities": len({u.entity_index for u in usage if u.measured & Measured.APPORTIONED}),
            "idle_seconds": _held_by(agent, WorkloadKind.IDLE),
            "unattributed_seconds": _held_by(agent, WorkloadKind.UNATTRIBUTED),
            "notices": sorted({n.kind.label for n in agent.batch.notices}) if agent.batch else [],
        },
        "conflicts": agent.conflicts,
        "lost_records": agent.lost_records,
        "refused_records": _refused(agent),
        "fault": agent.fault or None,
    }


def offset_document(clock: Offset, now_unix_ns: int) -> dict[str, Any]:
    """The agent's wall clock minus the collector's. `point` is the middle: nothing says that it is likelier."""
    return {
        "lower_seconds": clock.lower_ns / _SECOND_NS,
        "point_seconds": (clock.lower_ns + clock.upper_ns) // 2 / _SECOND_NS,
        "upper_seconds": clock.upper_ns / _SECOND_NS,
        "surely_off": clock.surely_ns > OFF_NS and clock.fresh(now_unix_ns),
        "measured": time_text(clock.measured_unix_ns),
    }


def clocks_document(agents: Iterable[AgentState], now_unix_ns: int) -> dict[str, Any]:
    """How many clocks are surely off by how much, and whose are the furthest: of agents that were measured of late."""
    known = [(a.clock, a.node) for a in agents if a.clock is not None and a.clock.fresh(now_unix_ns)]
    known.sort(key=lambda found: (-found[0].surely_ns, found[1]))
    return {
        "known": len(known),
        "off": [
            {"over_seconds": step // _SECOND_NS, "nodes": sum(c.surely_ns > step for c, _ in known)}
            for step in STEPS_NS
        ],
        "largest_seconds": known[0][0].surely_ns / _SECOND_NS if known else None,
        "furthest": [
            {"node": node, "offset": offset_document(clock, now_unix_ns)}
            for clock, node in known[:MAX_FURTHEST]
            if clock.surely_ns > OFF_NS
        ],
    }


def library_disagreements(agents: Iterable[AgentState]) -> list[dict[str, Any]]:
    """Per driver version of which nodes loaded different NVML libraries: another path, or other bytes.

    All of a driver version come from one package. `odd` are those that are not the most common one, or all
    where none is: any of them may be the altered one (reference/metering.md 6.2). Unknown ones are left out.
    """
    by_driver: dict[str, dict[Library, set[str]]] = {}
    for agent in agents:
        inventory = agent.inventory
        if inventory is not None and (inventory.library.path or inventory.library.sha256):
            library = Library(inventory.library.path, inventory.library.sha256)
            by_driver.setdefault(inventory.driver, {}).setdefault(library, set()).add(agent.node)
    found = []
    for driver, libraries in sorted(by_driver.items()):
        if len(libraries) == 1:
            continue
        ranked = sorted(libraries.items(), key=lambda item: (-len(item[1]), item[0].path, item[0].sha256))
        first, second = (len(nodes) for _, nodes in ranked[:2])
        found.append(
            {
                "driver": driver,
                "differ": [n for n in ("path", "sha256") if len({getattr(k, n) for k in libraries}) > 1],
                "libraries": [
                    {
                        "path": library.path,
                        "sha256": library.sha256,
                        "nodes": sorted(nodes),
                        "odd": first == second or i > 0,
                    }
                    for i, (library, nodes) in enumerate(ranked)
                ],
            }
        )
    return found


def _seconds(rows: Iterable[Usage]) -> float:
    return sum(u.duration_ns for u in rows) / _SECOND_NS


def _held_by(agent: AgentState, kind: WorkloadKind) -> float:
    batch = agent.batch
    if batch is None:
        return 0.0
    return _seconds(u for u in batch.usage if batch.workloads[u.workload_index].kind is kind)


def _models(agent: AgentState) -> dict[str, int]:
    found: dict[str, int] = {}
    for device in agent.inventory.devices if agent.inventory else ():
        name = f"{device.name} MIG" if device.mig else device.name
        found[name] = found.get(name, 0) + 1
    return found


def _classes(agent: AgentState) -> dict[str, int]:
    """Entities by the class that most of their last window was metered in."""
    longest: dict[int, dict[EvidenceClass, int]] = {}
    for u in agent.batch.usage if agent.batch else ():
        by_class = longest.setdefault(u.entity_index, {})
        by_class[u.evidence_class] = by_class.get(u.evidence_class, 0) + u.duration_ns
    found: dict[str, int] = {}
    for by_class in longest.values():
        label = max(by_class, key=lambda c: (by_class[c], -c)).label
        found[label] = found.get(label, 0) + 1
    return dict(sorted(found.items()))


def _refused(agent: AgentState) -> int:
    """Records that the collector refused, as far as the agent's latest record tells."""
    notices = agent.batch.notices if agent.batch else ()
    return sum(1 for n in notices if n.kind is NoticeKind.RECORD_REFUSED)
