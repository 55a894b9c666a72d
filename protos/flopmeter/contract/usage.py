"""The frozen types that both sides mean: devices, workloads, usage, batches. Units stand in the names."""

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from .evidence_class import EvidenceClass
from .identity import Identities


class WorkloadKind(IntEnum):
    """What held the entity. The numbers are the wire's; never reuse one."""

    IDLE = 1
    UNATTRIBUTED = 2
    SLURM = 3
    POD = 4
    PROCESS = 5
    OTHER = 6

    @property
    def label(self) -> str:
        return self.name.lower()


class Measured(IntFlag):
    """Which numbers of a usage row were read. An absent bit means "not measured", never zero."""

    SM_ACTIVE = 1
    HMMA = 2
    IMMA = 4
    DMMA = 8
    TENSOR_OTHER = 16  # with HMMA absent: the any-tensor counter stands here whole
    FP64 = 32
    FP32 = 64
    FP16 = 128
    INT = 256
    ENERGY = 512
    #: A row of a shared entity: its numbers are this workload's apportioned share (metering.md 5.2). They add
    #: up to the entity's own; they have no lower bound, because any split may be wrong.
    APPORTIONED = 1024
    #: Beside an APPORTIONED row: what the other holders were given in the same time, for the upper bound of
    #: this workload only. Duration, elapsed cycles and energy are 0, and it is no part of the entity's time.
    OTHERS = 2048


#: Every number of a row, and no mark.
ALL_MEASURED = Measured(1023)


class GapReason(IntEnum):
    """Why time is a gap. The numbers are the wire's; never reuse one."""

    NONE = 0
    READ_FAILED = 1  # the driver answered with an error
    READ_HUNG = 2  # no answer within the deadline
    RESET = 3  # counters restarted: GPU reset, driver reload, reboot
    AGENT_DOWN = 4  # nobody was reading, and no counter bridges the time
    SUSPENDED = 5  # the node slept, or the interval is far longer than the tick
    REFUSED = 6  # values came that cannot be true
    SPOOL_FULL = 7  # detail was given up at the spool's limit
    LOST = 8  # the device was gone
    RECORD_LOST = 9  # sealed batches were lost or refused

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Device:
    """One metered entity (a GPU, or a MIG GPU instance) as the driver describes it."""

    entity: str  # NVIDIA UUID
    name: str  # model, e.g. "NVIDIA H100 80GB HBM3"
    compute_capability: str  # "9.0"
    sm_count: int  # read from the device, never from a table; 0 = not known
    max_sm_clock_mhz: int = 0  # 0 = not known
    serial: str = ""
    mig: bool = False
    parent: str = ""  # UUID of the GPU a MIG instance is cut from
    gpu_instance: int = -1  # -1 = not a MIG instance
    pci_address: str = ""  # domain:bus:device.function, "00000000:18:00.0"
    persistence: bool | None = None  # None = not known, here and below
    confidential: bool | None = None  # confidential-computing mode: NVIDIA says performance counters are off


@dataclass(frozen=True, slots=True)
class Uncovered:
    """An accelerator on the node that nothing here meters: another vendor's, or one that cannot be read."""

    pci_address: str
    vendor: str  # "AMD", "Intel", "NVIDIA"
    model: str  # as the source names it, or the PCI ids "1002:74a1"
    reason: str  # why it is not metered


@dataclass(frozen=True, slots=True)
class Library:
    """Which NVML was loaded, so that a spoofed one can be told (reference/metering.md 6.2)."""

    path: str = ""  # absolute; "" = not known
    sha256: str = ""  # of the file, hex
    kernel_module: str = ""  # first line of /proc/driver/nvidia/version


NO_LIBRARY = Library()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a node is made of. Content-addressed: batches name it by the hash of its wire bytes."""

    node: str
    cluster: str
    driver: str
    nvml: str
    source: str  # which source read it: nvml, dcgm, trace, sim
    devices: tuple[Device, ...]
    library: Library = NO_LIBRARY
    uncovered: tuple[Uncovered, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """What held an entity: a Slurm job step, a pod, a process group; or idle, or unattributed."""

    kind: WorkloadKind
    job: str = ""
    step: str = ""
    run: str = ""  # run label as the job stated it; "" = none
    user: str = ""
    dtype: str = ""  # declared training dtype: moves the point, never the bounds
    restart: int = 0
    identities: Identities = ()  # all that was seen of who it is, by name (contract.identity)


IDLE = Workload(WorkloadKind.IDLE)
UNATTRIBUTED = Workload(WorkloadKind.UNATTRIBUTED)


@dataclass(frozen=True, slots=True)
class Usage:
    """SM-cycles per pipe of one workload on one entity in one window, or a gap.

    Cycles are summed over the entity's SMs. For a gap `sm_elapsed_cycles` is the most that can have
    elapsed (SMs x highest clock x duration) and every pipe is 0 and unmeasured.
    """

    entity_index: int  # into the inventory's devices
    workload_index: int  # into the batch's workloads
    evidence_class: EvidenceClass
    measured: Measured
    spread_ppm: int  # half-width of the clock term, parts per million, one of SPREAD_STEPS_PPM
    duration_ns: int
    sm_elapsed_cycles: int
    sm_active_cycles: int = 0
    hmma_cycles: int = 0
    imma_cycles: int = 0
    dmma_cycles: int = 0
    tensor_other_cycles: int = 0
    fp64_cycles: int = 0
    fp32_cycles: int = 0
    fp16_cycles: int = 0
    int_cycles: int = 0
    energy_mj: int = 0
    gap_reason: GapReason = GapReason.NONE


@dataclass(frozen=True, slots=True)
class Anchor:
    """Raw counters of one entity at one instant, quoted so that usage can be checked against them.

    Written at the first reading of an epoch, at every hour, and at a clean stop. Between two anchors of
    one epoch the sum of usage equals the difference of counters, scaled.
    """

    entity_index: int
    t_boot_ns: int
    t_unix_ns: int
    epoch: int  # counts up when counters restart
    scale: int  # counters are summed over this many SMs: 1 (average) or the SM count
    counters: tuple[tuple[int, int], ...]  # (GPM metric id, cycles)
    energy_mj: int = -1  # -1 = not read
    #: k_p of each counter in parts per million (metering.md 3.1): usage is counter x k_p. () = all are 1.
    k_ppm: tuple[int, ...] = ()


class NoticeKind(IntEnum):
    """Something happened that the books should explain. The numbers are the wire's; never reuse one."""

    AGENT_STARTED = 1
    AGENT_STOPPED = 2
    GPU_RESET = 3
    DRIVER_RELOADED = 4
    REBOOTED = 5
    CLOCK_STEPPED = 6
    SPOOL_TORN = 7
    SPOOL_FULL = 8
    RECORD_REFUSED = 9
    REANCHORED = 10
    DEVICES_CHANGED = 11
    SHARED_DEVICE = 12
    CALIBRATION = 13
    READING_REFUSED = 14
    SPOOL_LOST = 15
    CROSS_CHECK = 16  # independent readings disagree: flagged, never corrected (metering.md 6.2)
    ATTRIBUTION = 17  # evidence of who held a device is missing or contradicts itself
    LOG_CONTRADICTION = 18  # the collector's log is not the one that this agent saw before, or was set back

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Notice:
    kind: NoticeKind
    t_boot_ns: int
    t_unix_ns: int
    entity_index: int = -1  # -1 = the node
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """What training code said of itself by an instant: a claim, held against the counters, in no total."""

    workload_index: int
    t_boot_ns: int
    t_unix_ns: int
    tokens: int  # trained on since the workload began, by the whole run or by this process alone: see `ranks`
    parameters: int  # active per token; 0 = not said
    flop_per_token: int = 0  # forward and backward, as the code counts them; 0 = not said: 6 x parameters
    ranks: int = 1  # of how many processes `tokens` is the sum; 0 = of the whole run


@dataclass(frozen=True, slots=True)
class Batch:
    """One agent's usage of one window."""

    agent_version: str
    inventory_digest: bytes  # SHA-256 of the Inventory's wire bytes
    window_start_boot_ns: int
    window_end_boot_ns: int
    window_start_unix_ns: int
    window_end_unix_ns: int
    workloads: tuple[Workload, ...] = ()
    usage: tuple[Usage, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    notices: tuple[Notice, ...] = field(default=())
    progress: tuple[Progress, ...] = ()
