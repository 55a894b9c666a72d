"""Sending by OTLP what `/metrics` shows: for agent and collector alike, only where somebody asked for it.

A thread of its own collects and sends once a minute, another sees to it that this comes to an end. A receiver that hangs,
refuses or is down costs a counter and a line in the log; nobody else waits for it. Certificates, headers and limits come from the standard variables
OTEL_EXPORTER_OTLP_* (OpenTelemetry protocol exporter specification); their values are never logged.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from .otlp_outcomes import FAILED, SENT, Outcomes

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

#: OTEL_METRIC_EXPORT_INTERVAL in ms; 60 s is the SDK specification's default.
INTERVAL_VARIABLE = "OTEL_METRIC_EXPORT_INTERVAL"
DEFAULT_INTERVAL_S, LEAST_INTERVAL_S, MOST_INTERVAL_S = 60.0, 1.0, 3600.0
#: An export that takes longer hangs: the exporter's own limit is for each wait, and an answer may trickle.
HANGS_S = 30.0
#: What a program that stops allows for a last export.
STOP_S = 2.0
#: After this many lines of one kind of failure in a row, only each hundredth is said again.
SAID_FEW, SAID_EACH = 3, 100
#: Loggers of others that may print what a receiver answered, and so what was sent to it.
_OTHERS = ("opentelemetry", "urllib3", "requests")


class OtlpError(Exception):
    """OTLP was asked for and cannot be done. `hint` says what to do."""

    def __init__(self, said: str, hint: str = "") -> None:
        super().__init__(said)
        self.hint = hint


def check_url(text: str) -> str:
    """The base URL of a receiver, as one sets it; "" = none. Raises ValueError, without repeating a password."""
    if not text:
        return text
    if not text.isprintable() or any(c.isspace() for c in text) or len(text) > 2_000:
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT, got characters that no URL has")
    parts = urlsplit(text)
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError(
            "expected a URL without a name and a password: say them with OTEL_EXPORTER_OTLP_HEADERS"
        )
    if parts.query or parts.fragment:
        raise ValueError("expected a URL without ? and #: tokens belong into OTEL_EXPORTER_OTLP_HEADERS")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected http://HOST:PORT or https://HOST:PORT, got {text[:80]!r}")
    try:
        _ = parts.port
    except ValueError as e:
        raise ValueError(f"expected a port from 0 to 65535, got {parts.netloc[:80]!r}") from e
    return text


def metrics_url(base: str) -> str:
    """Where metrics go below the base (OTLP specification: v1/metrics); a URL that says so already stands."""
    base = base.rstrip("/")
    return base if base.endswith("/v1/metrics") else f"{base}/v1/metrics"


class Sender(Protocol):
    """Sends families to a receiver once; says what became of it."""

    def send(self, families: "Iterable[Metric]", unix_ns: int) -> tuple[str, str]:
        """(SENT, REFUSED or FAILED; why in words)."""
        ...

    def close(self) -> None: ...


class Exporter:
    """Sends what `families` yields, from `start` on until `close`, on daemon threads."""

    def __init__(
        self,
        url: str,
        families: "Callable[[], Iterable[Metric]]",
        sender: Sender,
        interval_s: float = DEFAULT_INTERVAL_S,
        hangs_s: float = HANGS_S,
    ) -> None:
        self.outcomes = Outcomes()
        self._url, self._families, self._sender = url, families, sender
        self._interval_s, self._hangs_s = interval_s, hangs_s
        self._stop = threading.Event()
        self._counting = threading.Lock()
        self._failed = 0  # in a row
        self._sending: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """A last export where the one before went well, for at most STOP_S."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)
        # What hangs is cut off, or left to end with the process: it is a daemon.
        self._sender.close()

    def _run(self) -> None:
        # Not all nodes in the same second.
        due_s = time.monotonic() + random.uniform(0, min(self._interval_s, 10.0))  # noqa: S311 - no secret
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            self._watched(self._hangs_s)
            due_s = max(due_s + self._interval_s, time.monotonic())
        if self.outcomes.last_success_unix_ns and not self._failed:
            self._watched(STOP_S)

    def _watched(self, limit_s: float) -> None:
        """One export, unless the one before hangs still: it is waited for, and there is never a second beside it."""
        if self._sending is None or not self._sending.is_alive():
            self._sending = threading.Thread(target=self.export, name="otlp-send", daemon=True)
            self._sending.start()
        self._sending.join(limit_s)
        if self._sending.is_alive():
            self._count(FAILED, f"no end of it after {limit_s:g} s")

    def export(self) -> str:
        """Collect and send once; what became of it is counted."""
        now = time.time_ns()
        try:
            outcome, why = self._sender.send(self._families(), now)
        except Exception as e:  # noqa: BLE001 - whatever it is, metering goes on; its words may hold what was sent
            outcome, why = FAILED, type(e).__name__
        self._count(outcome, why, now)
        return outcome

    def _count(self, outcome: str, why: str, at_unix_ns: int = 0) -> None:
        with self._counting:
            self.outcomes.counts[outcome] += 1
            if outcome == SENT:
                self.outcomes.last_success_unix_ns = at_unix_ns
                if self._failed:
                    log.info("otlp: %s takes metrics again", self._url)
                self._failed = 0
                return
            self._failed += 1
            if self._failed <= SAID_FEW or self._failed % SAID_EACH == 0:
                log.warning("otlp: %s: export %s (%d in a row): %s", self._url, outcome, self._failed, why)


def interval_s(environ: Mapping[str, str]) -> float:
    """Raises OtlpError for what is no interval."""
    raw = environ.get(INTERVAL_VARIABLE, "")
    if not raw:
        return DEFAULT_INTERVAL_S
    if raw.isascii() and raw.isdigit() and LEAST_INTERVAL_S <= (found := int(raw) / 1000) <= MOST_INTERVAL_S:
        return found
    raise OtlpError(
        f"{INTERVAL_VARIABLE}: expected {LEAST_INTERVAL_S * 1000:.0f} to {MOST_INTERVAL_S * 1000:.0f} ms, "
        f"got {raw[:40]!r}"
    )


def open_exporter(
    url: str,
    families: "Callable[[], Iterable[Metric]]",
    resource: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
) -> Exporter:
    """An exporter to `url` that is not started yet. Raises OtlpError where it cannot be."""
    environ = os.environ if environ is None else environ
    protocol = environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") or environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    if protocol not in (None, "", "http/protobuf"):
        raise OtlpError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got {protocol[:40]!r}",
            "receivers take it on port 4318 as a rule",
        )
    every_s = interval_s(environ)
    try:
        from .otlp_http import HttpSender
    except ImportError as e:
        raise OtlpError(
            f"--otlp: {e.name or 'a module'} is not installed",
            "install flopmeter with the extra otlp: pip install 'flopmeter[otlp]'",
        ) from e
    for name in _OTHERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        sender = HttpSender(metrics_url(url), resource)
    except Exception as e:
        # Of a variable that holds headers, nothing is repeated.
        raise OtlpError(
            f"--otlp: the exporter cannot be made: {type(e).__name__}", "look at OTEL_EXPORTER_OTLP_*"
        ) from e
    if sender.in_the_clear:
        log.warning(
            "otlp: %s is plain text beyond this machine: metrics%s can be read and changed on the way",
            url,
            " and the headers of OTEL_EXPORTER_OTLP_HEADERS" if sender.has_headers else "",
        )
    return Exporter(url, families, sender, every_s)


def kubernetes(environ: Mapping[str, str], node: str = "") -> dict[str, str]:
    """k8s.* attributes of this pod (semantic conventions, resource/k8s); none outside of a cluster."""
    if "KUBERNETES_SERVICE_HOST" not in environ:
        return {}
    found = {"k8s.pod.name": environ.get("HOSTNAME", ""), "k8s.node.name": node}
    try:
        with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="ascii") as f:  # noqa: PTH123
            found["k8s.namespace.name"] = f.read(64).strip()
    except (OSError, UnicodeDecodeError):
        pass
    return {name: value for name, value in found.items() if value}
