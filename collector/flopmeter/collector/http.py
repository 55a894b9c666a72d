"""The collector's HTTP edge: /healthz, /readyz, /metrics on the standard library's threading server."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from .metrics import COMMIT_BUCKETS, Counters

if TYPE_CHECKING:
    from .access.api import Api
    from .access.front import Front
    from .deliver.office import Office
    from .law.watch import LawWatch
    from .log.office import LogOffice
    from .log.office import Standing as LogStanding
    from .log.witness_office import WitnessOffice

log = logging.getLogger(__name__)
#: A request that takes longer to arrive is cut off.
REQUEST_TIMEOUT_S = 10


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
    ) -> None:
        self._counters, self._streams, self._ready = counters, streams, ready
        self._office, self._laws, self._log, self._front = office, laws, log_office, front
        self._witnesses = witnesses

    def collect(self) -> Iterator[Any]:
        c = self._counters
        prefix = "flopmeter_collector_"
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
        if self._log is not None:
            yield from _log_families(prefix + "log_", self._log.standing)
        if self._witnesses is not None:
            from .log.witness_metrics import families  # only by those who have some

            yield from families(prefix, self._witnesses)
        if self._front is not None:
            for gauge in self._front.gauges():
                yield GaugeMetricFamily(prefix + gauge[0], gauge[1], gauge[2])
        if self._office is not None:
            yield from _sink_families(prefix + "sink_", self._office)


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


class HttpServer:
    """Serves in a daemon thread of its own until `stop`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        metrics: CollectorMetrics,
        alive: Callable[[], bool],
        ready: Callable[[], bool],
        api: "Api | None" = None,
    ) -> None:
        """Bind and serve. Raises OSError. All of them are asked in the request's own thread."""
        registry = CollectorRegistry()
        registry.register(metrics)
        for standard in (ProcessCollector, PlatformCollector, GCCollector):
            standard(registry=registry)

        def answer(path: str) -> tuple[int, str, bytes]:
            if path == "/healthz":
                good = alive()
                return (
                    (200 if good else 503),
                    "text/plain",
                    b"ok\n" if good else b"the event loop or the writer is stuck\n",
                )
            if path == "/readyz":
                good = ready()
                return (
                    (200 if good else 503),
                    "text/plain",
                    b"ok\n" if good else b"records are not being committed\n",
                )
            if path == "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(registry)
            return 404, "text/plain", b"expected /healthz, /readyz or /metrics\n"

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S
            server_version = "flopmeter"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                headers: Mapping[str, str] = {}
                if api is not None and path.startswith("/api/"):
                    said = api.answer(path, self.headers.get("Authorization"), self.client_address[0])
                    status, kind, body, headers = said.status, said.kind, said.body, said.headers
                else:
                    status, kind, body = answer(path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                log.debug(format, *args)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="flopmeter-http",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
