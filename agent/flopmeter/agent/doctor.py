"""`flopmeter agent doctor`: what of this node can be metered, how well, why not better, and what to change."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.w_table import current

from .live import Rounds
from .reading import NodeFacts, Reading
from .view import NodeView, Shown, reading_name

#: The first driver branch with since-boot cycle counters (reference/metering.md 0.1).
CYCLES_SINCE_DRIVER = 595
#: Rounds looked at: percentages and counters need two.
ROUNDS = 2

_GRADE = {
    EvidenceClass.A1: "exact cycle counters",
    EvidenceClass.A2: "percentages x sampled clock",
    EvidenceClass.A3: "as A1 or A2, on a model whose rates are not confirmed",
    EvidenceClass.B1: "dcgm-exporter with HMMA and IMMA",
    EvidenceClass.B2: "dcgm-exporter, any-tensor only",
    EvidenceClass.C: "an upper bound only",
    EvidenceClass.GAP: "nothing usable",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One entity: its class, and what stands between it and a better one."""

    shown: Shown
    metered: bool
    why: str = ""  # not better, or not at all
    change: str = ""  # what an operator can do about it; "" = nothing

    @property
    def grade(self) -> EvidenceClass | None:
        return _expected(self.shown)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    facts: NodeFacts
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 every entity is metered, 1 some are not, 3 nothing can be read at all."""
        if not any(f.shown.error is None for f in self.findings):
            return 3
        return 0 if all(f.metered for f in self.findings) else 1


def examine(rounds: Rounds) -> Diagnosis:
    """Look at the first rounds. An entity is judged by the last interval that it showed."""
    view = NodeView(rounds.facts())
    last: dict[str, tuple[Shown, Reading]] = {}
    for count, items in enumerate(rounds, start=1):
        readings = {item.entity: item for item in items if isinstance(item, Reading)}
        for shown in view.update(rounds.facts(), items):
            entity = shown.device.entity
            # A first reading alone shows nothing yet, and takes the place of nothing but an error.
            known = entity in last and last[entity][0].error is None
            if not known or _expected(shown) is not None or shown.error is not None:
                last[entity] = shown, readings[entity]
        if count >= ROUNDS:
            break
    facts = rounds.facts()
    found = [_finding(facts, *last[d.entity]) for d in facts.devices if d.entity in last]
    missing = [
        Finding(Shown(d, EvidenceClass.GAP, error="no reading"), metered=False, why="no reading came")
        for d in facts.devices
        if d.entity not in last
    ]
    return Diagnosis(facts, tuple(found + missing))


def _expected(shown: Shown) -> EvidenceClass | None:
    """Percentages stand in until the cycle counters' scale is known: the class to come counts."""
    return shown.once_calibrated or shown.evidence_class


def _finding(facts: NodeFacts, shown: Shown, reading: Reading) -> Finding:
    device = shown.device
    if shown.error is not None:
        return Finding(shown, False, f"the driver answers {shown.error}", _change_for(shown.error))
    if any(d.parent == device.entity for d in facts.devices):
        return Finding(shown, True, "cut into MIG instances: metered there, its energy here")
    if device.sm_count == 0:
        return Finding(
            shown,
            False,
            f"the SM count of {reading_name(device)} is not known to source {facts.source}",
            "use --source nvml, which reads it from the device" if facts.source == "dcgm" else "",
        )
    if current().arch(device.compute_capability, device.name) is None:
        return Finding(
            shown, True, f"no W table for {reading_name(device)}: metered in SM-cycles, not in FLOP"
        )
    grade = _expected(shown)
    if grade is EvidenceClass.GAP and (reading.cycles or reading.percent):
        return Finding(
            shown, False, f"what the driver said cannot be true: {shown.note}", "update the driver"
        )
    why, change = _not_better(facts, grade, reading, major=_major(device.compute_capability))
    return Finding(shown, grade is not None and grade not in UPPER_ONLY, why, change)


def _not_better(
    facts: NodeFacts, grade: EvidenceClass | None, reading: Reading, *, major: int
) -> tuple[str, str]:
    driver = _major(facts.driver)
    upgrade = (
        f"driver R{CYCLES_SINCE_DRIVER} or later has them"
        if driver < CYCLES_SINCE_DRIVER
        else ("the driver should have them: update nvidia-ml-py to 13.595 or later")
    )
    if grade is EvidenceClass.A3:
        more = "" if reading.cycles else f"; no cycle counters either ({upgrade})"
        return f"the rates of this model are not confirmed: bounds are 10 % wider{more}", ""
    if grade is EvidenceClass.A2 and not reading.cycles:
        return "no since-boot cycle counters: an agent's restart leaves a gap", upgrade
    if grade is EvidenceClass.B2:
        return (
            "the exporter shows the tensor pipes as one",
            "add DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE and …_IMMA_ACTIVE to dcgm-exporter's counter file",
        )
    if grade is EvidenceClass.C or grade is None or grade is EvidenceClass.GAP:
        if facts.source == "dcgm":
            return (
                "the exporter shows no tensor pipe",
                "add DCGM_FI_PROF_PIPE_TENSOR_ACTIVE to dcgm-exporter's counter file",
            )
        if major >= 9:
            return (
                "the driver offers no GPM metrics here",
                "GPM is off on vGPU and in confidential-computing mode; otherwise update the driver",
            )
        return (
            "NVML has no pipe counters before Hopper",
            "run dcgm-exporter on this node and use --source dcgm:http://127.0.0.1:9400/metrics",
        )
    return "", ""


def _change_for(error: str) -> str:
    if "RESET_REQUIRED" in error or "LOST" in error:
        return "the GPU needs a reset or a reboot: see `nvidia-smi -q` and the kernel's log for Xid errors"
    if "PERMISSION" in error:
        return "let the agent open /dev/nvidia*"
    if "TIMEOUT" in error or "HUNG" in error:
        return "a driver call hangs: see the kernel's log"
    if error.startswith("DCGM"):
        return "check dcgm-exporter on this node"
    return ""


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() and len(head) < 6 else 0


def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    facts = diagnosis.facts
    return {
        "node": facts.node,
        "source": facts.source,
        "driver": facts.driver,
        "nvml": facts.nvml,
        "metered": sum(f.metered for f in diagnosis.findings),
        "entities": len(diagnosis.findings),
        "devices": [
            {
                "entity": f.shown.device.entity,
                "name": f.shown.device.name,
                "compute_capability": f.shown.device.compute_capability,
                "sm_count": f.shown.device.sm_count,
                "mig": f.shown.device.mig,
                "evidence_class": f.grade.label if f.grade else None,
                "metered": f.metered,
                "why": f.why,
                "change": f.change,
                "error": f.shown.error,
            }
            for f in diagnosis.findings
        ],
    }


def to_lines(diagnosis: Diagnosis) -> Iterable[str]:
    """For people: one line an entity, and what is the same for several said once below."""
    facts = diagnosis.facts
    yield f"{facts.node}: source {facts.source}, driver {facts.driver or 'unknown'}"
    advice: dict[tuple[str, str], list[int]] = {}
    for index, finding in enumerate(diagnosis.findings):
        device = finding.shown.device
        mark = "ok " if finding.metered else "NOT"
        grade = finding.grade
        told = _GRADE.get(grade, "") if grade else "energy only"
        indent = "  " if device.mig else ""
        yield f"  {index:>2} {mark} {grade.label if grade else '-':<4}{indent}{device.name}  {device.entity}  {told}"
        if finding.why:
            advice.setdefault((finding.why, finding.change), []).append(index)
    for (why, change), indices in advice.items():
        yield f"  {_span(indices)}: {why}"
        if change:
            yield f"      -> {change}"
    metered = sum(f.metered for f in diagnosis.findings)
    yield f"{metered} of {len(diagnosis.findings)} metered"


def _span(indices: list[int]) -> str:
    if len(indices) > 2 and indices[-1] - indices[0] == len(indices) - 1:
        return f"{indices[0]}-{indices[-1]}"
    return ", ".join(map(str, indices))
