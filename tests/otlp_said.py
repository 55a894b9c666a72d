"""What an export says, by OpenTelemetry's own protocol definitions."""

import gzip
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

Attributes = tuple[tuple[str, str], ...]


def _attributes(found: Any) -> Attributes:
    return tuple(sorted((a.key, a.value.string_value) for a in found))


def _message(body: bytes) -> ExportMetricsServiceRequest:
    packed = body.startswith(b"\x1f\x8b")  # gzip; no message begins so
    return ExportMetricsServiceRequest.FromString(gzip.decompress(body) if packed else body)


def resources(body: bytes) -> list[dict[str, str]]:
    return [dict(_attributes(r.resource.attributes)) for r in _message(body).resource_metrics]


def points(body: bytes) -> dict[tuple[str, Attributes], Any]:
    """By name and attributes: the value, or of a histogram (count, sum, counts, bounds)."""
    found: dict[tuple[str, Attributes], Any] = {}
    for resource in _message(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                for p in getattr(metric, kind).data_points:
                    key = metric.name, _attributes(p.attributes)
                    assert key not in found
                    found[key] = (
                        (p.count, p.sum, tuple(p.bucket_counts), tuple(p.explicit_bounds))
                        if kind == "histogram"
                        else getattr(p, p.WhichOneof("value"))
                    )
    return found
