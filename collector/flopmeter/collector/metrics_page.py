"""What `/metrics` of the collector shows: families made anew at each scrape from where the numbers are kept."""

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from .metrics import COMMIT_BUCKETS, Counters

if TYPE_CHECKING:
    from flopmeter.cli.otlp_outcomes import Outcomes

    from .access.front import Front
    from .deliver.office import Office
    from .law.watch import LawWatch
    from .log.office import LogOffice
    from .log.office import Standing as LogStanding
    from .log.witness_office import WitnessOffice
    from .metrics_books import BooksMetrics


class CollectorMetrics(Collector):
    """Reads the counters at each scrape; the hot path knows nothing of it."""

    def __init__(
        self,
        counters: Counters,
        streams: Callable[[], int],
        ready: Callable[[], bool],
        office: "Office | None" = None,
        laws: "LawWatch | None" = None,
        *,
        log_office: "LogOffice | None" = None,
        witnesses: "WitnessOffice | None" = None,
        front: "Front | None" = None,
        books: "BooksMetrics | None" = None,
        store: Path | None = None,
    ) -> None:
        self._counters, self._streams, self._ready = counters, streams, ready
        self._office, self._laws, self._log, self._front = office, laws, log_office, front
        self._witnesses, self._books, self._store = witnesses, books, store
        self._version = version("flopmeter")
        self.otlp: Outcomes | None = None  # where the same is also sent, how that went

    def collect(self) -> Iterator[Any]:
        c = self._counters
        prefix = "flopmeter_collector_"
        info = GaugeMetricFamily(prefix + "info", "This collector; always 1.", labels=["version"])
        info.add_metric([self._version], 1.0)
        yield info
        yield CounterMetricFamily(prefix + "records", "Records taken, committed and fsynced.", c.records)
        yield CounterMetricFamily(
            prefix + "duplicate_records", "Records that came again and were counted once.", c.duplicates
        )
        yield CounterMetricFamily(
            prefix + "commit_failures", "Groups that could not be committed.", c.commit_failures
        )
        for name, help_text, label, counts in (
            ("refusals", "Records and streams refused for good.", "code", c.refusals),
            ("pushbacks", "Agents told to come again.", "reason", c.pushbacks),
            ("events", "Events raised.", "type", c.events),
        ):
            family = CounterMetricFamily(prefix + name, help_text, labels=[label])
            for value, count in sorted(counts.copy().items()):
                family.add_metric([value], count)
            yield family
        buckets, total = [], 0
        for limit, count in zip(COMMIT_BUCKETS, c.commit_buckets, strict=True):
            total += count
            buckets.append((str(limit), float(total)))
        buckets.append(("+Inf", float(c.groups)))
        yield HistogramMetricFamily(
            prefix + "commit_seconds",
            "Time of one group commit, fsync included.",
            buckets=buckets,
            sum_value=c.commit_seconds,
        )
        yield GaugeMetricFamily(prefix + "streams", "Agent streams open now.", self._streams())
        yield GaugeMetricFamily(prefix + "ready", "1 while records are taken.", float(self._ready()))
        if self._laws is not None:
            good = float(self._laws.fault is None)
            yield GaugeMetricFamily(
                prefix + "regimes_good",
                "0 while the site's law files are faulty and the last good ones hold.",
                good,
            )
            count = len(self._laws.laws.binding)
            yield GaugeMetricFamily(prefix + "regimes", "Regimes that runs are judged by.", count)
        if self._store is not None:
            yield from _store_families(prefix + "store_", self._store)
        if self._log is not None:
            yield from _log_families(prefix + "log_", self._log.standing)
        if self._witnesses is not None:
            from .log.witness_metrics import families  # only by those who have some

            yield from families(prefix, self._witnesses)
        if self._front is not None:
            for gauge in self._front.gauges():
                yield GaugeMetricFamily(prefix + gauge[0], gauge[1], gauge[2])
            refusals = self._front.enrolment_refusals
            if refusals is not None:
                text = "Requests to join that were refused."
                yield CounterMetricFamily(prefix + "enrolment_refusals", text, refusals)
        if self._office is not None:
            yield from _sink_families(prefix + "sink_", self._office)
        if self.otlp is not None:
            from flopmeter.cli.otlp_outcomes import outcome_families

            yield from outcome_families(prefix + "otlp_", self.otlp)
        if self._books is not None:
            yield from self._books.families()


def _store_families(prefix: str, store: Path) -> Iterator[Any]:
    """How large the books are, and what is left on their disk; nothing where the disk does not say."""
    try:
        files = [store, store.with_name(store.name + "-wal")]
        used = sum(file.stat().st_size for file in files if file.exists())
        disk = os.statvfs(store.parent)
    except OSError:
        return
    yield GaugeMetricFamily(prefix + "bytes", "Bytes of the store on disk, with its write-ahead log.", used)
    text = "Bytes that are free for it on its file system."
    yield GaugeMetricFamily(prefix + "free_bytes", text, disk.f_bavail * disk.f_frsize)


def _log_families(prefix: str, standing: "LogStanding") -> Iterator[Any]:
    """Of the evidence log: how far it reaches, how far it is signed, and since when it is not."""
    for name, text, value in (
        ("size", "Leaves in the evidence log, when it was last looked at.", standing.size),
        ("checkpoint_size", "Leaves under its last signed head.", standing.checkpoint_size),
        (
            "checkpoint_timestamp_seconds",
            "When a head over all that was there was last signed, or found to be that; 0: not since the start.",
            standing.proven_unix_ns / 1_000_000_000,
        ),
        ("forked", "1: what is stored contradicts what was signed, and nothing is.", float(standing.forked)),
    ):
        yield GaugeMetricFamily(prefix + name, text, value)
    yield CounterMetricFamily(prefix + "failures", "Heads that could not be made.", standing.failures)


def _sink_families(prefix: str, office: "Office") -> Iterator[Any]:
    """Of each sink: attempts by what became of them, what waits, what was put aside, and how old the oldest is."""
    attempts = CounterMetricFamily(
        prefix + "attempts",
        "Deliveries attempted, by outcome.",
        labels=["sink", "outcome"],
    )
    waiting = GaugeMetricFamily(
        prefix + "waiting", "Deliveries that are not done and not dead.", labels=["sink"]
    )
    dead = GaugeMetricFamily(
        prefix + "dead", "Deliveries put aside (flopmeter events dead).", labels=["sink"]
    )
    oldest = GaugeMetricFamily(
        prefix + "oldest_waiting_seconds",
        "Age of the oldest event that waits; 0: none does.",
        labels=["sink"],
    )
    gone = GaugeMetricFamily(prefix + "gone", "1: it answered 410 Gone and gets no more.", labels=["sink"])
    for worker in office.workers:
        name, counters = worker.settings.name, worker.counters
        for outcome in ("delivered", "failed", "refused", "gone"):
            attempts.add_metric([name, outcome], counters.attempts[outcome])
        waiting.add_metric([name], counters.standing.waiting)
        dead.add_metric([name], counters.standing.dead)
        oldest.add_metric([name], office.age_seconds(worker))
        gone.add_metric([name], float(counters.gone))
    yield from (attempts, waiting, dead, oldest, gone)
