"""A simulated H200 that counts exactly, for running the whole program without one. Nothing here is a result.

Workloads advance a simulated clock and the counters of the pipes they would use; flopmeter's own meter then
reads them through a Source, as it reads NVML. The script says how this driver and GPU behave, in every way that
reference/metering.md section 9 leaves open.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flopmeter.agent.reading import CYCLE_IDS, PERCENT_IDS, NodeFacts, Process, Reading
from flopmeter.contract.usage import Device

from .agent_path import PersistentAgent
from .experiments_counters import PERCENT_OF_COUNTER, SINCE_R595
from .lab import SECOND, UnavailableError
from .work import Attention, Copy, Gemm, GptStack, Idle, IntMad, MmaSync, Work, padded

SMS = 132
GPU = "GPU-00000000-0000-4000-8000-0000000000f4"
#: FLOP per SM-cycle that this GPU really does, as reference/metering.md 3.2 has them for 9.0.
RATES = {"tf32": 2048, "bf16": 4096, "fp16": 4096, "fp8": 8192, "int8": 8192, "fp64": 256, "fp32": 256}
_COUNTER_OF_PERCENT = PERCENT_OF_COUNTER


class SimulatedClock:
    """Time that moves when somebody waits or works."""

    def __init__(self) -> None:
        self.boot = 5_000 * SECOND
        self.on_wait: Callable[[int], None] = lambda ns: None

    def boot_ns(self) -> int:
        return self.boot

    def unix_ns(self) -> int:
        return 1_790_000_000 * SECOND + self.boot

    def wait(self, seconds: float) -> bool:
        self.on_wait(max(0, round(seconds * 1e9)))
        return False


@dataclass(frozen=True, slots=True)
class Script:
    """How the driver and the GPU behave."""

    driver: str = "595.58.03"
    average: bool = True  # id 248 is an average over the SMs, else their sum
    fp8_in_hmma: bool = True  # else only the any-tensor counter sees it
    mma_sync_percent: int = 100  # rate of mma.sync against wgmma on a pipe that reads active
    counting_error_permille: int = 0  # what the pipe counters show too much
    torch_scaled_mm: bool = True
    torch_int_mm: bool = True
    second_user: bool = True
    ncu: bool = True
    mps: bool = False
    profiler_stops_gpm: bool = False
    gpm: bool = True
    pipes_stand_still: bool = False
    silent_when_idle: bool = False  # no tensor percentage without work
    refresh_ns: int = 100_000_000  # counters stand still in between

    @property
    def cycles(self) -> bool:
        return self.gpm and int(self.driver.partition(".")[0]) >= 595

    @property
    def percent_ids(self) -> tuple[int, ...]:
        return tuple(i for i in PERCENT_IDS if self.gpm and (self.cycles or i not in SINCE_R595))


@dataclass(slots=True)
class SimulatedGpu:
    """Exact SM-cycles by counter id; the clock is 1755 MHz at work and 345 MHz idle."""

    script: Script
    clock: SimulatedClock
    true: dict[int, int] = field(default_factory=lambda: dict.fromkeys(CYCLE_IDS, 10**13))
    energy_mj: int = 5_000_000
    power_mw: int = 90_000
    mhz: int = 345
    samples: list[tuple[int, float]] = field(default_factory=list)  # (us, MHz)
    copying: bool = False
    silent: bool = False  # GPM has stopped

    def idle(self, ns: int) -> None:
        self.mhz, self.power_mw = 345, 90_000
        self._pass(ns, {})

    def work(self, ns: int, active: Mapping[int, int]) -> None:
        """`ns` of work with so many active SM-cycles."""
        self.mhz, self.power_mw = 1755, 650_000
        self._pass(ns, active)

    def _pass(self, ns: int, active: Mapping[int, int]) -> None:
        step = 10_000_000
        begin = self.clock.boot
        for at in range(begin - begin % step + step, begin + ns + 1, step):
            self.samples.append((at // 1000, float(self.mhz)))
        del self.samples[:-20_000]
        elapsed = self.mhz * ns * SMS // 1000
        self.true[248] += elapsed
        for key, count in active.items():
            self.true[key] += count
        if active:
            self.true[249] += elapsed
        self.energy_mj += self.power_mw * ns // SECOND
        self.clock.boot += ns

    def shown(self) -> dict[int, int]:
        return {k: v // SMS if self.script.average else v for k, v in self.true.items()}


class FakeSource:
    """flopmeter's Source over the simulated GPU."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        self._gpu = gpu
        self._last = dict(gpu.true)
        self._last_us = gpu.clock.boot // 1000

    def facts(self) -> NodeFacts:
        device = Device(GPU, "NVIDIA H200", "9.0", SMS, max_sm_clock_mhz=1980)
        driver = self._gpu.script.driver
        return NodeFacts("simulated", bytes(range(16)), driver, "13." + driver, "nvml", (device,))

    def read(self, entity: str) -> Reading:
        gpu = self._gpu
        now, last = dict(gpu.true), self._last
        elapsed = now[248] - last[248]
        percent = {}
        if elapsed:
            for key in gpu.script.percent_ids:
                counter = _COUNTER_OF_PERCENT[key]
                percent[key] = min(100.0, 100 * (now[counter] - last[counter]) / elapsed)
        clocks = tuple(mhz for us, mhz in gpu.samples if us > self._last_us) or (float(gpu.mhz),)
        self._last, self._last_us = now, gpu.clock.boot // 1000
        pids = (1, 2) if gpu.copying else (1,)
        return Reading(
            entity,
            gpu.clock.boot_ns(),
            gpu.clock.unix_ns(),
            cycles=gpu.shown() if gpu.script.cycles and not gpu.silent else {},
            percent={} if gpu.silent else percent,
            sm_clock_mhz=clocks,
            energy_mj=gpu.energy_mj,
            power_mw=gpu.power_mw,
            utilization_gpu_pct=100.0,
            processes=tuple(Process(p, 1, 50.0 if gpu.copying else None) for p in pids),
        )

    def close(self) -> None:
        pass


class FakeRawGpm:
    def __init__(self, gpu: SimulatedGpu) -> None:
        self._gpu = gpu
        self._at = -1
        self._shown: dict[int, int] = {}

    def sample(self) -> dict[int, int]:
        tick = self._gpu.clock.boot // self._gpu.script.refresh_ns
        if tick != self._at:
            self._at, self._shown = tick, self._gpu.shown()
        return dict(self._shown)

    def metrics(
        self, older: dict[int, int], newer: dict[int, int], ids: tuple[int, ...]
    ) -> dict[int, tuple[int, float]]:
        found: dict[int, tuple[int, float]] = {}
        elapsed = newer[248] - older[248]
        for key in ids:
            if key in newer and self._gpu.script.cycles:
                found[key] = (0, float(newer[key]))
            elif self._gpu.script.silent_when_idle and newer[249] == older[249]:
                found[key] = (3, 0.0)
            elif key in self._gpu.script.percent_ids:
                counter = _COUNTER_OF_PERCENT[key]
                share = (newer[counter] - older[counter]) / elapsed if elapsed else 0.0
                found[key] = (0, 100 * share)
            elif key == 10 and self._gpu.script.gpm:
                found[key] = (0, 88.0)
            else:
                found[key] = (3, 0.0)  # NOT_SUPPORTED
        return found

    def clock_mhz(self) -> float:
        return float(self._gpu.mhz)

    def clock_samples(self, since_us: int) -> list[tuple[int, float]]:
        return [s for s in self._gpu.samples if s[0] > since_us]

    def fields(self, ids: tuple[int, ...]) -> dict[int, tuple[int, float]]:
        return {i: (0, float(self._gpu.true[248] // 1000)) if i == 272 else (3, 0.0) for i in ids}

    def close(self) -> None:
        pass


class FakeRunning:
    """Runs calls of `work` back to back, to the cycle."""

    def __init__(self, gpu: SimulatedGpu, work: Work, chunk_s: float) -> None:
        self._gpu = gpu
        self._active = self._cycles(work)
        busiest = max(self._active.values(), default=0)
        # The busiest pipe is active for 80 % of the elapsed cycles; a copy takes 2 ms.
        self._call_ns = busiest * 1000 * 100 // (1755 * SMS * 80)
        if isinstance(work, Copy):
            self._call_ns = 2_000_000
        self._idle = isinstance(work, Idle)
        self._calls = max(1, round(chunk_s * 1e9) // max(1, self._call_ns))

    def _cycles(self, work: Work) -> dict[int, int]:
        script = self._gpu.script
        active: dict[int, int] = {}
        match work:
            case Gemm():
                executed = padded(work.m, work.n, work.k, (128, 256))
                executed //= 2 if work.sparse else 1
                rate = RATES[work.dtype]
                count = executed // rate
                if work.route == "mma.sync":
                    count = executed * 100 // (rate * script.mma_sync_percent)
                pipes = {"fp64": (251, 254, 250), "int8": (253, 250), "fp32": (259,)}.get(
                    work.dtype, (252, 250)
                )
                if work.dtype == "fp8" and not script.fp8_in_hmma:
                    pipes = (250,)
                active = dict.fromkeys(pipes, count)
            case Attention():
                percent = 100 if work.backend == "cudnn" else script.mma_sync_percent
                active = dict.fromkeys((252, 250), work.flop * 100 // RATES["bf16"] // percent)
            case MmaSync():
                count = (work.flop + work.int_ops) * 100 // RATES[work.dtype] // script.mma_sync_percent
                active = dict.fromkeys((253 if work.dtype == "int8" else 252, 250), count)
            case GptStack():
                active = dict.fromkeys((252, 250), work.flop // RATES["bf16"]) | {259: work.flop // 100_000}
            case IntMad():
                active = dict.fromkeys((257, 259), work.int_ops // 128)
            case Copy():
                active = {257: 1000}
            case Idle():
                pass
        extra = script.counting_error_permille
        return {k: v + v * extra // 1000 for k, v in active.items()}

    def pump(self) -> int:
        if self._idle:
            self._gpu.idle(50_000_000)
            return 1
        still = self._gpu.script.pipes_stand_still
        active = {} if still else {k: v * self._calls for k, v in self._active.items()}
        self._gpu.work(self._calls * self._call_ns, active)
        return self._calls

    def drain(self) -> int:
        return 0

    def kernels(self) -> list[str]:
        return ["simulated_gemm_tilesize128x256x64_kernel"]

    def close(self) -> None:
        pass


class FakeAgent:
    def __init__(self, lab: "FakeLab", folder: Path, name: str) -> None:
        self._clock = lab.clock
        self._agent: PersistentAgent | None = PersistentAgent(lab.source(), folder, name, SECOND)
        self._agent.tick()
        self._due = self._clock.boot_ns() + SECOND

    def poll(self) -> None:
        if self._agent is not None and self._clock.boot_ns() >= self._due:
            self._due += SECOND
            self._agent.tick()

    def kill(self) -> None:
        self._agent = None

    def stop(self) -> None:
        if self._agent is not None:
            self._agent.stop()
            self._agent = None


class FakeHelper:
    """Another process: it works whenever time passes."""

    pid = 2

    def __init__(self, lab: "FakeLab", work: Work) -> None:
        self._lab = lab
        self._running = FakeRunning(lab.gpu, work, 0.05)
        self._copies = isinstance(work, Copy)
        self._calls = 0

    def go(self) -> None:
        self._lab.gpu.copying = True
        if not self._copies:
            self._lab.clock.on_wait = self._work

    def _work(self, ns: int) -> None:
        end = self._lab.clock.boot + ns
        while self._lab.clock.boot < end:
            self._calls += self._running.pump()

    def stop(self) -> int:
        self._lab.gpu.copying = False
        self._lab.clock.on_wait = self._lab.gpu.idle
        return self._calls


class FakeLab:
    """A lab without hardware; every result of it is marked as simulated."""

    simulated = True

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.clock = SimulatedClock()
        self.gpu = SimulatedGpu(self.script, self.clock)
        self.clock.on_wait = self.gpu.idle

    def describe(self) -> dict[str, Any]:
        return {"gpu": "NVIDIA H200", "driver": self.script.driver, "simulated": True, "user": "nobody"}

    def source(self) -> FakeSource:
        return FakeSource(self.gpu)

    def raw(self) -> FakeRawGpm:
        return FakeRawGpm(self.gpu)

    def build(self, work: Work, chunk_s: float) -> FakeRunning:
        if isinstance(work, Gemm) and work.dtype == "fp8" and not self.script.torch_scaled_mm:
            raise UnavailableError("this PyTorch has no torch._scaled_mm")
        if isinstance(work, Gemm) and work.dtype == "int8" and not self.script.torch_int_mm:
            raise UnavailableError("this PyTorch has no torch._int_mm")
        return FakeRunning(self.gpu, work, chunk_s)

    def sm_clocks(self) -> Mapping[int, tuple[int, int]]:
        return {0: (self.clock.boot, self.gpu.true[248] // SMS)}

    def agent(self, folder: Path, job: str) -> FakeAgent:
        return FakeAgent(self, folder, job)

    def helper(self, work: Work) -> FakeHelper:
        return FakeHelper(self, work)

    def mps(self) -> AbstractContextManager[None]:
        if not self.script.mps:
            raise UnavailableError("no MPS daemon here")
        return nullcontext()

    def probe_as_user(self) -> dict[str, Any]:
        if not self.script.second_user:
            raise UnavailableError("not root: there is no other user to become")
        ids = [*self.script.percent_ids, 10, *(CYCLE_IDS if self.script.cycles else ())]
        return {"answer": sorted(ids), "codes": {}}

    def profiled_flop(self, work: Work) -> dict[str, float]:
        if not self.script.ncu:
            raise UnavailableError("ncu is not installed")
        self.gpu.silent = self.script.profiler_stops_gpm
        return {"sm__ops_path_tensor_src_bf16_dst_fp32.sum": float(work.flop)}

    def close(self) -> None:
        pass
