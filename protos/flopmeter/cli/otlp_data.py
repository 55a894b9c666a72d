"""Families of `/metrics` as OpenTelemetry's metrics: the same names, labels and values. Pure.

A name stays but for `_total`, its unit is said as UCUM, and Prometheus's own receiver makes the same name of it again
(OpenTelemetry specification, Prometheus and OpenMetrics compatibility). Attributes of hardware bear the names of the
semantic conventions (hw.id, hw.model, hw.parent, and hw.type gpu beside them).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from prometheus_client.core import Metric as Family
    from prometheus_client.samples import Sample

_HARDWARE = {"hw_id": "hw.id", "hw_model": "hw.model", "hw_parent": "hw.parent"}
#: End of a name -> UCUM (OpenTelemetry: semantic conventions, instrument units).
_UNITS = {"seconds": "s", "bytes": "By", "joules": "J", "cycles": "{cycle}", "flop": "{FLOP}"}


def metrics_data(
    families: "Iterable[Family]",
    resource: "Resource",
    *,
    version: str,
    start_unix_ns: int,
    unix_ns: int,
) -> MetricsData:
    """All of it at one instant; counters run since `start_unix_ns`."""
    metrics = [m for family in families for m in _metric(family, start_unix_ns, unix_ns)]
    scope = ScopeMetrics(InstrumentationScope("flopmeter", version), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: "Family", start: int, now: int) -> Iterator[Metric]:
    if not family.samples:
        return
    data: Sum | Gauge | Histogram
    name = family.name
    if family.type == "histogram":
        data = Histogram(_histograms(family.samples, start, now), AggregationTemporality.CUMULATIVE)
    elif family.type == "counter":
        points = [_point(s, start, now) for s in family.samples if s.name.endswith("_total")]
        data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    else:
        name = family.samples[0].name  # of an info, with its _info
        data = Gauge([_point(s, 0, now) for s in family.samples])
    yield Metric(name, family.documentation, unit_of(name), data)


def unit_of(name: str) -> str:
    """Of a gauge in "1" Prometheus would make a name that ends in _ratio: what has no unit says none."""
    return _UNITS.get(name.rsplit("_", 1)[-1], "")


def _point(sample: "Sample", start: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(attributes_of(sample.labels), start, now, float(sample.value))


def attributes_of(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels as attributes; an empty one is none, as Prometheus has it."""
    found = {_HARDWARE.get(name, name): value for name, value in labels.items() if value}
    if "hw.id" in found:
        found["hw.type"] = "gpu"
    return found


def _histograms(samples: "Sequence[Sample]", start: int, now: int) -> list[HistogramDataPoint]:
    """Of cumulative buckets, each by its own count. One series: ours have no labels."""
    buckets = [(float(s.labels["le"]), int(s.value)) for s in samples if s.name.endswith("_bucket")]
    total = next((s.value for s in samples if s.name.endswith("_sum")), 0.0)
    counts = [n - before for (_, n), before in zip(buckets, [0, *(n for _, n in buckets)], strict=False)]
    bounds = [limit for limit, _ in buckets[:-1]]
    nan = float("nan")  # least and greatest are not known
    return [HistogramDataPoint({}, start, now, sum(counts), total, counts, bounds, nan, nan)]
