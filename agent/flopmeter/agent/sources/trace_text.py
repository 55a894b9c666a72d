"""Writes one line of a flopmeter-trace/1 file: what `trace_lines` reads back as an equal value."""

import json
from typing import Any

from flopmeter.agent.reading import Happening, HappeningKind, NodeFacts, Process, Reading
from flopmeter.contract.usage import IDLE, Device, Workload

from .trace_lines import FORMAT


def header_line(facts: NodeFacts) -> bytes:
    """The first line for `facts`."""
    data: dict[str, Any] = {"format": FORMAT, "node": facts.node, "boot_id": facts.boot_id.hex()}
    data |= {"driver": facts.driver, "nvml": facts.nvml}
    if facts.source != "trace":  # what it is a capture of
        data["source"] = facts.source
    if facts.cluster:
        data["cluster"] = facts.cluster
    data["devices"] = [_device_object(d) for d in facts.devices]
    return _line(data)


def item_line(item: Reading | Happening) -> bytes:
    """One line for a reading or a happening; reading it back gives an equal value."""
    data: dict[str, Any] = {"t_boot_ns": item.t_boot_ns, "t_unix_ns": item.t_unix_ns}
    if item.entity:
        data["entity"] = item.entity
    if isinstance(item, Happening):
        data["event"] = str(item.kind)
        if item.kind is HappeningKind.REBOOT:
            data["boot_id"] = item.boot_id.hex()
        if item.kind is HappeningKind.MIG_CHANGE:
            data["devices"] = [_device_object(d) for d in item.devices]
        return _line(data)
    if item.workload is not None:
        data["workload"] = None if item.workload == IDLE else _workload_object(item.workload)
    if item.error is not None:
        return _line(data | {"error": item.error})
    if item.cycles or item.percent or item.rates_mib_s:
        values = *item.percent.items(), *item.rates_mib_s.items(), *item.cycles.items()
        data["gpm"] = {str(k): v for k, v in values}
    if item.sm_clock_mhz:
        data["sm_clock_mhz"] = item.sm_clock_mhz[0] if len(item.sm_clock_mhz) == 1 else item.sm_clock_mhz
    for key in ("energy_mj", "power_mw", "utilization_gpu_pct", "memory_used_bytes", "clock_event_reasons"):
        if (value := getattr(item, key)) is not None:
            data[key] = value
    if item.late_ns:
        data["late_ns"] = item.late_ns
    if item.processes is not None:
        data["processes"] = [_process_object(p) for p in item.processes]
    return _line(data)


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _process_object(p: Process) -> dict[str, Any]:
    data: dict[str, Any] = {"pid": p.pid, "start_ticks": p.start_ticks}
    return data if p.sm_util_pct is None else data | {"sm_util_pct": p.sm_util_pct}


def _workload_object(w: Workload) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": w.kind.label}
    data |= {k: v for k in ("job", "step", "run", "user", "dtype") if (v := getattr(w, k))}
    return data | {"restart": w.restart} if w.restart else data


def _device_object(d: Device) -> dict[str, Any]:
    data: dict[str, Any] = {
        "entity": d.entity,
        "name": d.name,
        "compute_capability": d.compute_capability,
        "sm_count": d.sm_count,
        "serial": d.serial or None,
        "mig": d.mig,
        "parent": d.parent or None,
    }
    if d.max_sm_clock_mhz:
        data["max_sm_clock_mhz"] = d.max_sm_clock_mhz
    if d.gpu_instance >= 0:
        data["gpu_instance"] = d.gpu_instance
    if d.pci_address:
        data["pci_address"] = d.pci_address
    for key in ("persistence", "confidential"):
        if (switch := getattr(d, key)) is not None:
            data[key] = switch
    return data
