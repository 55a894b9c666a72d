"""What a simulated node is and does: devices, jobs, faults. Frozen values; `sim` turns them into counters."""

import hashlib
import uuid
from dataclasses import dataclass, field
from typing import Literal

from flopmeter.contract.usage import Workload, WorkloadKind


@dataclass(frozen=True, slots=True)
class SimDevice:
    """One simulated GPU. Clocks in MHz, power in watts."""

    name: str = "NVIDIA H100 80GB HBM3"
    compute_capability: str = "9.0"
    sms: int = 132
    max_sm_clock_mhz: int = 1980
    idle_clock_mhz: int = 345
    idle_w: int = 70
    max_w: int = 700
    memory_bytes: int = 80 << 30
    uuid: str = ""  # "" = made from the script's seed, the node and the index


@dataclass(frozen=True, slots=True)
class SimJob:
    """A workload on some devices from `start_boot_ns` (included) to `end_boot_ns` (excluded).

    Utilisations are shares of elapsed SM-cycles at full load, 0 … 1. `tensor_util` is any tensor pipe (GPM
    250); of it, imma, dmma and tensor_other (seen by the any-tensor counter only) are parts and the rest is
    HMMA. The load swings by `swing` around them, and the clock swings against the load.
    """

    workload: Workload
    start_boot_ns: int
    end_boot_ns: int
    devices: tuple[int, ...] = ()  # indices; () = all
    tensor_util: float = 0.5
    imma_util: float = 0.0
    dmma_util: float = 0.0
    tensor_other_util: float = 0.0
    fp64_util: float = 0.0
    fp32_util: float = 0.05
    fp16_util: float = 0.02
    int_util: float = 0.04
    sm_active_util: float = 0.9
    clock_share: float = 0.92  # mean clock under load, of the device's maximum
    swing: float = 0.06
    power_share: float = 0.9  # mean power under load, of what lies between idle and maximum


@dataclass(frozen=True, slots=True)
class SimDead:
    """The device does not answer from … to (excluded): NVML_ERROR_GPU_IS_LOST. Its counters run on."""

    device: int
    from_boot_ns: int
    to_boot_ns: int


@dataclass(frozen=True, slots=True)
class SimReadError:
    """Every read from … to (excluded) fails with NVML's error name."""

    device: int
    from_boot_ns: int
    to_boot_ns: int
    code: str = "NVML_ERROR_TIMEOUT"


@dataclass(frozen=True, slots=True)
class SimReset:
    """All counters of the device restart from 0 at this time."""

    device: int
    at_boot_ns: int


SimFault = SimDead | SimReadError | SimReset


@dataclass(frozen=True, slots=True)
class SimScript:
    """A node over time. Same script, same readings: everything follows from `seed` and the times."""

    node: str = "sim-0"
    cluster: str = "sim"
    devices: tuple[SimDevice, ...] = (SimDevice(),) * 8
    jobs: tuple[SimJob, ...] = ()
    faults: tuple[SimFault, ...] = ()
    seed: int = 0
    driver: str = "595.58.03"
    nvml: str = "13.595.58"
    #: What GPM offers: cycle counters (R595+), percentages (older drivers), or both.
    gpm: Literal["cycles", "percent", "both"] = "both"
    #: Whether ids 248-260 are a sum over SMs or an average: NVML does not say (metering.md 1.3).
    scale: Literal["sum", "average"] = "sum"
    boot_id: bytes = field(default=b"")  # 16 bytes; b"" = made from the seed and the node

    def entity(self, index: int) -> str:
        """UUID of device `index`, stable over processes."""
        stated = self.devices[index].uuid
        return stated or f"GPU-{uuid.UUID(bytes=self._digest('gpu', index), version=4)}"

    def boot(self) -> bytes:
        return self.boot_id or self._digest("boot", 0)

    def _digest(self, what: str, index: int) -> bytes:
        return hashlib.sha256(f"flopmeter sim {self.seed} {self.node} {what} {index}".encode()).digest()[:16]


#: A simulated job that outlives every clock.
FOREVER_NS = 1 << 62


def default_script(node: str = "sim-0") -> SimScript:
    """8 H100 that train one job in BF16 from boot on."""
    workload = Workload(
        WorkloadKind.SLURM, job="1001", step="0", run="sim-pretrain", user="sim", dtype="bf16"
    )
    return SimScript(node=node, jobs=(SimJob(workload, 0, FOREVER_NS, tensor_util=0.46),))
