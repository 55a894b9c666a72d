"""Shared by the meter's tests: a device that counts exactly, readings of it, and sums over sealed windows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed
from flopmeter.agent.metering.ratios import PERCENT_OF
from flopmeter.agent.reading import CYCLE_IDS, Happening, NodeFacts, Reading
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory
from flopmeter.collector.encode import decode_batch, decode_inventory
from flopmeter.collector.ingest.anchors import AnchorCheck
from flopmeter.collector.ingest.encode import BatchView, device_bounds
from flopmeter.contract.usage import Device, GapReason, Measured, Usage, Workload, WorkloadKind

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


def own(sealed: Iterable[Sealed], name: str, entity: str | None = None) -> int:
    """Sum of a number over all rows that are the entity's own: no gap, and not what others did."""
    return sum(
        getattr(u, name)
        for _, u in rows(sealed, entity)
        if not u.gap_reason and Measured.OTHERS not in u.measured
    )


def taken(sealed: Iterable[Sealed]) -> int:
    """The collector takes every batch, and no anchor contradicts the usage; how many pairs were compared."""
    check = AnchorCheck()
    for s in sealed:
        inventory = decode_inventory(encode_inventory(s.inventory))
        payload = encode_batch(s.batch)
        BatchView(payload).groups([device_bounds(d, 0) for d in inventory.devices])
        batch = decode_batch(payload)
        assert batch == s.batch
        assert check.take(0, s.boot_id, batch, inventory) is None
    return check.compared


@dataclass
class Scripted:
    """A GPU whose pipes' counters are worth `k` each, and whose percentages tell the truth.

    `done` is that truth: cycles of one SM, times 1,000, since the start.
    """

    entity: str = "GPU-0"
    average: bool = True
    sms: int = SMS
    mhz: int = 1700
    k: Mapping[int, Fraction] = field(default_factory=dict)
    start: int = 10**15
    done: dict[int, int] = field(default_factory=lambda: dict.fromkeys(CYCLE_IDS, 0))
    read_at: dict[int, int] = field(default_factory=lambda: dict.fromkeys(CYCLE_IDS, 0))

    def run(self, ns: int, shares: Mapping[int, int]) -> None:
        """`ns` pass; `shares` are active permille by counter id."""
        cycles = self.mhz * ns // 1000
        self.done[248] += cycles * 1000
        for key in CYCLE_IDS[1:]:
            self.done[key] += cycles * shares.get(key, 0)

    def true(self, key: int) -> int:
        """SM-cycles since the start."""
        return self.done[key] * self.sms // 1000

    def counters(self) -> dict[int, int]:
        each = 1 if self.average else self.sms
        one = Fraction(1)
        return {
            key: self.start + int(n * each / (1000 * self.k.get(key, one))) for key, n in self.done.items()
        }

    def percent(self) -> dict[int, float]:
        """Over the time since the last reading; taking it is a reading."""
        elapsed = self.done[248] - self.read_at[248]
        found = {
            of: 100 * (self.done[key] - self.read_at[key]) / elapsed if elapsed else 0.0
            for key, of in zip(CYCLE_IDS[1:], PERCENT_OF[1:], strict=True)
        }
        self.read_at = dict(self.done)
        return found

    def reading(self, t: int, **changes: object) -> Reading:
        values: dict[str, object] = {
            "entity": self.entity,
            "t_boot_ns": t,
            "t_unix_ns": UNIX0 + t,
            "cycles": self.counters(),
            "percent": self.percent(),
            "sm_clock_mhz": (float(self.mhz),),
            "workload": JOB_A,
        }
        return Reading(**(values | changes))  # type: ignore[arg-type]


BUSY = {249: 900, 250: 500, 252: 500}
ONE_SECOND = 1_700_000_000 * SMS  # SM-cycles


class Node:
    """One or more GPUs and a meter, in time."""

    def __init__(self, *, agent: Meter | None = None, t: int = 120 * SECOND, **gpu: object) -> None:
        self.gpu = Gpu(**gpu)  # type: ignore[arg-type]
        self.agent = agent or meter()
        self.t = t
        self.sealed: list[Sealed] = []

    def tick(self, seconds: float = 1, **changes: object) -> None:
        self.sleep(seconds)
        self.read(**changes)

    def sleep(self, seconds: float) -> None:
        self.t += round(seconds * SECOND)
        self.gpu.run(round(seconds * SECOND), BUSY)

    def read(self, **changes: object) -> None:
        self.take(self.gpu.reading(self.t, **changes))

    def fail(self, seconds: float = 1, error: str = "NVML_ERROR_UNKNOWN", entity: str = "GPU-0") -> None:
        self.sleep(seconds)
        self.take(Reading(entity, self.t, UNIX0 + self.t, error=error))

    def take(self, item: Reading | Happening) -> None:
        self.sealed += self.agent.observe(item)

    def advance(self) -> None:
        self.sealed += self.agent.advance(self.t, UNIX0 + self.t)

    def flush(self, *, final: bool = False) -> list[Sealed]:
        last = self.agent.flush(final=final)
        self.sealed += [last] if last else []
        return self.sealed

    def calibrated(self) -> "Node":
        self.read()
        for _ in range(6):
            self.tick()
        return self

    def restart(self, **changes: object) -> None:
        self.agent = meter(facts(**changes), journal=self.sealed[-1].journal)  # type: ignore[arg-type]


def percent(t: int, *, entity: str = "GPU-0", unix: int | None = None, **changes: object) -> Reading:
    values = {"percent": {2: 90.0, 5: 50.0, 7: 50.0}, "sm_clock_mhz": (1700.0,), "workload": JOB_A}
    return Reading(entity, t, UNIX0 + t if unix is None else unix, **(values | changes))  # type: ignore[arg-type]


def gaps(sealed: list[Sealed], entity: str | None = None) -> list[tuple[GapReason, int, Workload]]:
    return [(u.gap_reason, u.duration_ns // SECOND, w) for w, u in rows(sealed, entity) if u.gap_reason]


# ---- journals -----------------------------------------------------------------------------------------
