"""Shared by the meter's tests: a device that counts exactly, readings of it, and sums over sealed windows."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from flopmeter.agent.meter import Meter, MeterSettings, Sealed
from flopmeter.agent.reading import CYCLE_IDS, NodeFacts, Reading
from flopmeter.contract.usage import Device, Usage, Workload, WorkloadKind

SECOND = 1_000_000_000
H100 = "NVIDIA H100 80GB HBM3"
SMS = 132
BOOT = bytes(range(16))
UNIX0 = 1_790_000_000 * SECOND
JOB_A = Workload(WorkloadKind.SLURM, job="1", step="0", run="a", dtype="bf16")
JOB_B = Workload(WorkloadKind.SLURM, job="2", step="0", run="b", dtype="fp8")

#: GPM id -> the number of Usage that it becomes.
FIELDS = {
    248: "sm_elapsed_cycles",
    249: "sm_active_cycles",
    252: "hmma_cycles",
    253: "imma_cycles",
    251: "dmma_cycles",
    258: "fp64_cycles",
    259: "fp32_cycles",
    260: "fp16_cycles",
    257: "int_cycles",
}


def device(n: int = 0, **changes: object) -> Device:
    values = {
        "entity": f"GPU-{n}",
        "name": H100,
        "compute_capability": "9.0",
        "sm_count": SMS,
        "max_sm_clock_mhz": 1980,
    }
    return Device(**(values | changes))  # type: ignore[arg-type]


def facts(*devices: Device, source: str = "sim", boot: bytes = BOOT, driver: str = "595.58.03") -> NodeFacts:
    return NodeFacts("node-a", boot, driver, "13.595.58", source, devices or (device(),), "c1")


def meter(node: NodeFacts | None = None, *, window: int = 60 * SECOND, **more: object) -> Meter:
    return Meter(node or facts(), MeterSettings(window_ns=window), agent_version="0.1.0", **more)  # type: ignore[arg-type]


@dataclass
class Gpu:
    """Counts like a GPU of `sms` SMs whose ids 248-260 are an average (or a sum) over them."""

    entity: str = "GPU-0"
    average: bool = True
    mhz: int = 1700
    sms: int = SMS
    energy_mj: int = 5_000_000
    counters: dict[int, int] = field(default_factory=lambda: dict.fromkeys(CYCLE_IDS, 10**15))

    def run(self, ns: int, shares: dict[int, int]) -> None:
        """`ns` pass; `shares` are active permille by id."""
        elapsed = self.mhz * ns // 1000 * (1 if self.average else self.sms)
        self.counters[248] += elapsed
        for key in CYCLE_IDS[1:]:
            self.counters[key] += elapsed * shares.get(key, 0) // 1000
        self.energy_mj += ns // 2_000_000

    def reset(self) -> None:
        self.counters = dict.fromkeys(CYCLE_IDS, 0)
        self.energy_mj = 0

    def reading(self, t: int, *, unix: int | None = None, **changes: object) -> Reading:
        values: dict[str, object] = {
            "entity": self.entity,
            "t_boot_ns": t,
            "t_unix_ns": UNIX0 + t if unix is None else unix,
            "cycles": dict(self.counters),
            "sm_clock_mhz": (float(self.mhz),),
            "energy_mj": self.energy_mj,
            "workload": JOB_A,
        }
        return Reading(**(values | changes))  # type: ignore[arg-type]


def rows(sealed: Iterable[Sealed], entity: str | None = None) -> list[tuple[Workload, Usage]]:
    return [
        (s.batch.workloads[u.workload_index], u)
        for s in sealed
        for u in s.batch.usage
        if entity in (None, s.inventory.devices[u.entity_index].entity)
    ]


def total(sealed: Iterable[Sealed], name: str, entity: str | None = None, *, gaps: bool = False) -> int:
    """Sum of a number over rows that are not gaps (`gaps`: over gaps alone)."""
    return sum(getattr(u, name) for _, u in rows(sealed, entity) if bool(u.gap_reason) == gaps)


def duration(sealed: Iterable[Sealed], entity: str | None = None) -> int:
    return sum(u.duration_ns for _, u in rows(sealed, entity))


def notices(sealed: Iterable[Sealed]) -> list[str]:
    return [n.kind.label for s in sealed for n in s.batch.notices]
