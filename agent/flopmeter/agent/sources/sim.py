"""The `sim` source: a scripted node whose counters are computed from the time, for demo, tests and benches.

Every counter is an exact integral of the script from boot to the instant asked for, in integers, so that a
month of history costs one reading per step and two readings differ by exactly what was done between them.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from flopmeter.agent import reading as ids
from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import NodeFacts, Reading
from flopmeter.contract.clock import Clock
from flopmeter.contract.usage import IDLE, Device

from .sim_script import (
    FOREVER_NS,
    SimDead,
    SimDevice,
    SimFault,
    SimJob,
    SimReadError,
    SimReset,
    SimScript,
    default_script,
)

_MILLION = 1_000_000
_STEPS = 16
_STEP_NS = 6_000_000_000  # a load wave of 96 s: slower than a tick, faster than a window is long
_CLOCK_SAMPLES = 4  # per reading, spread over the time since the previous one
_FIRST_SPAN_NS = 1_000_000_000  # what percentages are averaged over at the first reading

#: Pipe counters in the order of _utils; each also as the percentage ids that show the same pipe.
_PIPE_IDS = (
    ids.SM_CYCLES_ACTIVE,
    ids.MMA_CYCLES_ACTIVE,
    ids.DMMA_CYCLES_ACTIVE,
    ids.HMMA_CYCLES_ACTIVE,
    ids.IMMA_CYCLES_ACTIVE,
    ids.DFMA_CYCLES_ACTIVE,
    ids.INTEGER_CYCLES_ACTIVE,
    ids.FP64_CYCLES_ACTIVE,
    ids.FP32_CYCLES_ACTIVE,
    ids.FP16_CYCLES_ACTIVE,
)
_PERCENT_OF = (
    ids.SM_UTIL,
    ids.ANY_TENSOR_UTIL,
    ids.DMMA_TENSOR_UTIL,
    ids.HMMA_TENSOR_UTIL,
    ids.IMMA_TENSOR_UTIL,
    ids.DFMA_TENSOR_UTIL,
    ids.INTEGER_UTIL,
    ids.FP64_UTIL,
    ids.FP32_UTIL,
    ids.FP16_UTIL,
)
_NO_PIPES = (0,) * len(_PIPE_IDS)


class _Wave:
    """Clock and load over time, periodic and stepwise constant, with exact integrals from boot on.

    Units: clock in kHz, load in ppm of the job's stated utilisation; kHz x ns = 10^-6 cycles of one SM.
    """

    __slots__ = ("_clock", "_load", "_period", "_sums", "_work")

    def __init__(self, clock_khz: Sequence[int], load_ppm: Sequence[int]) -> None:
        self._clock = tuple(clock_khz)
        self._load = tuple(load_ppm)
        self._work = tuple(c * p for c, p in zip(clock_khz, load_ppm, strict=True))
        self._period = _STEP_NS * len(self._clock)
        self._sums = [(0, 0, 0)]
        for c, w, p in zip(self._clock, self._work, self._load, strict=True):
            e, work, load = self._sums[-1]
            self._sums.append((e + c * _STEP_NS, work + w * _STEP_NS, load + p * _STEP_NS))

    def integrals(self, t_ns: int) -> tuple[int, int, int]:
        """(clock, clock x load, load) integrated over time from 0 to `t_ns`."""
        periods, rest = divmod(t_ns, self._period)
        step, rest = divmod(rest, _STEP_NS)
        e, work, load = self._sums[step]
        all_e, all_work, all_load = self._sums[-1]
        return (
            periods * all_e + e + self._clock[step] * rest,
            periods * all_work + work + self._work[step] * rest,
            periods * all_load + load + self._load[step] * rest,
        )

    def clock_mhz(self, t_ns: int) -> float:
        return self._clock[t_ns % self._period // _STEP_NS] / 1000

    def load(self, t_ns: int) -> float:
        return self._load[t_ns % self._period // _STEP_NS] / _MILLION


@dataclass(frozen=True, slots=True)
class _State:
    """Exact counters of one device at one instant, before scaling and rounding."""

    clock: int = 0  # kHz x ns
    pipes: tuple[int, ...] = _NO_PIPES  # kHz x ns x ppm x ppm
    energy: int = 0  # W x ns x ppm x ppm


class _Segment:
    """A stretch in which one device does one thing; `base` is its state at the start."""

    __slots__ = ("_from", "_idle_power", "_power", "_utils", "_wave", "base", "job", "start_ns")

    def __init__(self, start_ns: int, device: SimDevice, job: SimJob | None, seed: str) -> None:
        self.start_ns = start_ns
        self.job = job
        self.base = _State()
        self._idle_power = device.idle_w * _MILLION * _MILLION
        self._utils = _utils(job) if job else _NO_PIPES
        self._power = round((device.max_w - device.idle_w) * job.power_share * _MILLION) if job else 0
        self._wave = _wave(device, job, seed) if job else _Wave((device.idle_clock_mhz * 1000,), (0,))
        self._from = self._wave.integrals(start_ns)

    def state(self, t_ns: int) -> _State:
        clock, work, load = self._wave.integrals(t_ns)
        clock0, work0, load0 = self._from
        work -= work0
        base = self.base
        return _State(
            base.clock + clock - clock0,
            tuple([b + u * work for b, u in zip(base.pipes, self._utils, strict=True)])
            if self.job
            else base.pipes,
            base.energy + self._idle_power * (t_ns - self.start_ns) + self._power * (load - load0),
        )

    def clock_mhz(self, t_ns: int) -> float:
        return self._wave.clock_mhz(t_ns)

    def power_mw(self, t_ns: int) -> int:
        return round((self._idle_power / _MILLION + self._power * self._wave.load(t_ns)) / 1000)


class _SimGpu:
    """One device's whole timeline."""

    def __init__(self, script: SimScript, index: int) -> None:
        self.spec = script.devices[index]
        self.entity = script.entity(index)
        self.faults = [f for f in script.faults if f.device == index]
        self.jobs = [j for j in script.jobs if not j.devices or index in j.devices]
        self.last_ns = -1
        self.last = _State()
        resets = {f.at_boot_ns for f in self.faults if isinstance(f, SimReset)}
        edges = {0} | resets | {t for j in self.jobs for t in (j.start_boot_ns, j.end_boot_ns)}
        self._segments: list[_Segment] = []
        for start in sorted(t for t in edges if 0 <= t < FOREVER_NS):
            job = self._job_at(start)
            segment = _Segment(start, self.spec, job, f"{script.seed} {script.node} {index}")
            if self._segments and start not in resets:
                segment.base = self._segments[-1].state(start)
            self._segments.append(segment)
        self._starts = [s.start_ns for s in self._segments]

    def _job_at(self, t_ns: int) -> SimJob | None:
        found = [j for j in self.jobs if j.start_boot_ns <= t_ns < j.end_boot_ns]
        if len(found) > 1:
            raise SourceError(
                f"simulation script: {self.entity}: expected one job at a time, got "
                f"{', '.join(j.workload.job for j in found)} at {t_ns} ns",
                "give the jobs devices or times of their own",
            )
        return found[0] if found else None

    def segment(self, t_ns: int) -> _Segment:
        return self._segments[bisect_right(self._starts, t_ns) - 1]

    def error_at(self, t_ns: int) -> str | None:
        for fault in self.faults:
            if not isinstance(fault, SimReset) and fault.from_boot_ns <= t_ns < fault.to_boot_ns:
                return "NVML_ERROR_GPU_IS_LOST" if isinstance(fault, SimDead) else fault.code
        return None


class SimSource:
    """A Source. `read` takes the time from the clock, `reading_at` any time; both are deterministic.

    A reading's percentages and clock samples cover the time since the previous reading of the entity, as
    NVML's do, so entities are read in time order (or again from the start with a new SimSource).
    """

    def __init__(self, script: SimScript, clock: Clock) -> None:
        self._script = script
        self._clock = clock
        self._gpus = {(gpu := _SimGpu(script, i)).entity: gpu for i in range(len(script.devices))}
        for job in script.jobs:
            if any(not 0 <= i < len(script.devices) for i in job.devices):
                raise SourceError(f"simulation script: a job names a device beyond {len(script.devices)}")

    def facts(self) -> NodeFacts:
        return NodeFacts(
            node=self._script.node,
            boot_id=self._script.boot(),
            driver=self._script.driver,
            nvml=self._script.nvml,
            source="sim",
            devices=tuple(
                Device(
                    entity=gpu.entity,
                    name=gpu.spec.name,
                    compute_capability=gpu.spec.compute_capability,
                    sm_count=gpu.spec.sms,
                    max_sm_clock_mhz=gpu.spec.max_sm_clock_mhz,
                )
                for gpu in self._gpus.values()
            ),
            cluster=self._script.cluster,
        )

    def read(self, entity: str) -> Reading:
        return self.reading_at(entity, self._clock.boot_ns(), self._clock.unix_ns())

    def reading_at(self, entity: str, t_boot_ns: int, t_unix_ns: int) -> Reading:
        """The reading that `read` would give if the clocks showed these times."""
        gpu = self._gpus.get(entity)
        if gpu is None:
            return Reading(entity, t_boot_ns, t_unix_ns, error="NVML_ERROR_NOT_FOUND")
        if gpu.faults and (code := gpu.error_at(t_boot_ns)) is not None:
            return Reading(entity, t_boot_ns, t_unix_ns, error=code)
        script = self._script
        segment = gpu.segment(t_boot_ns)
        state = segment.state(t_boot_ns)
        job = segment.job
        since_ns = gpu.last_ns
        if not 0 <= since_ns < t_boot_ns:
            since_ns = max(0, t_boot_ns - _FIRST_SPAN_NS)
            gpu.last = gpu.segment(since_ns).state(since_ns)
        reading = Reading(
            entity=entity,
            t_boot_ns=t_boot_ns,
            t_unix_ns=t_unix_ns,
            cycles=self._cycles(gpu, state) if script.gpm != "percent" else {},
            percent=_percentages(gpu.last, state) if script.gpm != "cycles" else {},
            sm_clock_mhz=_clocks(gpu, segment, since_ns, t_boot_ns),
            energy_mj=state.energy // (_MILLION * _MILLION * _MILLION),
            power_mw=segment.power_mw(t_boot_ns),
            utilization_gpu_pct=100.0 if job else 0.0,
            memory_used_bytes=gpu.spec.memory_bytes * (85 if job else 1) // 100,
            workload=job.workload if job else IDLE,
        )
        gpu.last_ns, gpu.last = t_boot_ns, state
        return reading

    def close(self) -> None:
        pass

    def _cycles(self, gpu: _SimGpu, state: _State) -> dict[int, int]:
        sms = gpu.spec.sms if self._script.scale == "sum" else 1
        unit = _MILLION * _MILLION * _MILLION
        cycles = {pipe: value * sms // unit for pipe, value in zip(_PIPE_IDS, state.pipes, strict=True)}
        cycles[ids.SM_CYCLES_ELAPSED] = state.clock * sms // _MILLION
        return cycles


def _percentages(before: _State, now: _State) -> dict[int, float]:
    if now.clock < before.clock:  # the counters restarted in between
        before = _State()
    elapsed = now.clock - before.clock
    if elapsed == 0:
        return {}
    unit = elapsed * (_MILLION * _MILLION) / 100
    return {i: (b - a) / unit for i, a, b in zip(_PERCENT_OF, before.pipes, now.pipes, strict=True)}


def _clocks(gpu: _SimGpu, segment: _Segment, since_ns: int, t_ns: int) -> tuple[float, ...]:
    step = (t_ns - since_ns) // _CLOCK_SAMPLES
    times = [t_ns - i * step for i in range(_CLOCK_SAMPLES - 1, -1, -1)] if step else [t_ns]
    if segment.start_ns <= times[0]:
        return tuple([segment.clock_mhz(t) for t in times])
    return tuple([gpu.segment(t).clock_mhz(t) for t in times])


def _utils(job: SimJob) -> tuple[int, ...]:
    """Utilisations in ppm, in the order of _PIPE_IDS."""
    hmma = job.tensor_util - job.imma_util - job.dmma_util - job.tensor_other_util
    shares = (
        job.sm_active_util,
        job.tensor_util,
        job.dmma_util,
        hmma,
        job.imma_util,
        job.dmma_util,  # DFMA and DMMA are one pipe under two names (reference/metering.md 4.2)
        job.int_util,
        job.fp64_util,
        job.fp32_util,
        job.fp16_util,
    )
    if not all(s >= -1e-9 and s * (1 + job.swing) <= 1 for s in shares) or not 0 <= job.swing < 1:
        raise SourceError(
            f"simulation script: job {job.workload.job}: expected utilisations from 0 to 1, swing included",
            "lower the utilisation or the swing",
        )
    return tuple(max(0, round(s * _MILLION)) for s in shares)


def _wave(device: SimDevice, job: SimJob, seed: str) -> _Wave:
    """Load swings by `job.swing`; the clock gives way to load, as under a power limit."""
    # Not for secrets: it has to come out the same every time.
    phase = random.Random(f"{seed} {job.workload.job} {job.start_boot_ns}").random()  # noqa: S311
    swings = [job.swing * math.sin(2 * math.pi * (k / _STEPS + phase)) for k in range(_STEPS)]
    mean_khz = device.max_sm_clock_mhz * 1000 * job.clock_share
    clock = [min(round(mean_khz * (1 - s / 2)), device.max_sm_clock_mhz * 1000) for s in swings]
    return _Wave(clock, [round(_MILLION * (1 + s)) for s in swings])


__all__ = [
    "FOREVER_NS",
    "SimDead",
    "SimDevice",
    "SimFault",
    "SimJob",
    "SimReadError",
    "SimReset",
    "SimScript",
    "SimSource",
    "default_script",
]
