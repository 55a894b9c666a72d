"""The driver's functions as this agent calls them. The only importer of pynvml; its errors end here.

What is asked every second is bound once, arguments and answer included, to the function of the library that
nvidia-ml-py has loaded: a call then costs a call. Errors are NvmlError, with NVML's own names.
"""

import ctypes
import logging
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pynvml as _binding

#: The published type stubs are older than the binding.
pynvml: Any = _binding

log = logging.getLogger(__name__)
_T = TypeVar("_T")

Handle = Any  # nvmlDevice_t

_NAMES: dict[int, str] = {
    value: name
    for name, value in vars(pynvml).items()
    if name.startswith("NVML_ERROR_") and type(value) is int
}
OK = 0
NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, INSUFFICIENT_SIZE, FUNCTION_NOT_FOUND = 3, 4, 6, 7, 13
UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH, GPU_NOT_FOUND = (
    1,
    9,
    15,
    16,
    18,
    28,
)
#: After these the handle is of no more use: NVML must be started again (reference/metering.md 6.1).
GPU_GONE = frozenset((GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND))
DRIVER_GONE = frozenset((UNINITIALIZED, DRIVER_NOT_LOADED, VERSION_MISMATCH))
FATAL = GPU_GONE | DRIVER_GONE
#: These stay as they are until NVML is started again: the function is not asked again.
NEVER = frozenset((NOT_SUPPORTED, FUNCTION_NOT_FOUND, NO_PERMISSION))

#: nvmlClockType_t and nvmlSamplingType_t of the SM clock.
SM_CLOCK = pynvml.NVML_CLOCK_SM
CLOCK_SAMPLES = pynvml.NVML_PROCESSOR_CLK_SAMPLES
#: nvmlGpuVirtualizationMode_t: inside a virtual machine, with a share of a GPU.
VGPU_GUEST = 2


class NvmlError(Exception):
    """NVML's error code of a call that failed."""

    def __init__(self, code: int) -> None:
        super().__init__(name_of(code))
        self.code = code

    @property
    def name(self) -> str:
        return name_of(self.code)


def name_of(code: int) -> str:
    """NVML's name of an error, as traces and readings carry it."""
    return _NAMES.get(code, f"NVML_ERROR_{code}")


def call(function: Callable[..., _T], *args: Any) -> _T:
    """A function of the binding; its error as NvmlError, a text that is none as UNKNOWN."""
    try:
        return function(*args)
    except pynvml.NVMLError as e:
        raise NvmlError(e.value) from e
    except UnicodeDecodeError as e:
        raise NvmlError(pynvml.NVML_ERROR_UNKNOWN) from e


def optional(function: Callable[..., _T], *args: Any) -> _T | None:
    try:
        return call(function, *args)
    except NvmlError:
        return None


# The node and its devices, asked seldom. Each raises NvmlError.
start: Callable[[], None] = partial(call, pynvml.nvmlInit)
stop: Callable[[], None] = partial(call, pynvml.nvmlShutdown)
driver_version: Callable[[], str] = partial(call, pynvml.nvmlSystemGetDriverVersion)
nvml_version: Callable[[], str] = partial(call, pynvml.nvmlSystemGetNVMLVersion)
device_count: Callable[[], int] = partial(call, pynvml.nvmlDeviceGetCount)
device_at: Callable[[int], Handle] = partial(call, pynvml.nvmlDeviceGetHandleByIndex)
uuid: Callable[[Handle], str] = partial(call, pynvml.nvmlDeviceGetUUID)
compute_capability: Callable[[Handle], tuple[int, int]] = partial(
    call, pynvml.nvmlDeviceGetCudaComputeCapability
)
name: Callable[[Handle], str] = partial(call, pynvml.nvmlDeviceGetName)
serial: Callable[[Handle], str] = partial(call, pynvml.nvmlDeviceGetSerial)
cores: Callable[[Handle], int] = partial(call, pynvml.nvmlDeviceGetNumGpuCores)
mig_mode: Callable[[Handle], list[int]] = partial(call, pynvml.nvmlDeviceGetMigMode)
mig_count: Callable[[Handle], int] = partial(call, pynvml.nvmlDeviceGetMaxMigDeviceCount)
mig_at: Callable[[Handle, int], Handle] = partial(call, pynvml.nvmlDeviceGetMigDeviceHandleByIndex)
gpu_instance_of: Callable[[Handle], int] = partial(call, pynvml.nvmlDeviceGetGpuInstanceId)
persistence: Callable[[Handle], int] = partial(call, pynvml.nvmlDeviceGetPersistenceMode)
virtualization: Callable[[Handle], int] = partial(call, pynvml.nvmlDeviceGetVirtualizationMode)


def max_sm_clock(handle: Handle) -> int:
    return int(call(pynvml.nvmlDeviceGetMaxClockInfo, handle, SM_CLOCK))


def mig_sms(mig: Handle) -> int:
    """SMs of a compute instance."""
    return int(call(pynvml.nvmlDeviceGetAttributes_v2, mig).multiprocessorCount)


def placement(handle: Handle, gpu_instance: int) -> tuple[int, int]:
    """(first slice, slices) of a GPU instance: only an administrator may ask."""
    instance = call(pynvml.nvmlDeviceGetGpuInstanceById, handle, gpu_instance)
    at = call(pynvml.nvmlGpuInstanceGetInfo, instance).placement
    return int(at.start), int(at.size)


def pci_address(handle: Handle) -> str:
    return str(call(pynvml.nvmlDeviceGetPciInfo, handle).busId)


def confidential() -> bool:
    """Whether the node's GPUs are in confidential-computing mode."""
    return bool(call(pynvml.nvmlSystemGetConfComputeState).ccFeature == pynvml.NVML_CC_SYSTEM_FEATURE_ENABLED)


def has_gpm(handle: Handle) -> bool:
    return bool(call(pynvml.nvmlGpmQueryDeviceSupport, handle).isSupportedDevice)


def process_utilization(handle: Handle, since_us: int) -> list[tuple[int, int, int]]:
    """(pid, time in us, SM share in percent) newer than `since_us`. No samples is NOT_FOUND: nobody is known."""
    samples = call(pynvml.nvmlDeviceGetProcessUtilization, handle, since_us)
    return [(s.pid, s.timeStamp, s.smUtil) for s in samples]


def address_of_library() -> int:
    """Where a function of the loaded library lies in memory; 0 = not known."""
    try:
        return ctypes.cast(pynvml.nvmlLib.nvmlInitWithFlags, ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


# What is asked every second ---------------------------------------------------------------------------------


def function(symbol: str) -> Any:
    """The library's function itself. Raises NvmlError where this driver lacks it."""
    try:
        return getattr(pynvml.nvmlLib, symbol)
    except AttributeError as e:
        raise NvmlError(FUNCTION_NOT_FOUND) from e


class Value:
    """One number of a device. `ask` gives None where this driver or GPU has it not; fatal errors are raised.

    `at` is its place in an answer that holds several, `clear` how many of which type.
    """

    __slots__ = ("_at", "_call", "_out", "_what")

    def __init__(self, what: str, symbol: str, handle: Handle, answer: Any, at: int = 0, *args: Any) -> None:
        self._what = what
        self._out = answer()
        self._at = at
        self._call: Any = None
        try:
            self._call = partial(function(symbol), handle, *args, self._out)
        except NvmlError as e:
            log.info("nvml: no %s: %s", what, e.name)

    @property
    def never(self) -> bool:
        return self._call is None

    def ask(self) -> int | None:
        if self._call is None:
            return None
        code = self._call()
        if code == OK:
            value: int = self._out[self._at]
            return value
        if code in FATAL:
            raise NvmlError(code)
        if code in NEVER:
            self._call = None
            log.info("nvml: no %s: %s", self._what, name_of(code))
        return None


_UINT, _UINTS2, _ULONG, _ULONGS3 = (
    ctypes.c_uint * 1,
    ctypes.c_uint * 2,
    ctypes.c_ulonglong * 1,
    ctypes.c_ulonglong * 3,
)


def sm_clock(handle: Handle) -> Value:
    return Value("clock", "nvmlDeviceGetClockInfo", handle, _UINT, 0, SM_CLOCK)


def power_mw(handle: Handle) -> Value:
    return Value("power", "nvmlDeviceGetPowerUsage", handle, _UINT)


def energy_mj(handle: Handle) -> Value:
    return Value("energy", "nvmlDeviceGetTotalEnergyConsumption", handle, _ULONG)


def utilization_pct(handle: Handle) -> Value:
    return Value("utilization", "nvmlDeviceGetUtilizationRates", handle, _UINTS2)


def memory_used(handle: Handle) -> Value:
    return Value("memory", "nvmlDeviceGetMemoryInfo", handle, _ULONGS3, 2)  # total, free, used


def event_reasons(handle: Handle) -> Value:
    """Drivers before R535 know the mask by its old name."""
    now = Value("event reasons", "nvmlDeviceGetCurrentClocksEventReasons", handle, _ULONG)
    if not now.never:
        return now
    return Value("throttle reasons", "nvmlDeviceGetCurrentClocksThrottleReasons", handle, _ULONG)


class Ring:
    """The driver's buffer of SM clock samples of one GPU."""

    __slots__ = ("_call", "_count", "_kind", "_out", "_since", "room")

    #: A sample by nvmlValueType_t: double, unsigned int, unsigned long, unsigned long long, signed long long, int,
    #: unsigned short.
    _SAMPLES = tuple(struct.Struct("=Q" + form) for form in ("d", "I4x", "Q", "Q", "q", "i4x", "H6x"))

    def __init__(self, handle: Handle) -> None:
        """Raises NvmlError where there is none."""
        ask = function("nvmlDeviceGetSamples")
        self._kind, self._count, self._since = ctypes.c_uint(), ctypes.c_uint(), ctypes.c_ulonglong()
        head = (handle, ctypes.c_uint(CLOCK_SAMPLES), self._since, ctypes.byref(self._kind))
        if code := ask(*head, ctypes.byref(self._count), None):
            raise NvmlError(code)
        self.room = self._count.value
        self._out = (ctypes.c_char * (16 * self.room))()
        self._call = partial(ask, *head, ctypes.byref(self._count), self._out)

    def since(self, seen_us: int) -> list[tuple[int, float]]:
        """(time in us, MHz) of the samples after `seen_us`, oldest first; none is an empty list."""
        self._since.value, self._count.value = seen_us, self.room
        code = self._call()
        if code == NOT_FOUND:
            return []
        if code:
            raise NvmlError(code)
        count, kind = min(self._count.value, self.room), self._kind.value
        if not count or not 0 <= kind < len(self._SAMPLES):
            return []
        data = memoryview(self._out)[: 16 * count]
        found = list(self._SAMPLES[kind].iter_unpack(data))
        found.sort()
        if found[0][0] <= seen_us:
            found = [sample for sample in found if sample[0] > seen_us]
        return found


class Processes:
    """Compute processes of one device, by host PID."""

    __slots__ = ("_calls", "_count", "_handle", "_out", "_room")

    _ENTRY = 24  # bytes: pid, memory, GPU instance, compute instance; the v2 and the v3 call have the same
    _PID = struct.Struct("=I20x")

    def __init__(self, handle: Handle) -> None:
        """Raises NvmlError where neither call is there."""
        self._handle = handle
        self._count = ctypes.c_uint()
        self._calls = []
        for version in ("_v3", "_v2"):
            try:
                self._calls.append(function("nvmlDeviceGetComputeRunningProcesses" + version))
            except NvmlError:
                continue
        if not self._calls:
            raise NvmlError(FUNCTION_NOT_FOUND)
        self._make_room(64)

    def _make_room(self, room: int) -> None:
        # Some R535 drivers write entries of 32 bytes into the v3 call: there is room for these too.
        self._room, self._out = room, (ctypes.c_char * (32 * room))()

    def ask(self) -> list[int]:
        """Raises NvmlError. Processes that come while it asks are asked for again, with more room."""
        for _ in range(8):
            self._count.value = self._room
            code = self._calls[0](self._handle, ctypes.byref(self._count), self._out)
            count = self._count.value
            if code == INSUFFICIENT_SIZE:
                self._make_room(max(count, self._room) * 2)
                continue
            if code:
                raise NvmlError(code)
            if not count:
                return []
            data = memoryview(self._out)[: self._ENTRY * min(count, self._room)]
            pids = [pid for (pid,) in self._PID.iter_unpack(data)]
            if 0 not in pids:
                return pids
            # No process has number 0: entries of another size (reference/metering.md 1.5). The v2 call is right.
            if len(self._calls) == 1:
                return [pid for pid in pids if pid]
            del self._calls[0]
        raise NvmlError(INSUFFICIENT_SIZE)


class _Metric(ctypes.Structure):
    _fields_ = (
        ("metric", ctypes.c_uint),
        ("code", ctypes.c_int),
        ("value", ctypes.c_double),
        ("names", ctypes.c_void_p * 3),
    )


#: A driver touches only the entries asked for; if one did touch the whole array that it was built with, this
#: has room for it (lengths so far: 98, 210, 333, 477; reference/metering.md 1.2).
GPM_ENTRIES = max(512, int(pynvml.NVML_GPM_METRIC_MAX))


class _Request(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint),
        ("count", ctypes.c_uint),
        ("older", ctypes.c_void_p),
        ("newer", ctypes.c_void_p),
        ("metrics", _Metric * GPM_ENTRIES),
    )


class GpmPair:
    """Two GPM samples of one GPU or GPU instance, and a request for metrics that is written once."""

    __slots__ = ("_form", "_get", "_newer", "_older", "_request", "_take", "ids")

    _METRICS_AT = 24

    def __init__(self, handle: Handle, gpu_instance: int) -> None:
        """Takes no sample yet. Raises NvmlError."""
        if gpu_instance < 0:
            self._take = partial(function("nvmlGpmSampleGet"), handle)
        else:
            self._take = partial(function("nvmlGpmMigSampleGet"), handle, ctypes.c_uint(gpu_instance))
        self.ids: tuple[int, ...] = ()
        self._request = _Request(version=pynvml.NVML_GPM_METRICS_GET_VERSION)
        self._get = partial(function("nvmlGpmMetricsGet"), ctypes.byref(self._request))
        # Addresses, as the driver's own pointers hold them.
        self._older, self._newer = (
            ctypes.c_void_p.from_buffer(call(pynvml.nvmlGpmSampleAlloc)) for _ in range(2)
        )

    def take(self) -> None:
        """A new sample, in the place of the older. Raises NvmlError; then the two stay as they are."""
        if code := self._take(self._older):
            raise NvmlError(code)
        self._older, self._newer = self._newer, self._older

    def ask_for(self, ids: tuple[int, ...]) -> None:
        """Which metrics `get` gives, in this order."""
        self.ids = ids
        self._form = struct.Struct("=" + "4xid24x" * len(ids))
        self._request.count = len(ids)
        for i, metric in enumerate(ids):
            self._request.metrics[i].metric = metric

    def get(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """(codes, values) of the metrics asked for. Raises NvmlError if the call fails as a whole."""
        request = self._request
        request.older, request.newer = self._older, self._newer
        if code := self._get():
            raise NvmlError(code)
        flat = self._form.unpack_from(request, self._METRICS_AT)
        return flat[::2], flat[1::2]

    def free(self) -> None:
        """Samples die with NVML: free them first (reference/metering.md 1.2)."""
        for sample in (self._older, self._newer):
            optional(pynvml.nvmlGpmSampleFree, sample)
