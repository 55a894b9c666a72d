"""Why a GPU is metered no better than it is, and what an operator can change. Pure rules; doctor.py asks them.

An advice without a `change` states a fact that nobody on the node can do anything about.
"""

import re
from dataclasses import dataclass

from flopmeter.agent.metering.crosscheck import library_details
from flopmeter.agent.reading import (
    ANY_TENSOR_UTIL,
    DFMA_CYCLES_ACTIVE,
    DFMA_TENSOR_UTIL,
    DMMA_CYCLES_ACTIVE,
    DMMA_TENSOR_UTIL,
    DRAM_BW_UTIL,
    FP16_CYCLES_ACTIVE,
    FP16_UTIL,
    FP32_CYCLES_ACTIVE,
    FP32_UTIL,
    FP64_CYCLES_ACTIVE,
    FP64_UTIL,
    GRAPHICS_UTIL,
    HMMA_CYCLES_ACTIVE,
    HMMA_TENSOR_UTIL,
    IMMA_CYCLES_ACTIVE,
    IMMA_TENSOR_UTIL,
    INTEGER_CYCLES_ACTIVE,
    INTEGER_UTIL,
    MMA_CYCLES_ACTIVE,
    SM_CYCLES_ACTIVE,
    SM_CYCLES_ELAPSED,
    SM_UTIL,
    NodeFacts,
    Reading,
)
from flopmeter.agent.sources.base import MIG_EMPTY, NO_CORES
from flopmeter.contract.checks import Check
from flopmeter.contract.evidence_class import UPPER_ONLY, EvidenceClass
from flopmeter.contract.usage import Device, Uncovered
from flopmeter.contract.w_table import current

#: The first driver branch with since-boot cycle counters (reference/metering.md 0.1).
CYCLES_SINCE_DRIVER = 595

_EXPORTER = "--source dcgm:http://127.0.0.1:9400/metrics"
#: Rows of an exporter's counter file, in the spelling that every version of it resolves.
_ROWS = {
    HMMA_TENSOR_UTIL: "DCGM_FI_PROF_PIPE_TENSOR_HMMA_ACTIVE",
    IMMA_TENSOR_UTIL: "DCGM_FI_PROF_PIPE_TENSOR_IMMA_ACTIVE",
    DFMA_TENSOR_UTIL: "DCGM_FI_PROF_PIPE_TENSOR_DFMA_ACTIVE",
    SM_UTIL: "DCGM_FI_PROF_SM_ACTIVE",
    FP64_UTIL: "DCGM_FI_PROF_PIPE_FP64_ACTIVE",
    FP32_UTIL: "DCGM_FI_PROF_PIPE_FP32_ACTIVE",
    FP16_UTIL: "DCGM_FI_PROF_PIPE_FP16_ACTIVE",
}
#: Pipes by the ids of their since-boot counters and of their percentages.
_PIPES = {
    "any tensor": (MMA_CYCLES_ACTIVE, ANY_TENSOR_UTIL),
    "HMMA": (HMMA_CYCLES_ACTIVE, HMMA_TENSOR_UTIL),
    "IMMA": (IMMA_CYCLES_ACTIVE, IMMA_TENSOR_UTIL),
    "FP64 tensor": (DMMA_CYCLES_ACTIVE, DFMA_CYCLES_ACTIVE, DFMA_TENSOR_UTIL, DMMA_TENSOR_UTIL),
    "SM active": (SM_CYCLES_ACTIVE, SM_UTIL),
    "FP64": (FP64_CYCLES_ACTIVE, FP64_UTIL),
    "FP32": (FP32_CYCLES_ACTIVE, FP32_UTIL),
    "FP16": (FP16_CYCLES_ACTIVE, FP16_UTIL),
    "INT": (INTEGER_CYCLES_ACTIVE, INTEGER_UTIL),
}
#: Without both there is no float tensor work to be seen, and so no point.
TENSOR = {"any tensor", "HMMA"}
_SPLIT = (HMMA_TENSOR_UTIL, IMMA_TENSOR_UTIL)
_VECTOR = (SM_UTIL, FP64_UTIL, FP32_UTIL, FP16_UTIL)
#: The profiling module shows no HMMA and IMMA there (reference/metering.md 2.1: V100 refuses them, A10 lacks them).
_NO_SPLIT = re.compile(r"V100|\bA10G?\b|\bA40\b")
#: Switching profiling on has hung these (Xid 119, confirmed by NVIDIA; reference/metering.md 2.1).
_HANGS = re.compile(r"\bA10G?\b|\bA40\b")
_GEFORCE = re.compile(r"GeForce (?!RTX 50)")


@dataclass(frozen=True, slots=True)
class Advice:
    why: str
    change: str = ""  # what an operator can do about it; "" = nothing


def of_device(
    facts: NodeFacts, device: Device, reading: Reading, grade: EvidenceClass | None, note: str
) -> list[Advice]:
    """Of an entity that was read and graded; `note` is what its last interval said beside that."""
    if current().arch(device.compute_capability, device.name) is None:
        named = (
            f"{device.name or 'unknown model'} (compute capability {device.compute_capability or 'unknown'})"
        )
        found = [
            Advice(
                f"no W table for {named}: metered in SM-cycles, not in FLOP",
                "a later flopmeter may have its rates; totals are then derived again from the cycles kept",
            )
        ]
    else:
        found = _class(facts, device, reading, grade, note)
    if device.confidential and grade is not None and grade not in UPPER_ONLY:
        said = "confidential-computing mode is on, where NVIDIA documents performance counters as off; they answer"
        found.append(Advice(said))
    if device.persistence is False and not device.mig:
        found.append(
            Advice(
                "persistence mode is off: the driver may unload between jobs, and its counters begin again",
                "run nvidia-persistenced, or nvidia-smi -pm 1",
            )
        )
    return found


def _class(
    facts: NodeFacts, device: Device, reading: Reading, grade: EvidenceClass | None, note: str
) -> list[Advice]:
    if note.startswith(Check.SILENT_ZERO):
        return [
            Advice(
                f"the exporter's profiling counters have failed ({note})",
                "restart dcgm-exporter; look for Xid errors in the kernel log; no profiler may hold the counters",
            )
        ]
    dcgm, major = facts.source == "dcgm", _major(device.compute_capability)
    found: list[Advice] = []
    if dcgm and major >= 9:
        found.append(Advice("NVML itself shows this GPU's pipe counters, and better", "use --source nvml"))
    if grade is None or grade in UPPER_ONLY:
        if {ANY_TENSOR_UTIL, HMMA_TENSOR_UTIL} & reading.percent.keys() and not reading.sm_clock_mhz:
            clock = _add(["DCGM_FI_DEV_SM_CLOCK"]) if dcgm else "update the driver"
            return [*found, Advice("the pipes are read and the SM clock is not: an upper bound only", clock)]
        return [*found, _upper_only(facts, device, major, dcgm=dcgm)]
    if grade is EvidenceClass.A3 and dcgm and reading.cycles:
        found.append(
            Advice(
                "an exporter's totals have no percentages of the same time: what a count is worth is unchecked"
            )
        )
    elif grade is EvidenceClass.A3:
        found.append(Advice("the rates of this model are not confirmed: bounds are 10 % wider"))
    if not dcgm and grade in (EvidenceClass.A2, EvidenceClass.A3) and SM_CYCLES_ELAPSED not in reading.cycles:
        found.append(_no_counters(facts.driver))
        if len(reading.sm_clock_mhz) < 2:
            found.append(
                Advice(
                    "the driver keeps no clock samples: the clock is polled, and its spread widens the bounds"
                )
            )
    found += _exporter_rows(device, reading) if dcgm else _unanswered(device, reading)
    return found


def unanswered(reading: Reading) -> set[str]:
    """Pipes that the reading has neither by a counter nor by a percentage."""
    have = reading.cycles.keys() | reading.percent.keys()
    return {name for name, ids in _PIPES.items() if have.isdisjoint(ids)}


def _unanswered(device: Device, reading: Reading) -> list[Advice]:
    """What the driver should have answered for and did not."""
    lacking = unanswered(reading)
    found: list[Advice] = []
    if lacking >= TENSOR:
        found.append(
            Advice(
                "the driver answers for no tensor pipe: there is no point, only an upper bound",
                "update the driver; `flopmeter agent read` shows what it answers",
            )
        )
    elif lacking:
        names = ", ".join(name for name in _PIPES if name in lacking)
        found.append(Advice(f"the driver does not answer for {names}: bounds are wider for it"))
    if reading.energy_mj is None and not device.mig:
        found.append(Advice("the driver shows no energy counter: cycles are not checked against it"))
    return found


def _no_counters(driver: str) -> Advice:
    why = "no since-boot cycle counters: an agent's restart leaves a gap"
    if _is_old(driver):
        return Advice(why, f"driver R{CYCLES_SINCE_DRIVER} or later has them")
    return Advice(f"{why}. Driver {driver} should have them, and answers none for this GPU")


def _is_old(driver: str) -> bool:
    return _major(driver) < CYCLES_SINCE_DRIVER


def _upper_only(facts: NodeFacts, device: Device, major: int, *, dcgm: bool) -> Advice:
    if device.confidential:
        return Advice(
            "confidential-computing mode is on: performance counters are off, so there is an upper bound only",
            "nothing can be metered in that mode; turn it off if the workload does not need it",
        )
    if _GEFORCE.search(device.name):
        return Advice("no profiling counters exist on GeForce before RTX 50: an upper bound only")
    if _HANGS.search(device.name):
        return Advice(
            "an upper bound only: profiling has hung the GPU on A10 and A40 (Xid 119)",
            "" if not dcgm else "use --source nvml, whose bound is narrower than an exporter's",
        )
    if dcgm:
        return Advice(
            "the exporter shows no tensor pipe",
            "add DCGM_FI_PROF_PIPE_TENSOR_ACTIVE to dcgm-exporter's counter file; the exporter needs root or SYS_ADMIN",
        )
    if major >= 9:
        return _no_gpm(facts, device)
    return Advice(
        "NVML has no pipe counters before Hopper", f"run dcgm-exporter on this node and use {_EXPORTER}"
    )


def _no_gpm(facts: NodeFacts, device: Device) -> Advice:
    lack = dict(facts.lacks).get(device.entity, "")
    has = f"R{CYCLES_SINCE_DRIVER} or later has cycle counters"
    if "PERMISSION" in lack:
        return Advice(
            f"the driver refuses this user its GPM counters: {lack}",
            "run `flopmeter agent doctor` as root: if root is refused too, no right helps; if not, let the agent's user "
            "open /dev/nvidia* (systemd: DeviceAllow=; a container: its device cgroup)",
        )
    if "FUNCTION_NOT_FOUND" in lack:
        return Advice(f"driver {facts.driver} is too old for GPM metrics", f"update the driver: {has}")
    update = f"update the driver: {has}" if _is_old(facts.driver) else "see the kernel's log"
    return Advice(
        "the driver offers no GPM metrics here" + (f": {lack}" if lack else ""),
        f"GPM is off on vGPU and in confidential-computing mode; otherwise {update}",
    )


def of_uncounted(facts: NodeFacts, device: Device) -> Advice:
    """Of a GPU whose SM count is not known, so that no cycles can be told."""
    lack = dict(facts.lacks).get(device.entity, "")
    if lack == MIG_EMPTY:
        return Advice(
            "MIG mode is on, and no GPU instance holds a compute instance: nothing can run there, or be metered",
            "make instances (nvidia-smi mig -cgi PROFILE -C), or turn MIG mode off (nvidia-smi -mig 0)",
        )
    known = f"the SM count of {reading_name(device)} is not known to source {facts.source}"
    if facts.source == "dcgm":
        return Advice(known, "let the agent load libnvidia-ml.so.1 too: NVML tells it")
    if lack == NO_CORES:
        return Advice(f"{known}: driver {facts.driver} does not tell its cores", "update the driver")
    return Advice(known, "a later flopmeter may know how many cores an SM of this capability has")


def of_uncovered(card: Uncovered) -> Advice:
    """Of a card that nothing here meters."""
    if card.reason.startswith("NVML_ERROR_"):
        return Advice(card.reason, _change_for(card.reason))
    if card.vendor == "NVIDIA" and card.reason.endswith("no driver holds it"):
        return Advice(
            card.reason, "load the NVIDIA driver; why it does not take the card: kernel's log, NVRM"
        )
    return Advice(card.reason)


def reading_name(device: Device) -> str:
    return f"{device.name or 'unknown model'} (compute capability {device.compute_capability or 'unknown'})"


def _exporter_rows(device: Device, reading: Reading) -> list[Advice]:
    have = reading.percent.keys()
    found: list[Advice] = []
    if reading.cycles or not have:  # totals count it all; between two collections there is nothing to look at
        return found
    split = [_ROWS[i] for i in _SPLIT if i not in have]
    if split and _NO_SPLIT.search(device.name):
        found.append(Advice("the profiling module shows this model's tensor pipes as one"))
    elif split and device.compute_capability == "7.5":
        why = "the exporter shows the tensor pipes as one; that Turing can show them apart is not verified"
        found.append(Advice(why, f"try: {_add(split)}"))
    elif split:
        found.append(Advice("the exporter shows the tensor pipes as one", _add(split)))
    vector = [_ROWS[i] for i in _VECTOR if i not in have]
    if vector:
        why = "the upper bound holds vector pipes that nobody read, as if they were always busy"
        found.append(Advice(why, _add(vector)))
    if not {GRAPHICS_UTIL, DRAM_BW_UTIL} & have:
        why = "counters that have died cannot be told from an idle GPU"
        found.append(Advice(why, _add(["DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_PROF_DRAM_ACTIVE"])))
    if reading.energy_mj is None and not device.mig:
        why = "without the energy counter a page that has gone stale looks like a fresh one"
        found.append(Advice(why, _add(["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"])))
    return found


def _add(rows: list[str]) -> str:
    return f"add {', '.join(rows)} to dcgm-exporter's counter file"


def of_error(error: str) -> Advice:
    """Of an entity that could not be read."""
    who = "exporter" if error.startswith("DCGM") else "driver"
    return Advice(f"the {who} answers {error}", _change_for(error))


def _change_for(error: str) -> str:
    if "RESET_REQUIRED" in error or "LOST" in error:
        return "the GPU needs a reset or a reboot: see `nvidia-smi -q` and the kernel's log for Xid errors"
    if "PERMISSION" in error:
        return (
            "let the agent's user open /dev/nvidia* (systemd: DeviceAllow=; a container: its device cgroup)"
        )
    if "TIMEOUT" in error or "HUNG" in error:
        return "a driver call hangs: see the kernel's log for Xid errors; a GPU that hangs needs a reset or a reboot"
    if error == "DCGM_PAGE_STALE":
        return "dcgm-exporter goes on serving an old page: restart it and its host engine"
    if error.startswith("DCGM"):
        return "check dcgm-exporter on this node"
    return ""


def of_node(
    facts: NodeFacts,
    *,
    own_pid_namespace: bool,
    unseen_processes: bool,
    no_processes: bool,
    hidden_processes: bool = False,
) -> list[Advice]:
    """Of the node as a whole, and of where the agent stands on it."""
    found: list[Advice] = []
    if not facts.devices and not facts.uncovered:
        found.append(_no_gpus(facts.source))
    if no_processes:
        found.append(
            Advice(
                "no source tells which processes hold the GPUs: what they run stays unattributed",
                "let the agent load libnvidia-ml.so.1 beside the exporter"
                if facts.source == "dcgm"
                else "let the agent's user open /dev/nvidia*, or set the scheduler's own lists (--kubelet, "
                "--slurm-job-mapping-dir)",
            )
        )
    if hidden_processes and not own_pid_namespace:
        found.append(
            Advice(
                "/proc hides other users' processes (hidepid): what they run stays unattributed",
                "mount /proc with gid= of a group, and put the agent's user into it (SupplementaryGroups=)",
            )
        )
    elif own_pid_namespace or unseen_processes:
        said = (
            "the agent has a PID namespace of its own" if own_pid_namespace else "processes are not in /proc"
        )
        found.append(
            Advice(
                f"{said}: the driver's process numbers are the host's, so what they run stays unattributed",
                "hostPID: true in the pod, --pid=host for a container, or run the agent on the host",
            )
        )
    for detail in library_details(facts.library, facts.driver):
        check = detail.partition(":")[0]
        change = "find out who put it there: cmp it with the driver package's file, look at LD_PRELOAD"
        if check == Check.DRIVER_VERSION:
            change = "the driver was updated under a running kernel: reboot, or reload its module"
        found.append(Advice(detail, change))
    return found


def _no_gpus(source: str) -> Advice:
    if source == "dcgm":
        return Advice(
            "the exporter's page names no GPU", "see the exporter's own log, and `nvidia-smi -L` on this node"
        )
    if source != "nvml":
        return Advice(f"source {source} names no GPU")
    return Advice(
        "the driver works and lists no GPU",
        "in a container: give it the GPUs (NVIDIA_VISIBLE_DEVICES=all, the nvidia runtime); on the host: `lspci -d 10de:` "
        "shows what is there, the kernel's log (NVRM) why it is not taken",
    )


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isascii() and head.isdigit() and len(head) < 6 else 0
