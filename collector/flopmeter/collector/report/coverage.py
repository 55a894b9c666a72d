"""Coverage of the fleet: device-seconds expected, observed and gap, and which GPUs do not report, since when. Pure.

Expected is what the inventories and the operator's own list say must exist; observed is what the books hold a reading
of. Every second of the difference stands under a reason: nothing about coverage is ever silent (DESIGN.md section 3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flopmeter.collector.spelling import time_text
from flopmeter.contract.usage import GapReason, Uncovered

from .expected import ExpectedNode
from .fleet import AgentState

_SECOND_NS = 1_000_000_000


class Missing(StrEnum):
    """Why GPUs that exist do not report. The values are JSON's."""

    SILENT = "silent"  # its agent was heard, and is not any more
    STOPPED = "stopped"  # its agent said that it stops, and did not come back
    NEVER = "never-reported"  # its agent was admitted, and nothing of it came
    UNCOVERED = "uncovered"  # on a node that reports, and nothing there meters it
    EXPECTED = "expected"  # the operator says that the node exists; no agent ever spoke of it
    FEWER = "fewer-than-expected"  # the node reports fewer GPUs than the operator says it has


@dataclass(frozen=True, slots=True)
class NotReporting:
    """Some GPUs of one node. `gpus` None: nobody knows how many."""

    node: str
    cause: Missing
    gpus: int | None
    since_unix_ns: int | None  # None = not known
    what: str  # for people: the model, and why
    missing_ns: int = 0  # device time that is expected of them and is in no book

    def document(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "cause": self.cause.value,
            "gpus": self.gpus,
            "since": time_text(self.since_unix_ns) if self.since_unix_ns is not None else None,
            "what": self.what,
            "missing_device_seconds": self.missing_ns / _SECOND_NS,
        }


@dataclass(frozen=True, slots=True)
class Booked:
    """Device time in the books: all of it, and the gaps by reason. Times are ns."""

    whole_ns: int
    gaps_ns: Mapping[GapReason, int]

    @property
    def gap_ns(self) -> int:
        return sum(self.gaps_ns.values())


def not_reporting(
    agents: Iterable[AgentState],
    expected: Iterable[ExpectedNode],
    known_since: Mapping[tuple[str, str], int],
    taken_over: Mapping[tuple[str, str], int],
    *,
    now_unix_ns: int,
) -> list[NotReporting]:
    """GPUs known to exist and not reporting, by node.

    `known_since`: (agent id, name of an uncovered card) -> when the collector first heard of it.
    `taken_over`: (agent id, entity) -> since when another agent meters it.
    """
    agents = list(agents)
    wanted = {node.name: node for node in expected}
    found: list[NotReporting] = []
    for agent in agents:
        node = wanted.get(agent.node)
        gone = node.gone_unix_ns if node is not None else None
        found += _of_agent(agent, known_since, taken_over, now_unix_ns if gone is None else gone)
    found += _of_list(agents, wanted, now_unix_ns)
    return sorted(found, key=lambda f: (f.node, f.cause, f.what))


def name_of(card: Uncovered) -> str:
    """What tells it from the node's others: its PCI address, or the UUID that the scheduler knows it by."""
    return card.pci_address or card.model


def _of_agent(
    agent: AgentState,
    known_since: Mapping[tuple[str, str], int],
    taken_over: Mapping[tuple[str, str], int],
    end_unix_ns: int,
) -> Iterable[NotReporting]:
    """What of one agent's node does not report; its time is expected until `end_unix_ns`: now, or out of service."""
    status = agent.status(end_unix_ns)
    inventory = agent.inventory
    since = agent.window_end_unix_ns
    if not agent.last_seq:
        if agent.admitted_unix_ns < end_unix_ns:
            yield NotReporting(
                agent.node, Missing.NEVER, None, agent.admitted_unix_ns, "admitted, no record yet"
            )
        return
    if inventory is None or since > end_unix_ns:
        return
    if agent.over and not agent.stopped:
        return  # a recording: its node is not one of this fleet
    if status in ("silent", "stopped"):
        # What another agent meters now is no longer this one's to report: a node set up anew has a new key.
        left = [d for d in inventory.devices if (agent.agent_id, d.entity) not in taken_over]
        cut = {d.parent for d in left if d.parent}
        gpus = len({d.parent or d.entity for d in left})
        if gpus:
            models = ", ".join(sorted({d.name for d in left}))
            missing_ns = (end_unix_ns - since) * sum(d.entity not in cut for d in left)
            yield NotReporting(agent.node, Missing(status), gpus, since, models, missing_ns)
        if len(left) < len(inventory.devices):
            return  # its cards are the other agent's to tell of, too
    for card in inventory.uncovered:
        begun = known_since.get((agent.agent_id, name_of(card)))
        what = f"{card.vendor} {card.model}: {card.reason}"
        missing_ns = 0 if begun is None else max(0, end_unix_ns - begun)
        yield NotReporting(agent.node, Missing.UNCOVERED, 1, begun, what, missing_ns)


def _of_list(
    agents: Iterable[AgentState], wanted: Mapping[str, ExpectedNode], now_unix_ns: int
) -> Iterable[NotReporting]:
    spoken: dict[str, int] = {}
    for agent in agents:
        if agent.inventory is not None:
            known = len({d.parent or d.entity for d in agent.inventory.devices}) + len(
                agent.inventory.uncovered
            )
            spoken[agent.node] = max(spoken.get(agent.node, 0), known)
    for node in wanted.values():
        short = node.gpus - spoken.get(node.name, 0)
        if short <= 0 or (node.gone_unix_ns is not None and node.gone_unix_ns <= now_unix_ns):
            continue
        never = node.name not in spoken
        what = (
            "no agent ever reported" if never else f"{spoken[node.name]} of {node.gpus} are in its inventory"
        )
        since = node.since_unix_ns
        missing_ns = 0 if since is None else max(0, now_unix_ns - since) * short
        yield NotReporting(
            node.name, Missing.EXPECTED if never else Missing.FEWER, short, since, what, missing_ns
        )


def coverage_document(booked: Booked, missing: Iterable[NotReporting]) -> dict[str, Any]:
    """`fleet list --json`, under "coverage": expected = observed + gap, and the gap is the sum of `gaps`."""
    gaps_ns = {reason.label: ns for reason, ns in booked.gaps_ns.items() if ns}
    for m in missing:
        if m.missing_ns:
            gaps_ns[m.cause.value] = gaps_ns.get(m.cause.value, 0) + m.missing_ns
    gap_ns = sum(gaps_ns.values())
    observed_ns = booked.whole_ns - booked.gap_ns
    return {
        "expected_device_seconds": (observed_ns + gap_ns) / _SECOND_NS,
        "observed_device_seconds": observed_ns / _SECOND_NS,
        "gap_device_seconds": gap_ns / _SECOND_NS,
        "gaps": {name: ns / _SECOND_NS for name, ns in sorted(gaps_ns.items(), key=lambda g: -g[1])},
    }
