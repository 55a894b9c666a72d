"""What became of exports by OTLP, and the series that say so."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

SENT, REFUSED, FAILED = "sent", "refused", "failed"


@dataclass(slots=True)
class Outcomes:
    """How exports went. Written by the exporting thread, read by scrapes."""

    counts: Counter[str] = field(default_factory=lambda: Counter({SENT: 0, REFUSED: 0, FAILED: 0}))
    last_success_unix_ns: int = 0


def outcome_families(prefix: str, outcomes: Outcomes) -> "Iterator[Metric]":
    """The series of `outcomes`."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    exports = CounterMetricFamily(prefix + "exports", "Exports by OTLP, by outcome.", labels=["outcome"])
    for outcome in (SENT, REFUSED, FAILED):
        exports.add_metric([outcome], outcomes.counts[outcome])
    yield exports
    yield GaugeMetricFamily(
        prefix + "last_success_timestamp_seconds",
        "When the receiver took one last; 0: not since the start.",
        outcomes.last_success_unix_ns / 1e9,
    )
