"""Files of a job-mapping directory: which GPU a name means, which jobs a content names. Pure.

Two ways to name a file, and two to write one, are in use; all are read (reference/deploy.md 1.6):

    <index>, <index>.<gpu instance>   dcgm-exporter's (DCGM_HPC_JOB_MAPPING_DIR): a job id a line
    GPU-…, MIG-…                      by UUID: ours (deploy/slurm), the same; Princeton's: "jobid uid"

An index is believed only where it is known which GPU it means.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from flopmeter.agent.reading import NodeFacts
from flopmeter.contract.usage import Device

#: Of one GPU: more than any sharing cuts it into.
MAX_HOLDERS = 64
_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,3})(?:\.(?:0|[1-9][0-9]{0,3}))?\Z")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z-]{0,127}\Z")
_HOLDER = re.compile(r"([1-9][0-9]{0,9})(?:[ \t]+[0-9]{1,10})?\Z")


def is_index(name: str) -> bool:
    """`3` or `3.7`, and nothing like `03` or `3.tmp`."""
    return _INDEX.match(name) is not None


def is_uuid(name: str) -> bool:
    return _UUID.match(name) is not None


@dataclass(frozen=True, slots=True)
class GpuNames:
    """What a file may be called: the UUID of anything that is metered, and the indices whose meaning is known."""

    uuids: frozenset[str]
    by_index: Mapping[str, str]  # "3" or "3.7" -> UUID
    no_index: str = ""  # why indices say nothing here


def gpu_names(facts: NodeFacts) -> GpuNames:
    """NVML and DCGM count GPUs in the order of their PCI addresses: a node must be seen whole to count likewise."""
    uuids = frozenset(d.entity for d in facts.devices)
    gpus = [d for d in facts.devices if not d.mig]
    addresses = {d.pci_address for d in gpus}
    if any(u.vendor == "NVIDIA" for u in facts.uncovered):
        return GpuNames(
            uuids, {}, "one of the node's GPUs is not metered, so it is not known how they are counted"
        )
    if "" in addresses or len(addresses) < len(gpus):
        return GpuNames(uuids, {}, f"source {facts.source} does not tell where on the bus each GPU is")
    by_index: dict[str, str] = {}
    for i, gpu in enumerate(sorted(gpus, key=lambda d: d.pci_address)):
        by_index[str(i)] = gpu.entity
        by_index |= {f"{i}.{d.gpu_instance}": d.entity for d in facts.devices if _cut_from(d, gpu)}
    return GpuNames(uuids, MappingProxyType(by_index))


def _cut_from(device: Device, gpu: Device) -> bool:
    return device.mig and device.parent == gpu.entity and device.gpu_instance >= 0


def parse_holders(raw: bytes) -> tuple[tuple[str, ...], str]:
    """(job ids in the file's order, each once; what was wrong with other lines, "" = nothing).

    A last line without its end is a line: writers that rename never leave half of one.
    """
    found: dict[str, None] = {}
    wrong = ""
    for line in raw.decode(errors="replace").split("\n"):
        text = line.strip(" \t\r")
        if not text:
            continue
        match = _HOLDER.match(text)
        if match is None or int(match[1]) >> 32:
            wrong = wrong or f"expected a job id a line, got {text[:40]!r}"
        elif len(found) >= MAX_HOLDERS and match[1] not in found:
            wrong = wrong or f"expected at most {MAX_HOLDERS} jobs"
        else:
            found[match[1]] = None
    return tuple(found), wrong
