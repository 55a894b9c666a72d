"""`/metrics` and `/healthz` of the agent: a view on what the loop, the pipeline and the uplink know.

Nothing is counted here but what GPUs did, from the windows that are sealed; else each scrape reads the numbers where
they are kept. Job identity stands on one info series only, so that no other series changes its name when a job starts.
Every name is in docs/metrics.md.
"""

import contextlib
import logging
import socket
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from flopmeter.contract.usage import Workload

from .errors import AgentError
from .gpu_metrics import device_families, total_families
from .gpu_totals import GpuTotals
from .loop import Ticks
from .pipeline import Pipeline
from .reading import Reading
from .settings import parse_address
from .shipping.chain import SealedWindow
from .workloads.claims import Claims

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from flopmeter.cli.otlp_outcomes import Outcomes

log = logging.getLogger(__name__)

#: The loop is called stuck when it has not ticked for this long, or for ten ticks if that is longer.
STUCK_S = 60.0
_REQUEST_TIMEOUT_S = 10
#: Each holds a thread, of the 64 that a unit of ours allows, which a driver that hangs needs too.
MAX_CONNECTIONS = 8


@dataclass(slots=True)
class GpuView:
    """What is known of one entity; updated at each tick."""

    ok: bool = False
    last_unix_ns: int = 0  # of the last good reading; 0 = none yet
    failed: int = 0
    reading: Reading | None = None


class AgentView:
    """What a scrape looks at. `on_tick` is called by the loop; the rest is read when asked."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        version: str,
        tick_ns: int,
        workload: Callable[[Reading], Workload | None],
        claims: Claims | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.version = version
        self.ticks = Ticks()
        self.gpus: dict[str, GpuView] = {}
        self.totals = GpuTotals()
        self.otlp: Outcomes | None = None  # where the same is also sent, how that went
        self.workload = workload
        self._looking = threading.Lock()  # scrapes come on threads of their own, and `workload` remembers
        self.claims = claims
        self._tick_s = tick_ns / 1e9
        self._stuck_s = max(STUCK_S, 10 * self._tick_s)
        self._ticked_s = time.monotonic()

    def on_tick(self, readings: list[Reading]) -> None:
        self._ticked_s = time.monotonic()
        gpus = {}
        for reading in readings:
            view = self.gpus.get(reading.entity) or GpuView()
            view.ok = reading.error is None
            view.reading = reading
            if view.ok:
                view.last_unix_ns = reading.t_unix_ns
            else:
                view.failed += 1
            gpus[reading.entity] = view
        self.gpus = gpus

    def on_durable(self, windows: Sequence[SealedWindow]) -> None:
        """Windows that are sealed and safe. A mistake here costs figures for eyes, never metering."""
        try:
            self.totals.take(windows)
        except Exception:
            log.exception("metrics: windows could not be added up")

    def trouble(self) -> str:
        """Why the agent is not healthy; "" if it is. A collector out of reach is no reason: we keep metering."""
        status = self.pipeline.status
        if status is not None and status.fatal is not None:
            return f"uplink: {status.fatal}"
        silent_s = self.since_tick_s()
        return f"no tick for {silent_s:.0f} s" if silent_s > self._stuck_s else ""

    def since_tick_s(self) -> float:
        """Since the last tick, or the start, by a clock that nobody sets."""
        return time.monotonic() - self._ticked_s

    def _declared(self) -> "Iterator[tuple[str, str, int]]":
        claims = self.claims
        if claims is not None:
            yield "declarations_taken", "Claims of training code that were taken.", claims.taken
            yield "declarations_refused", "Datagrams that were no claims.", claims.refused
            yield "declarations_unknown", "Claims whose sender could not be told.", claims.unknown
            said = "Claims of ranks past the 128th of one workload: its tokens are the others' alone."
            yield "declarations_uncounted", said, claims.uncounted
            yield "declarations_forgotten", "Workloads whose claims gave way to others'.", claims.forgotten

    def collect(self) -> "Iterator[Metric]":
        """For prometheus_client: all series, in base units."""
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge
        from prometheus_client.core import InfoMetricFamily as Info

        pipeline, counts, spool = self.pipeline, self.pipeline.counts, self.pipeline.chain.spool
        facts = pipeline.facts
        info = {"version": self.version, "node": facts.node, "cluster": facts.cluster, "source": facts.source}
        info["agent_id"] = pipeline.chain.key.agent_id.hex()
        yield Info("flopmeter_agent", "This agent.", value=info)
        for name, text, number in (
            ("ticks", "Ticks of the loop.", self.ticks.done),
            ("ticks_missed", "Ticks left out, as one before took too long.", self.ticks.missed),
            ("readings", "Readings metered, failed ones included.", counts.readings),
            ("failed_readings", "Readings that failed: each is a gap.", counts.failed_readings),
            ("windows_sealed", "Windows sealed and durable in the spool.", counts.windows),
            ("detail_given_up", "Windows bridged for want of room in the spool.", counts.given_up),
            (
                "records_refused",
                "Records that the collector refused for good.",
                pipeline.chain.refused_records,
            ),
            ("quarantine_dropped", "Things in quarantine that gave way to newer ones.", spool.aside.dropped),
            *self._declared(),
        ):
            yield Counter(f"flopmeter_agent_{name}", text, value=number)
        for name, text, value in (
            ("tick_period_seconds", "A tick is due this often.", self._tick_s),
            ("tick_age_seconds", "Since the last tick, or the start: by no wall clock.", self.since_tick_s()),
            ("tick_duration_seconds", "How long the last tick took.", self.ticks.last_s),
            ("spool_pending_records", "Sealed, not acknowledged by the collector.", spool.pending),
            ("spool_unacked_bytes", "Bytes of the spool that wait for the collector.", spool.unacked_bytes),
            ("spool_covered_seq", "Last record under a signed head of the log.", spool.covered_seq),
            ("spool_bytes", "Bytes of the spool on disk.", spool.total_bytes),
            ("spool_limit_bytes", "Above this, detail is given up.", spool.limit_bytes),
            ("quarantine_bytes", "Kept for a person: cut off or refused.", spool.aside.total_bytes),
        ):
            yield Gauge(f"flopmeter_agent_{name}", text, value=value)
        cpu_s, rss_bytes, threads = own_cost()
        yield Counter(
            "flopmeter_agent_cpu_seconds", "What the agent itself has used of the cores.", value=cpu_s
        )
        yield Gauge("flopmeter_agent_resident_memory_bytes", "What the agent itself holds.", value=rss_bytes)
        yield Gauge(
            "flopmeter_agent_threads", "Threads; a driver that hangs holds one per GPU.", value=threads
        )
        status = pipeline.status
        heads = pipeline.uplink.heads if pipeline.uplink is not None else None
        if heads is not None:
            size = heads.known.size if heads.known is not None else 0
            yield Gauge(
                "flopmeter_agent_log_known_leaves", "Size of the collector's log as last seen.", value=size
            )
            yield Counter(
                "flopmeter_agent_log_contradictions",
                "Heads of the collector's log that contradict what was seen before.",
                value=heads.contradictions,
            )
        if status is not None:
            yield Gauge("flopmeter_agent_uplink_connected", "1 = a stream is open.", value=status.connected)
            ack_s = status.last_ack_unix_ns / 1e9
            yield Gauge("flopmeter_agent_uplink_last_ack_timestamp_seconds", "0 = none yet.", value=ack_s)
            for name, text, number in (
                ("connects", "Streams opened.", status.connects),
                ("pushbacks", "Times that the collector said: not now.", status.pushbacks),
                ("refusals", "Times that the collector said: never.", status.refusals),
            ):
                yield Counter(f"flopmeter_agent_uplink_{name}", text, value=number)
        cards = Gauge(
            "flopmeter_agent_uncovered_devices",
            "Accelerators on the node that nothing here meters.",
            labels=["vendor"],
        )
        for vendor, number in sorted(Tally(card.vendor for card in facts.uncovered).items()):
            cards.add_metric([vendor], number)
        yield cards
        if self.otlp is not None:
            from flopmeter.cli.otlp_outcomes import outcome_families

            yield from outcome_families("flopmeter_agent_otlp_", self.otlp)
        yield from device_families(facts.devices)
        yield from total_families(self.totals.look())
        yield from self._read()

    def _read(self) -> "Iterator[Metric]":
        """How the last readings went, and who holds what by them."""
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge

        ok = Gauge("flopmeter_gpu_read_ok", "1 = the last reading was good.", labels=["hw_id"])
        last = Gauge("flopmeter_gpu_last_reading_timestamp_seconds", "Last good reading.", labels=["hw_id"])
        failed = Counter("flopmeter_gpu_failed_readings", "Failed readings.", labels=["hw_id"])
        # Not job: that is what Prometheus calls what it scrapes, and it would rename ours.
        labels = ["hw_id", "kind", "job_id", "step", "run", "user"]
        jobs = Gauge("flopmeter_gpu_workload_info", "Which workload holds the GPU; always 1.", labels=labels)
        for hw_id, view in self.gpus.items():
            ok.add_metric([hw_id], view.ok)
            if view.last_unix_ns:
                last.add_metric([hw_id], view.last_unix_ns / 1e9)
            failed.add_metric([hw_id], view.failed)
            with self._looking:
                w = self.workload(view.reading) if view.reading is not None and view.ok else None
            if w is not None:
                jobs.add_metric([hw_id, w.kind.label, w.job, w.step, w.run, w.user], 1)
        yield from (ok, last, failed, jobs)


def own_cost() -> tuple[float, int, int]:
    """(CPU seconds, resident bytes, threads) of this process: the budget of docs/performance.md, on every node."""
    import psutil

    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        return times.user + times.system, process.memory_info().rss, process.num_threads()


class _Server(ThreadingHTTPServer):
    """Each connection has a thread. The oldest makes room: a scrape takes milliseconds, who drips in a request does not."""

    daemon_threads = True
    request_queue_size = 64  # of five, a burst makes a scrape wait a second for its connection

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: list[socket.socket] = []
        self._guard = threading.Lock()  # connections are closed on threads of their own
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.append(request)
            if len(self._open) > MAX_CONNECTIONS:
                with contextlib.suppress(OSError):  # it ends by itself just now
                    self._open.pop(0).shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        with self._guard, contextlib.suppress(ValueError):  # it made room
            self._open.remove(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        level = (
            logging.DEBUG if isinstance(sys.exc_info()[1], OSError) else logging.ERROR
        )  # it hung up, or we failed
        log.log(level, "metrics: a request of %s cannot be answered", client_address, exc_info=True)


class MetricsServer:
    """Serves the view on one address, on threads of its own, until closed."""

    def __init__(self, address: str, view: AgentView) -> None:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        registry = CollectorRegistry()
        registry.register(view)

        class Handler(BaseHTTPRequestHandler):
            timeout = _REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path == "/healthz":
                    trouble = view.trouble()
                    self._answer(503 if trouble else 200, "text/plain", (trouble or "ok").encode() + b"\n")
                else:
                    self._answer(404, "text/plain", b"/metrics, /healthz\n")

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it overrides
                log.debug("metrics: %s", format % args)

        class Server(_Server):
            address_family = socket.AF_INET6 if ":" in parse_address(address)[0] else socket.AF_INET

        try:
            self._server = Server(parse_address(address), Handler)
        except OSError as e:
            raise AgentError(
                f"metrics address {address}: cannot listen there: {e.strerror or e}",
                "name another with --metrics-address, or leave it out",
            ) from e
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
