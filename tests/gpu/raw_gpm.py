"""GPM, clocks and field values straight from NVML: for what flopmeter's own source would never ask for."""

from typing import Any

import pynvml

from .lab import UnavailableError


class NvmlRaw:
    """The first GPU. Samples belong to the caller's run; all are freed on close. Clocks and fields need no GPM."""

    def __init__(self) -> None:
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._refused = ""
        try:
            if not pynvml.nvmlGpmQueryDeviceSupport(self._handle).isSupportedDevice:
                self._refused = "this GPU has no GPM (Hopper or later is needed)"
        except pynvml.NVMLError as e:
            self._refused = f"this driver offers no GPM: {e}"
        self._samples: list[Any] = []
        self._free: list[Any] = []

    def sample(self) -> Any:
        """A sample of now. At most 64 are kept: the oldest is used again, so that a long run needs no more."""
        if self._refused:
            raise UnavailableError(self._refused)
        if len(self._samples) >= 64:
            self._free.append(self._samples.pop(0))
        sample = self._free.pop() if self._free else pynvml.nvmlGpmSampleAlloc()
        pynvml.nvmlGpmSampleGet(self._handle, sample)
        self._samples.append(sample)
        return sample

    def metrics(self, older: Any, newer: Any, ids: tuple[int, ...]) -> dict[int, tuple[int, float]]:
        found: dict[int, tuple[int, float]] = {}
        room = pynvml.NVML_GPM_METRIC_MAX - 1  # an old binding's array is shorter than newer ids need
        for start in range(0, len(ids), 64):
            some = ids[start : start + min(64, room)]
            request = pynvml.c_nvmlGpmMetricsGet_t()
            request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
            request.numMetrics = len(some)
            request.sample1, request.sample2 = older, newer
            for i, key in enumerate(some):
                request.metrics[i].metricId = key
            try:
                pynvml.nvmlGpmMetricsGet(request)
                metrics = [request.metrics[i] for i in range(len(some))]
                found |= {m.metricId: (int(m.nvmlReturn), float(m.value)) for m in metrics}
            except pynvml.NVMLError as e:
                if len(some) == 1:
                    found[some[0]] = (int(e.value), 0.0)
                else:  # refused for one id that it does not know: one by one
                    for key in some:
                        found |= self.metrics(older, newer, (key,))
        return found

    def clock_mhz(self) -> float:
        return float(pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM))

    def clock_samples(self, since_us: int) -> list[tuple[int, float]]:
        try:
            kind, samples = pynvml.nvmlDeviceGetSamples(
                self._handle, pynvml.NVML_PROCESSOR_CLK_SAMPLES, since_us
            )
        except pynvml.NVMLError:
            return []
        found = [(int(s.timeStamp), _number(kind, s.sampleValue)) for s in samples if s.timeStamp > since_us]
        return [(t, mhz) for t, mhz in found if mhz > 0]  # slots of the buffer that were never filled

    def fields(self, ids: tuple[int, ...]) -> dict[int, tuple[int, float]]:
        found: dict[int, tuple[int, float]] = {}
        try:
            values = pynvml.nvmlDeviceGetFieldValues(self._handle, list(ids))
        except pynvml.NVMLError as e:
            return {key: (int(e.value), 0.0) for key in ids}
        for value in values:
            number = _number(int(value.valueType), value.value)
            found[int(value.fieldId)] = (int(value.nvmlReturn), number)
        return found

    def close(self) -> None:
        for sample in (*self._samples, *self._free):
            pynvml.nvmlGpmSampleFree(sample)
        self._samples, self._free = [], []
        pynvml.nvmlShutdown()


def _number(kind: int, value: Any) -> float:
    """A member of nvmlValue_t by nvmlValueType_t."""
    members = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
    return float(getattr(value, members[kind] if 0 <= kind < len(members) else "ullVal"))
