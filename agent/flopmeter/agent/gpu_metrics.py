"""The series of each GPU, for `/metrics` and OTLP. What was not measured has no sample (docs/metrics.md)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import Device

from .gpu_totals import GpuTotal

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Of one GPU whose readings are all of one class that counts every pipe, without a gap and held by one workload.
USUAL_SERIES_PER_GPU = 22
#: Whatever happened to it: eight classes, ten reasons.
MAX_SERIES_PER_GPU = 38
_NS, _MJ = 1_000_000_000, 1_000


def device_families(devices: Iterable[Device]) -> "Iterator[Metric]":
    """What each device is."""
    from prometheus_client.core import GaugeMetricFamily as Gauge

    labels = ["hw_id", "hw_model", "hw_parent", "compute_capability", "mig"]
    info = Gauge("flopmeter_gpu_info", "What the device is; always 1.", labels=labels)
    for d in devices:
        info.add_metric([d.entity, d.name, d.parent, d.compute_capability, str(d.mig).lower()], 1)
    yield info


def total_families(totals: Mapping[str, GpuTotal]) -> "Iterator[Metric]":
    """What each did by the windows that are sealed."""
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    hw = ["hw_id"]
    pipes = Counter("flopmeter_gpu_sm_cycles", "Pipe-active SM-cycles.", labels=[*hw, "pipe"])
    active = Counter("flopmeter_gpu_sm_active_cycles", "SM-cycles in which any warp was resident.", labels=hw)
    elapsed = Counter(
        "flopmeter_gpu_sm_elapsed_cycles", "SM-cycles that passed in metered time, gaps left out.", labels=hw
    )
    flop = Counter(
        "flopmeter_gpu_flop", "Floating-point operations executed, as a band.", labels=[*hw, "bound"]
    )
    metered = Counter(
        "flopmeter_gpu_metered_seconds",
        "Time accounted for, by evidence class.",
        labels=[*hw, "evidence_class"],
    )
    gaps = Counter("flopmeter_gpu_gap_seconds", "Gap time, by reason.", labels=[*hw, "reason"])
    energy = Counter("flopmeter_gpu_energy_joules", "Energy by the driver's counter.", labels=hw)
    newest = Gauge(
        "flopmeter_gpu_evidence_class_info",
        "The class of most of the last sealed window; always 1.",
        labels=[*hw, "evidence_class"],
    )
    for hw_id, t in totals.items():
        for pipe, cycles in t.pipe_cycles.items():
            pipes.add_metric([hw_id, pipe], cycles)
        if t.active_cycles is not None:
            active.add_metric([hw_id], t.active_cycles)
        if t.elapsed_cycles is not None:
            elapsed.add_metric([hw_id], t.elapsed_cycles)
        if t.flop is not None:
            flop.add_metric([hw_id, "lower"], t.flop.lower)
            if t.has_point:
                flop.add_metric([hw_id, "point"], t.flop.point)
            flop.add_metric([hw_id, "upper"], t.flop.upper)
        # No gap yet is a true zero, and a rate needs a sample before the first one.
        for grade, ns in sorted(({EvidenceClass.GAP: 0} | t.class_ns).items()):
            metered.add_metric([hw_id, grade.label], ns / _NS)
        for reason, ns in sorted(t.gap_ns.items()):
            gaps.add_metric([hw_id, reason.label], ns / _NS)
        if t.energy_mj is not None:
            energy.add_metric([hw_id], t.energy_mj / _MJ)
        if t.newest is not None:
            newest.add_metric([hw_id, t.newest.label], 1)
    yield from (pipes, active, elapsed, flop, metered, gaps, energy, newest)
