"""What a source hands to the meter: readings and happenings, frozen, exactly as the driver gave them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from flopmeter.contract.usage import NO_LIBRARY, Device, Library, Uncovered, Workload

# GPM metric ids as our own constants, so that an old binding is not a crash (reference/metering.md 1.1, 1.3).
SM_CYCLES_ELAPSED = 248
SM_CYCLES_ACTIVE = 249
MMA_CYCLES_ACTIVE = 250  # any tensor pipe
DMMA_CYCLES_ACTIVE = 251
HMMA_CYCLES_ACTIVE = 252
IMMA_CYCLES_ACTIVE = 253
DFMA_CYCLES_ACTIVE = 254
INTEGER_CYCLES_ACTIVE = 257
FP64_CYCLES_ACTIVE = 258
FP32_CYCLES_ACTIVE = 259
FP16_CYCLES_ACTIVE = 260
CYCLE_IDS = (248, 249, 250, 251, 252, 253, 254, 257, 258, 259, 260)

SM_UTIL = 2
INTEGER_UTIL = 4
ANY_TENSOR_UTIL = 5
DFMA_TENSOR_UTIL = 6
HMMA_TENSOR_UTIL = 7
DMMA_TENSOR_UTIL = 8
IMMA_TENSOR_UTIL = 9
FP64_UTIL = 11
FP32_UTIL = 12
FP16_UTIL = 13
PERCENT_IDS = (2, 4, 5, 6, 7, 8, 9, 11, 12, 13)

DRAM_BW_UTIL = 10  # of theoretical bandwidth: a cross-check, no pipe
GRAPHICS_UTIL = 1  # any context active: tells that an exporter's counters are alive
#: Rates of the time since the reading before, in MiB/s: PCIe and NVLink (reference/metering.md 1.3).
PCIE_TX, PCIE_RX, NVLINK_RX, NVLINK_TX = 20, 21, 60, 61
RATE_IDS = (PCIE_TX, PCIE_RX, NVLINK_RX, NVLINK_TX)

#: Percentages above this are a failed read (reference/metering.md 7.2, item 4).
MAX_PERCENT = 100.5


@dataclass(frozen=True, slots=True)
class Process:
    """A process that holds the entity. (pid, start_ticks) names it; pids alone are reused."""

    pid: int
    start_ticks: int = 0  # field 22 of /proc/PID/stat; 0 = not known
    sm_util_pct: float | None = None


_NO_CYCLES: Mapping[int, int] = MappingProxyType({})
_NO_FLOATS: Mapping[int, float] = MappingProxyType({})


class Reading(NamedTuple):
    """Raw counters of one entity at one instant. None or an absent key = not read, never zero.

    `cycles` holds GPM ids 248-260 as integers, since boot. `percent` holds GPM ids 1-13 as the average
    over the time since the previous reading of the same entity. `sm_clock_mhz` holds the samples since
    then, or the one clock at the reading. `percent` may also hold ids 1 and 10, and `rates_mib_s` ids 20, 21, 60
    and 61: cross-checks only. `workload` None = the source does not say (the agent attributes).

    A tuple and no dataclass: eight are made every second, and a frozen dataclass sets field by field, at ten times
    the cost.
    """

    entity: str
    t_boot_ns: int
    t_unix_ns: int
    cycles: Mapping[int, int] = _NO_CYCLES
    percent: Mapping[int, float] = _NO_FLOATS
    sm_clock_mhz: tuple[float, ...] = ()
    energy_mj: int | None = None
    power_mw: int | None = None
    utilization_gpu_pct: float | None = None
    memory_used_bytes: int | None = None
    processes: tuple[Process, ...] | None = None
    workload: Workload | None = None
    rates_mib_s: Mapping[int, float] = _NO_FLOATS
    clock_event_reasons: int | None = None  # NVML's bit mask: why the clock is not at its highest
    late_ns: int = 0  # `cycles` may be older than `t_boot_ns` by up to this: the read took that long
    error: str | None = None  # the read failed: NVML's error name; then no values follow


class HappeningKind(StrEnum):
    """Events of a trace (docs/trace-format.md), also raised by live sources."""

    GPU_RESET = "gpu-reset"
    DRIVER_RELOAD = "driver-reload"
    REBOOT = "reboot"
    MIG_CHANGE = "mig-change"
    AGENT_STOP = "agent-stop"
    AGENT_START = "agent-start"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened on the node, between readings."""

    kind: HappeningKind
    t_boot_ns: int
    t_unix_ns: int
    entity: str = ""  # "" = the node
    boot_id: bytes = b""  # the new one, for REBOOT
    devices: tuple[Device, ...] = ()  # the new ones, for MIG_CHANGE


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a source knows of its node when it is opened."""

    node: str
    boot_id: bytes  # 16 bytes
    driver: str
    nvml: str
    source: str  # nvml, dcgm, trace, sim
    devices: tuple[Device, ...]
    cluster: str = ""
    library: Library = NO_LIBRARY
    uncovered: tuple[Uncovered, ...] = ()
    #: (entity, why the driver tells no more of it: NVML's error name, or a word of sources.base).
    lacks: tuple[tuple[str, str], ...] = ()
