"""One simulated node that follows its script: exact counters at any time, as readings."""

import hashlib
import uuid
from collections.abc import Iterator

from flopmeter.agent.reading import NodeFacts, Reading
from flopmeter.contract.usage import Device

from .scenario import CLOCK_MHZ, COMPUTE_CAPABILITY, HOUR_NS, SMS, Node, Scenario, Span, elapsed_cycles

#: Driver and NVML: one that counts cycles, and one that tells percentages only (reference/metering.md 1.1).
COUNTING = ("595.58.03", "13.595.58")
TELLING_PERCENT = ("570.195.03", "12.570.195")
#: The error that NVML names.
GPU_IS_LOST = "NVML_ERROR_GPU_IS_LOST"
#: The node has been up this long when its history begins: counters do not start at 0.
UPTIME_HOURS = 24 * 11
#: Full hours of the history lie this long before the node's own full hours since boot, where windows end:
#: so an hour's readings are in the window that closes right behind them.
BEFORE_EDGE_NS = 1_000_000_000
#: Of HMMA-active cycles: SMs are active a fifth longer, vector and integer pipes a share.
_ACTIVE_PPM = 1_200_000
#: An hour's clock samples as a driver's buffer has them, where percentages are worth what the clock was between them.
CLOCK_SAMPLES = 1_800  # one every 2 s: the furthest apart that they may be
_CLOCKS = (float(CLOCK_MHZ),) * CLOCK_SAMPLES
_FP32_PPM = 140_000
_INT_PPM = 90_000


class SimNode:
    """Readings of one node. Time is given in nanoseconds since the history began; hours are its grid.

    A reading at the end of a span still belongs to that span: it closes the interval that it ends.
    """

    def __init__(self, scenario: Scenario, node: Node, start_unix_ns: int) -> None:
        self.node = node
        self.last_hour = scenario.last_hour(node)
        self.scenario = scenario
        self._start_unix_ns = start_unix_ns
        self._before = [self._sums_before(gpu) for gpu in range(scenario.gpus_per_node)]
        self.devices = tuple(
            Device(
                entity=f"GPU-{uuid.UUID(bytes=_digest(node.name, f'gpu {i}'), version=4)}",
                name=node.model,
                compute_capability=COMPUTE_CAPABILITY,
                sm_count=SMS,
                max_sm_clock_mhz=CLOCK_MHZ,
                serial=f"16{int.from_bytes(_digest(node.name, f'serial {i}')[:4]):011}",
            )
            for i in range(scenario.gpus_per_node)
        )
        self._index = {device.entity: i for i, device in enumerate(self.devices)}

    def facts(self, ns: int) -> NodeFacts:
        driver, nvml = COUNTING if self.node.counts else TELLING_PERCENT
        return NodeFacts(
            node=self.node.name,
            boot_id=_digest(self.node.name, f"boot {self._boot(ns)[0]}"),
            driver=driver,
            nvml=nvml,
            source="sim",
            devices=self.devices,
            cluster=self.scenario.cluster,
            uncovered=self.node.uncovered,
        )

    def boot_ns(self, ns: int) -> int:
        """CLOCK_BOOTTIME of the node at `ns`."""
        return ns - self._boot(ns)[1]

    def unix_ns(self, ns: int) -> int:
        return self._start_unix_ns + ns

    def readings(self, ns: int) -> Iterator[Reading]:
        """What all GPUs count at `ns`."""
        for device in self.devices:
            yield self.reading(device.entity, ns)

    def reading(self, entity: str, ns: int) -> Reading:
        gpu = self._index[entity]
        span, hmma, energy_mj = self._sums(gpu, ns)
        # Counters restart with the node: subtract what they were then.
        _, booted = self._boot(ns)
        if self.node.is_lost(gpu, -(-ns // HOUR_NS)):
            return Reading(entity, ns - booted, self.unix_ns(ns), error=GPU_IS_LOST)
        if booted > 0:
            _, hmma_then, energy_then = self._sums(gpu, booted)
            hmma, energy_mj = hmma - hmma_then, energy_mj - energy_then
        busy_ppm = self.scenario.hmma_ppm(span, gpu)
        return Reading(
            entity=entity,
            t_boot_ns=ns - booted,
            t_unix_ns=self.unix_ns(ns),
            cycles=_cycles(elapsed_cycles(ns - booted), hmma) if self.node.counts else {},
            percent={} if self.node.counts else _percent(busy_ppm),
            sm_clock_mhz=_CLOCKS[: 1 if self.node.counts else CLOCK_SAMPLES],
            energy_mj=energy_mj,
            power_mw=span.watts * 1000,
            utilization_gpu_pct=100.0 if span.hmma_ppm else 0.0,
            workload=span.workload,
        )

    def _boot(self, ns: int) -> tuple[int, int]:
        """(number of the boot, when it began)."""
        number, began = 0, BEFORE_EDGE_NS - UPTIME_HOURS * HOUR_NS
        for hour in self.node.reboots:
            if ns > hour * HOUR_NS:
                number, began = number + 1, hour * HOUR_NS + BEFORE_EDGE_NS
        return number, began

    def span(self, ns: int) -> tuple[int, Span]:
        """Number and span: the one that `ns` lies in, or ends."""
        spans = self.node.spans
        hit = next((i for i, s in enumerate(spans) if ns <= s.end * HOUR_NS), len(spans) - 1)
        return hit, spans[hit]

    def _sums(self, gpu: int, ns: int) -> tuple[Span, int, int]:
        """The span, and one GPU's HMMA cycles and energy since the history began."""
        i, span = self.span(ns)
        hmma, energy_mj = self._before[gpu][i]
        into = ns - span.start * HOUR_NS
        hmma += elapsed_cycles(into) * self.scenario.hmma_ppm(span, gpu) // 1_000_000
        return span, hmma, energy_mj + _energy_mj(span, into)

    def _sums_before(self, gpu: int) -> list[tuple[int, int]]:
        """The same at the start of each span."""
        sums: list[tuple[int, int]] = []
        hmma = energy_mj = 0
        for span in self.node.spans:
            sums.append((hmma, energy_mj))
            ns = (span.end - span.start) * HOUR_NS
            hmma += elapsed_cycles(ns) * self.scenario.hmma_ppm(span, gpu) // 1_000_000
            energy_mj += _energy_mj(span, ns)
        return sums


def _cycles(elapsed: int, hmma: int) -> dict[int, int]:
    return {
        248: elapsed,
        249: hmma * _ACTIVE_PPM // 1_000_000,
        250: hmma,
        251: 0,
        252: hmma,
        253: 0,
        254: 0,
        257: hmma * _INT_PPM // 1_000_000,
        258: 0,
        259: hmma * _FP32_PPM // 1_000_000,
        260: 0,
    }


def _percent(hmma_ppm: int) -> dict[int, float]:
    """The same as an older driver tells it: parts of the cycles since the reading before."""
    parts = {2: _ACTIVE_PPM, 4: _INT_PPM, 5: 1_000_000, 7: 1_000_000, 12: _FP32_PPM}
    return {i: hmma_ppm * parts.get(i, 0) / 1e10 for i in (2, 4, 5, 6, 7, 8, 9, 11, 12, 13)}


def _energy_mj(span: Span, ns: int) -> int:
    return span.watts * ns // 1_000_000  # 1 W is 1 mJ a millisecond


def _digest(name: str, what: str) -> bytes:
    return hashlib.sha256(f"flopmeter demo {name} {what}".encode()).digest()[:16]
