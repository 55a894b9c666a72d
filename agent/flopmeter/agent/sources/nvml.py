"""The `nvml` source: the driver's own counters. The only importer of pynvml; its errors end here.

GPM gives since-boot cycle counters (ids 248-260, driver R595 and later) and percentages on Hopper and later;
older GPUs give utilisation, energy and clocks only. Every function may be missing from an old driver and
every value may fail alone: then that value is not read. A GPU that is lost or must be reset gives error
readings until `facts` is asked again, which starts NVML anew.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pynvml

from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import CYCLE_IDS, PERCENT_IDS, NodeFacts, Process, Reading
from flopmeter.contract.clock import Clock
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_entity, check_label
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import Device

from .node import boot_id, node_name, start_ticks
from .values import clock_mhz, counter, percent

log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Two GPM samples closer than this give invalid values (reference/metering.md 0.3, 1.2), with room.
GPM_MIN_APART_NS = 120_000_000
_CYCLES = frozenset(CYCLE_IDS)
_GPM_IDS = (*PERCENT_IDS, *CYCLE_IDS)

#: CUDA cores of one SM by compute capability (metering.md 3.1): cores / this = SMs. Others: not known.
_CORES_PER_SM = {"7.0": 64, "7.2": 64, "7.5": 64, "8.0": 64, "8.6": 128, "8.7": 128, "8.9": 128, "9.0": 128}
_CORES_PER_SM_BY_MAJOR = {10: 128, 11: 128, 12: 128}

_NAMES: dict[int, str] = {
    value: name
    for name, value in vars(pynvml).items()
    if name.startswith("NVML_ERROR_") and type(value) is int
}
_CODES = {name: value for value, name in _NAMES.items()}
#: After these the handle is of no more use: NVML must be started again (metering.md 6.1).
_FATAL = frozenset(
    _CODES[name]
    for name in (
        "NVML_ERROR_UNINITIALIZED",
        "NVML_ERROR_DRIVER_NOT_LOADED",
        "NVML_ERROR_GPU_IS_LOST",
        "NVML_ERROR_RESET_REQUIRED",
        "NVML_ERROR_LIB_RM_VERSION_MISMATCH",
        "NVML_ERROR_GPU_NOT_FOUND",
    )
    if name in _CODES
)
#: These stay as they are until NVML is started again: the function is not asked again.
_NEVER = frozenset(
    _CODES[name]
    for name in ("NVML_ERROR_NOT_SUPPORTED", "NVML_ERROR_FUNCTION_NOT_FOUND", "NVML_ERROR_NO_PERMISSION")
)
_HINTS = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "install the NVIDIA driver, or pass libnvidia-ml.so.1 into the container "
    "(NVIDIA_DRIVER_CAPABILITIES=utility); without GPUs use --source sim",
    "NVML_ERROR_DRIVER_NOT_LOADED": "load the NVIDIA kernel module (nvidia-smi shows whether it runs)",
    "NVML_ERROR_NO_PERMISSION": "allow the agent to open /dev/nvidiactl and /dev/nvidia*",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "the driver was updated under its library: reboot or reload it",
}


def error_name(error: pynvml.NVMLError) -> str:
    """NVML's name of the error, as traces and readings carry it."""
    return _NAMES.get(error.value, f"NVML_ERROR_{error.value}")


@dataclass(slots=True, eq=False)
class _Gpm:
    """Two samples of one entity, taken in turns."""

    older: pynvml.c_nvmlGpmSample_t
    newer: pynvml.c_nvmlGpmSample_t
    taken_ns: int  # when `newer` was taken
    working: tuple[int, ...] = ()  # metric ids that answer; () = not probed yet


@dataclass(slots=True, eq=False)
class _Entity:
    """One metered entity: a GPU, or a MIG GPU instance with the handles of its compute instances."""

    device: Device
    handle: pynvml.c_nvmlDevice_t  # the GPU's own
    migs: list[pynvml.c_nvmlDevice_t] = field(default_factory=list)
    cut: bool = False  # a GPU whose SMs are metered in its instances
    gpm: _Gpm | None = None
    never: set[str] = field(default_factory=set)  # functions that this entity does not have
    clock_seen_us: int = 0
    process_seen_us: int = 0
    busy: bool = False


class NvmlSource:
    """A Source over NVML. Entities may be read from several threads, each entity by one at a time."""

    def __init__(self, clock: Clock, node: str = "") -> None:
        self._clock = clock
        self._node = node or node_name()
        self._boot_id = boot_id()
        self._lock = threading.Lock()
        self._reading = 0  # reads inside NVML right now: it must not be shut down under them
        self._stale = False
        self._entities: dict[str, _Entity] = {}
        self._driver = self._nvml = ""
        self._start()

    def facts(self) -> NodeFacts:
        """The node now; starts NVML anew after a GPU was lost, unless a read still hangs inside it."""
        with self._lock:
            if self._stale and self._reading == 0:
                self._stop()
                self._start()
            devices = tuple(e.device for e in self._entities.values())
        return NodeFacts(self._node, self._boot_id, self._driver, self._nvml, "nvml", devices)

    def read(self, entity: str) -> Reading:
        with self._lock:
            found = self._entities.get(entity)
            if found is None or found.busy:
                code = "NVML_ERROR_NOT_FOUND" if found is None else "READ_HUNG"
                return Reading(entity, self._clock.boot_ns(), self._clock.unix_ns(), error=code)
            found.busy = True
            self._reading += 1
        try:
            return self._read(found)
        except pynvml.NVMLError as e:
            if e.value in _FATAL:
                self._stale = True
            return Reading(entity, self._clock.boot_ns(), self._clock.unix_ns(), error=error_name(e))
        finally:
            with self._lock:
                found.busy = False
                self._reading -= 1

    def close(self) -> None:
        with self._lock:
            if self._reading == 0:  # a read that hangs keeps NVML: the process's end frees it
                self._stop()

    # ---- start and stop ------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as e:
            hint = _HINTS.get(error_name(e), "run `nvidia-smi` to see whether the driver works")
            raise SourceError(f"nvml: cannot start NVML: {e} ({error_name(e)})", hint) from e
        try:
            self._driver = _text(pynvml.nvmlSystemGetDriverVersion) or ""
            self._nvml = _text(pynvml.nvmlSystemGetNVMLVersion) or ""
            self._entities = {}
            for index in range(pynvml.nvmlDeviceGetCount()):
                try:
                    self._find(index)
                except (pynvml.NVMLError, ContractError) as e:
                    log.warning("nvml: GPU %d is left out: %s", index, e)
        except pynvml.NVMLError as e:
            self._stop()
            raise SourceError(f"nvml: cannot list the GPUs: {e} ({error_name(e)})", "run `nvidia-smi`") from e
        self._stale = False

    def _stop(self) -> None:
        """Samples die with NVML: freed first (metering.md 1.2)."""
        for entity in self._entities.values():
            if entity.gpm is not None:
                for sample in (entity.gpm.older, entity.gpm.newer):
                    _optional(pynvml.nvmlGpmSampleFree, sample)
        self._entities = {}
        _optional(pynvml.nvmlShutdown)

    def _find(self, index: int) -> None:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        capability = f"{major}.{minor}"
        mode = _optional(pynvml.nvmlDeviceGetMigMode, handle)
        cut = mode is not None and mode[0] == 1
        cores = _optional(pynvml.nvmlDeviceGetNumGpuCores, handle) or 0
        per_sm = _CORES_PER_SM.get(capability) or _CORES_PER_SM_BY_MAJOR.get(major, 0)
        clock = _optional(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM) or 0
        gpu = Device(
            entity=check_entity(pynvml.nvmlDeviceGetUUID(handle)),
            name=_text(pynvml.nvmlDeviceGetName, handle) or "",
            compute_capability=capability,
            sm_count=cores // per_sm if per_sm else 0,
            max_sm_clock_mhz=clock if 0 < clock <= MAX_SM_CLOCK_MHZ else 0,
            serial=_text(pynvml.nvmlDeviceGetSerial, handle) or "",
        )
        instances = self._instances(handle, gpu) if cut else []
        entity = _Entity(gpu, handle, cut=bool(instances))
        self._entities[gpu.entity] = entity
        for instance in instances:
            self._entities[instance.device.entity] = instance
        supported = _optional(pynvml.nvmlGpmQueryDeviceSupport, handle)
        if supported is not None and supported.isSupportedDevice:
            for each in instances or [entity]:
                _optional(self._open_gpm, each)

    def _instances(self, handle: pynvml.c_nvmlDevice_t, gpu: Device) -> list[_Entity]:
        """MIG GPU instances. NVML lists compute instances; those of one GPU instance share its counters."""
        found: dict[int, _Entity] = {}
        for index in range(_optional(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            mig = _optional(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
            if mig is None:
                continue
            instance = pynvml.nvmlDeviceGetGpuInstanceId(mig)
            attributes = _optional(pynvml.nvmlDeviceGetAttributes_v2, mig)
            sms = attributes.multiprocessorCount if attributes is not None else 0
            if (known := found.get(instance)) is not None:
                known.migs.append(mig)
                both = known.device.sm_count + sms if sms and known.device.sm_count else 0
                known.device = replace(known.device, sm_count=both)
                continue
            # Drivers before R470 name them MIG-GPU-…/gi/ci.
            uuid = check_entity(pynvml.nvmlDeviceGetUUID(mig).replace("/", "-"))
            name = _text(pynvml.nvmlDeviceGetName, mig) or gpu.name
            device = Device(
                entity=uuid,
                name=name,
                compute_capability=gpu.compute_capability,
                sm_count=sms,
                max_sm_clock_mhz=gpu.max_sm_clock_mhz,
                serial=gpu.serial,
                mig=True,
                parent=gpu.entity,
                gpu_instance=instance,
            )
            found[instance] = _Entity(device, handle, [mig])
        return list(found.values())

    # ---- one reading ---------------------------------------------------------------------------------

    def _read(self, e: _Entity) -> Reading:
        cycles: dict[int, int] = {}
        percents: dict[int, float] = {}
        t_boot_ns = 0
        if (gpm := e.gpm) is not None:
            self._ask(e, "gpm", self._read_gpm, e, gpm, cycles, percents)
            if cycles or percents:
                t_boot_ns = gpm.taken_ns  # the counters' own time, not that of the calls that follow
        now_ns = self._clock.boot_ns()
        t_boot_ns = t_boot_ns or now_ns
        memory = self._ask(e, "memory", pynvml.nvmlDeviceGetMemoryInfo, e.migs[0] if e.migs else e.handle)
        energy = power = rates = None
        if not e.migs:  # NVML has these per GPU only
            energy = self._ask(e, "energy", pynvml.nvmlDeviceGetTotalEnergyConsumption, e.handle)
            power = self._ask(e, "power", pynvml.nvmlDeviceGetPowerUsage, e.handle)
            rates = self._ask(e, "utilization", pynvml.nvmlDeviceGetUtilizationRates, e.handle)
        return Reading(
            entity=e.device.entity,
            t_boot_ns=t_boot_ns,
            t_unix_ns=self._clock.unix_ns() - (now_ns - t_boot_ns),
            cycles=cycles,
            percent=percents,
            sm_clock_mhz=self._clocks(e),
            energy_mj=counter(energy),
            power_mw=counter(power),
            utilization_gpu_pct=percent(rates.gpu) if rates is not None else None,
            memory_used_bytes=counter(memory.used) if memory is not None else None,
            processes=None if e.cut else self._processes(e),
        )

    def _ask(self, e: _Entity, what: str, call: Callable[..., _T], *args: Any) -> _T | None:
        """One value, or None where this driver or GPU has it not. Fatal errors go on up."""
        if what in e.never:
            return None
        try:
            return call(*args)
        except pynvml.NVMLError as error:
            if error.value in _FATAL:
                raise
            if error.value in _NEVER:
                e.never.add(what)
                log.info("nvml: %s: no %s: %s", e.device.entity, what, error_name(error))
            return None

    def _open_gpm(self, e: _Entity) -> None:
        older, newer = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
        e.gpm = _Gpm(older, newer, 0)
        try:
            self._sample(e, newer)
        except pynvml.NVMLError:
            e.gpm = None
            for sample in (older, newer):
                _optional(pynvml.nvmlGpmSampleFree, sample)
            raise
        e.gpm.taken_ns = self._clock.boot_ns()

    def _sample(self, e: _Entity, sample: pynvml.c_nvmlGpmSample_t) -> None:
        if e.device.mig:
            pynvml.nvmlGpmMigSampleGet(e.handle, e.device.gpu_instance, sample)
        else:
            pynvml.nvmlGpmSampleGet(e.handle, sample)

    def _read_gpm(self, e: _Entity, gpm: _Gpm, cycles: dict[int, int], percents: dict[int, float]) -> None:
        too_early_ns = gpm.taken_ns + GPM_MIN_APART_NS - self._clock.boot_ns()
        if too_early_ns > 0:  # the first reading after the start
            self._clock.wait(too_early_ns / 1e9)
        self._sample(e, gpm.older)
        gpm.older, gpm.newer = gpm.newer, gpm.older
        gpm.taken_ns = self._clock.boot_ns()
        for metric in self._metrics(gpm):
            if metric.nvmlReturn != 0:
                continue
            if metric.metricId in _CYCLES:
                if (count := counter(metric.value)) is not None:
                    cycles[metric.metricId] = count
            elif (share := percent(metric.value)) is not None:
                percents[metric.metricId] = share

    def _metrics(self, gpm: _Gpm) -> list[pynvml.c_nvmlGpmMetric_t]:
        """The pair's metrics. The first time all ids are tried, and those that answer are kept."""
        if gpm.working:
            return _metrics_get(gpm, gpm.working)
        try:
            metrics = _metrics_get(gpm, _GPM_IDS)
        except pynvml.NVMLError as error:
            if error.value in _FATAL:
                raise
            # A driver that refuses the whole list for one id it does not know: one by one, once.
            metrics = [m for i in _GPM_IDS for m in _optional(_metrics_get, gpm, (i,)) or ()]
        gpm.working = tuple(m.metricId for m in metrics if m.nvmlReturn == 0)
        return metrics

    def _clocks(self, e: _Entity) -> tuple[float, ...]:
        """The driver's buffered samples since the previous reading; else the one clock of this moment."""
        kind = pynvml.NVML_PROCESSOR_CLK_SAMPLES
        buffered = self._ask(e, "clock samples", pynvml.nvmlDeviceGetSamples, e.handle, kind, e.clock_seen_us)
        clocks: list[float] = []
        if buffered is not None:
            kind, samples = buffered
            fresh = [s for s in samples if s.timeStamp > e.clock_seen_us]
            if fresh:
                first = e.clock_seen_us == 0  # the buffer's past belongs to no interval of ours
                e.clock_seen_us = max(s.timeStamp for s in fresh)
                clocks = [
                    mhz
                    for s in (fresh[-1:] if first else fresh)
                    if (mhz := clock_mhz(_value(kind, s))) is not None
                ]
        if not clocks:
            now = self._ask(e, "clock", pynvml.nvmlDeviceGetClockInfo, e.handle, pynvml.NVML_CLOCK_SM)
            clocks = [mhz] if (mhz := clock_mhz(now)) is not None else []
        return tuple(clocks)

    def _processes(self, e: _Entity) -> tuple[Process, ...] | None:
        """Compute processes by host PID; None = cannot be asked. Shares are read where there are several."""
        pids: set[int] = set()
        for handle in e.migs or [e.handle]:
            listed = self._ask(e, "processes", _running, handle)
            if listed is None:
                return None
            pids.update(listed)
        shares = self._shares(e) if len(pids) > 1 and not e.migs else {}
        return tuple(Process(pid, start_ticks(pid), shares.get(pid)) for pid in sorted(pids))

    def _shares(self, e: _Entity) -> dict[int, float]:
        """Newest smUtil sample per process. No samples = NOT_FOUND: nobody is known to be idle by it."""
        samples = self._ask(
            e, "process utilization", pynvml.nvmlDeviceGetProcessUtilization, e.handle, e.process_seen_us
        )
        shares: dict[int, tuple[int, float]] = {}
        for s in samples or ():
            e.process_seen_us = max(e.process_seen_us, s.timeStamp)
            share = percent(s.smUtil)
            if share is not None and s.timeStamp >= shares.get(s.pid, (0, 0.0))[0]:
                shares[s.pid] = (s.timeStamp, share)
        return {pid: share for pid, (_, share) in shares.items()}


def _metrics_get(gpm: _Gpm, metric_ids: tuple[int, ...]) -> list[pynvml.c_nvmlGpmMetric_t]:
    request = pynvml.c_nvmlGpmMetricsGet_t()
    request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    request.numMetrics = len(metric_ids)
    request.sample1, request.sample2 = gpm.older, gpm.newer
    for i, metric in enumerate(metric_ids):
        request.metrics[i].metricId = metric
    pynvml.nvmlGpmMetricsGet(request)
    return [request.metrics[i] for i in range(len(metric_ids))]


def _running(handle: pynvml.c_nvmlDevice_t) -> list[int]:
    try:
        return [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    except pynvml.NVMLLibraryMismatchError:  # a driver older than the _v3 call
        return [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)]


#: nvmlValueType_t -> the union's member.
_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


def _value(kind: int, sample: pynvml.c_nvmlSample_t) -> Any:
    return getattr(sample.sampleValue, _MEMBERS[kind]) if 0 <= kind < len(_MEMBERS) else None


def _optional(call: Callable[..., _T], *args: Any) -> _T | None:
    try:
        return call(*args)
    except pynvml.NVMLError:
        return None


def _text(call: Callable[..., str], *args: Any) -> str | None:
    """A name from the driver, or None if it cannot be had or is no text that may stand in the books."""
    try:
        return check_label("name", call(*args).strip())
    except (pynvml.NVMLError, ContractError, UnicodeDecodeError):
        return None
