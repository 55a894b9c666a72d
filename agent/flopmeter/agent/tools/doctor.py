"""`flopmeter agent doctor`: what of this node can be metered, how well, why not better, and what to change."""

import os
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import NodeFacts, Reading
from flopmeter.agent.sources.node import node_name
from flopmeter.cli.terminal import DEFAULT_COLUMNS
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.usage import Uncovered
from flopmeter.contract.w_table import current

from .advice import TENSOR, Advice, of_device, of_error, of_node, of_uncounted, of_uncovered, unanswered
from .live import Rounds
from .view import NodeView, Shown

#: Rounds looked at: percentages and counters need two.
ROUNDS = 2
#: The inode of the first PID namespace, the same on every Linux (include/linux/proc_ns.h, PROC_PID_INIT_INO).
_HOST_PIDS = "pid:[4026531836]"

_GRADE = {
    EvidenceClass.A1: "exact cycle counters",
    EvidenceClass.A2: "percentages x sampled clock",
    EvidenceClass.A3: "as A1 or A2, not confirmed for this model or source",
    EvidenceClass.B1: "dcgm-exporter with HMMA and IMMA",
    EvidenceClass.B2: "dcgm-exporter, any-tensor only",
    EvidenceClass.C: "an upper bound only",
    EvidenceClass.GAP: "nothing usable",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One entity: its class, and what stands between it and a better one."""

    shown: Shown
    metered: bool  # with a point, not only from above
    advice: tuple[Advice, ...] = ()

    @property
    def grade(self) -> EvidenceClass | None:
        return _expected(self.shown)

    @property
    def bounded(self) -> bool:
        """Metered, or at least bounded from above by what was read."""
        return self.metered or self.grade not in (None, EvidenceClass.GAP)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    facts: NodeFacts
    findings: tuple[Finding, ...]
    node: tuple[Advice, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all is metered as well as it can be, 1 something is missing or could be better, 2 nothing is metered."""
        if not any(f.bounded for f in self.findings):
            return 2
        advice = [*self.node, *(a for f in self.findings for a in f.advice)]
        whole = all(f.metered for f in self.findings) and not self.facts.uncovered
        return 0 if whole and not any(a.change for a in advice) else 1


def examine(rounds: Rounds, *, here: bool = False) -> Diagnosis:
    """Look at the first rounds. An entity is judged by the last interval that it showed.

    `here`: they are read on this node by this process, so that its own surroundings matter.
    """
    view = NodeView(rounds.facts())
    last: dict[str, tuple[Shown, Reading]] = {}
    unseen, told = False, False
    for count, items in enumerate(rounds, start=1):
        readings = {item.entity: item for item in items if isinstance(item, Reading)}
        unseen = unseen or any(p.start_ticks == 0 for r in readings.values() for p in r.processes or ())
        told = told or any(r.processes is not None or r.workload for r in readings.values())
        for shown in view.update(rounds.facts(), items):
            entity = shown.device.entity
            # A first reading alone shows nothing yet, and takes the place of nothing but an error.
            before = last.get(entity)
            if before is not None and before[0].error is not None and shown.error is not None:
                continue  # the first error says what happened, those after it what came of it
            known = before is not None and before[0].error is None
            if not known or _expected(shown) is not None or shown.error is not None:
                last[entity] = shown, _whole(readings[entity], before)
        if count >= ROUNDS:
            break
    facts = rounds.facts()
    found = [_finding(facts, *last[d.entity]) for d in facts.devices if d.entity in last]
    missing = [
        Finding(
            Shown(d, EvidenceClass.GAP, error="no reading"),
            metered=False,
            advice=(Advice("no reading came"),),
        )
        for d in facts.devices
        if d.entity not in last
    ]
    node = of_node(
        facts,
        own_pid_namespace=here and not _host_pids(),
        unseen_processes=here and unseen,
        hidden_processes=here and not os.path.isdir("/proc/1"),  # noqa: PTH112 - of /proc; every kernel has a first one
        no_processes=here and not told and any(shown.error is None for shown, _ in last.values()),
    )
    return Diagnosis(facts, tuple(found + missing), tuple(node))


def _whole(reading: Reading, before: tuple[Shown, Reading] | None) -> Reading:
    """The reading that tells what the source can say: an exporter gives its values once per collection only."""
    if before is not None and reading.error is None and not reading.percent and not reading.cycles:
        return before[1]
    return reading


def _host_pids() -> bool:
    """Whether this process sees the processes of the whole node; True where that cannot be told."""
    try:
        return os.readlink("/proc/self/ns/pid") == _HOST_PIDS  # noqa: PTH115
    except OSError:
        return True


def _expected(shown: Shown) -> EvidenceClass | None:
    """Percentages stand in until the cycle counters' scale is known: the class to come counts."""
    return shown.once_calibrated or shown.evidence_class


def _finding(facts: NodeFacts, shown: Shown, reading: Reading) -> Finding:
    device = shown.device
    if shown.error is not None:
        return Finding(shown, False, (of_error(shown.error),))
    if any(d.parent == device.entity for d in facts.devices):
        return Finding(shown, True, (Advice("cut into MIG instances: metered there, its energy here"),))
    if device.sm_count == 0:
        return Finding(shown, False, (of_uncounted(facts, device),))
    grade = _expected(shown)
    if grade is EvidenceClass.GAP and (reading.cycles or reading.percent) and not shown.silent:
        said = f"what the driver said cannot be true: {shown.note}"
        return Finding(shown, False, (Advice(said, "update the driver"),))
    advice = of_device(facts, device, reading, grade, shown.note)
    metered = grade is not None and grade not in UPPER_ONLY and not unanswered(reading) >= TENSOR
    return Finding(shown, metered, tuple(advice))


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    facts = diagnosis.facts
    return {
        "node": facts.node,
        "source": facts.source,
        "driver": facts.driver,
        "nvml": facts.nvml,
        "w_table": current().id,
        "metered": sum(f.metered for f in diagnosis.findings),
        "entities": len(diagnosis.findings),
        "exit_code": diagnosis.exit_code,
        "findings": [_advice(a) for a in diagnosis.node],
        "uncovered": [_uncovered(u) for u in facts.uncovered],
        "library": {
            "path": facts.library.path or None,
            "sha256": facts.library.sha256 or None,
            "kernel_module": facts.library.kernel_module or None,
        },
        "devices": [_device(f) for f in diagnosis.findings],
    }


def _device(f: Finding) -> dict[str, Any]:
    device = f.shown.device
    return {
        "entity": device.entity,
        "name": device.name,
        "compute_capability": device.compute_capability,
        "sm_count": device.sm_count,
        "mig": device.mig,
        "persistence": device.persistence,
        "confidential": device.confidential,
        "evidence_class": f.grade.label if f.grade else None,
        "metered": f.metered,
        "findings": [_advice(a) for a in f.advice],
        "error": f.shown.error,
    }


def _advice(a: Advice) -> dict[str, Any]:
    return {"why": a.why, "change": a.change or None}


def _uncovered(u: Uncovered) -> dict[str, Any]:
    return {
        "pci_address": u.pci_address,
        "vendor": u.vendor,
        "model": u.model,
        "reason": u.reason,
        "change": of_uncovered(u).change or None,
    }


def to_lines(diagnosis: Diagnosis, width: int = DEFAULT_COLUMNS) -> Iterable[str]:
    """For people: one line an entity, and what is the same for several said once below."""
    facts = diagnosis.facts
    yield from _folded(
        f"{facts.node}: source {facts.source}, driver {facts.driver or 'unknown'}, rates {current().id}",
        "",
        width,
    )
    advice: dict[Advice, list[int]] = {}
    graded: dict[str, str] = {}
    for index, finding in enumerate(diagnosis.findings):
        device = finding.shown.device
        mark = "ok " if finding.metered else "NOT"
        grade = finding.grade
        label = grade.label if grade else "-"
        graded[label] = _GRADE.get(grade, "") if grade else "energy only"
        indent = "  " if device.mig else ""
        line = f"  {index:>2} {mark} {label:<4}{indent}{device.name}"
        if len(line) + 2 + len(device.entity) <= width:
            yield f"{line}  {device.entity}"
        else:
            yield line
            yield f"{'':13}{indent}{device.entity}"
        for one in finding.advice:
            advice.setdefault(one, []).append(index)
    for label, told in graded.items():
        yield f"  {label}: {told}"
    for one, indices in advice.items():
        yield from _said(_span(indices), one, width)
    for one in diagnosis.node:
        yield from _said("node", one, width)
    yield from _left_out(facts.uncovered, width)
    metered = sum(f.metered for f in diagnosis.findings)
    beside = f", {len(facts.uncovered)} devices not covered" if facts.uncovered else ""
    yield f"{metered} of {len(diagnosis.findings)} metered{beside}"


def _left_out(cards: Iterable[Uncovered], width: int) -> Iterable[str]:
    for card in cards:
        model = card.model.removeprefix(card.vendor).strip()
        name = " ".join(filter(None, (card.vendor, model)))
        said = of_uncovered(card)
        about = f"{card.pci_address or 'a card without an address'}: {name} is not metered"
        yield from _said(about, said, width)


def _said(about: str, advice: Advice, width: int) -> Iterable[str]:
    yield from _folded(f"{about}: {advice.why}", "  ", width)
    if advice.change:
        yield from _folded(f"-> {advice.change}", "      ", width)


def _folded(text: str, indent: str, width: int) -> list[str]:
    """Broken at spaces only: a path, a row's name or a command's option stays one word, to be copied."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + "   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _span(indices: list[int]) -> str:
    if len(indices) > 2 and indices[-1] - indices[0] == len(indices) - 1:
        return f"{indices[0]}-{indices[-1]}"
    return ", ".join(map(str, indices))


def unreadable(source: str, error: SourceError, uncovered: tuple[Uncovered, ...]) -> dict[str, Any]:
    """What `--json` says where the source does not open, by the same keys: nothing can be metered."""
    facts = NodeFacts(node_name(), b"", "", "", source, (), uncovered=uncovered)
    found = to_json(Diagnosis(facts, (), (Advice(str(error), error.hint),)))
    return found | {"driver": None, "nvml": None}


def unreadable_lines(error: SourceError, cards: tuple[Uncovered, ...], width: int) -> Iterable[str]:
    """The same for people."""
    yield from _folded(f"nothing can be metered: {error}", "", width)
    if error.hint:
        yield from _folded(f"Hint: {error.hint}", "", width)
    yield from _left_out(cards, width)


def on_the_bus() -> tuple[Uncovered, ...]:
    """Accelerators that the kernel sees, where nothing can be asked about them."""
    from flopmeter.agent.sources.pci import accelerators

    return tuple(
        Uncovered(
            card.address,
            card.vendor_name,
            card.model,
            f"held by driver {card.driver}, which cannot be asked" if card.driver else "no driver holds it",
        )
        for card in accelerators()
    )
