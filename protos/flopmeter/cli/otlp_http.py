"""OTLP over HTTP with protobuf, by OpenTelemetry's own exporter. Imported only where OTLP was asked for."""

import os
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from .otlp_data import metrics_data
from .otlp_outcomes import FAILED, REFUSED, SENT

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: Of an answer; a receiver says next to nothing.
MAX_ANSWER_BYTES = 1 << 16
#: An answer that trickles is cut off.
MAX_ANSWER_S = 10.0


class _Session(requests.Session):
    """Remembers what the receiver answered; reads no more of it than an answer has; knows no ~/.netrc."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 0  # 0: none
        self.trouble = ""
        self.answer = b""
        # Else ~/.netrc would send somebody's password, in place of the header that was set.
        self.auth = lambda request: request

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        self.status, self.trouble, self.answer = 0, "", b""
        try:
            # Said here, OTEL_EXPORTER_OTLP_CERTIFICATE wins over REQUESTS_CA_BUNDLE; said by the session it would not.
            response = super().request(*args, **{**kwargs, "stream": True, "verify": self.verify})
            self.status = response.status_code
            read, until_s = 0, time.monotonic() + MAX_ANSWER_S
            kept = []
            for part in response.iter_content(4096):
                read += len(part)
                if read > MAX_ANSWER_BYTES or time.monotonic() > until_s:
                    response.close()
                    break
                kept.append(part)
            self.answer = response._content = b"".join(kept)  # noqa: SLF001 - as requests itself does
        except requests.RequestException as e:
            self.trouble = type(e).__name__
            raise
        return response


class HttpSender:
    """To one URL. Headers, certificates, compression and timeout are the environment's."""

    def __init__(self, url: str, resource: Mapping[str, str]) -> None:
        self._session = _Session()
        self._exporter = OTLPMetricExporter(endpoint=url, session=self._session)
        self._resource = resource_of(resource)
        self._start_unix_ns = time.time_ns()
        self._version = version("flopmeter")
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        self.in_the_clear = parts.scheme == "http" and not local
        self.has_headers = has_headers()

    def send(self, families: "Iterable[Metric]", unix_ns: int) -> tuple[str, str]:
        data = metrics_data(
            families,
            self._resource,
            version=self._version,
            start_unix_ns=self._start_unix_ns,
            unix_ns=unix_ns,
        )
        self._session.status, self._session.trouble = 0, ""
        result = self._exporter.export(data)
        status = self._session.status
        # The exporter takes a redirect, which it does not follow, for success.
        if result is MetricExportResult.SUCCESS and 200 <= status < 300:
            rejected = _rejected(self._session.answer)
            return (REFUSED, f"{rejected} data points rejected") if rejected else (SENT, "")
        if status:
            return REFUSED, f"HTTP {status}"
        return FAILED, self._session.trouble or "no answer"

    def close(self) -> None:
        self._exporter.shutdown()


def _rejected(answer: bytes) -> int:
    """How many points a receiver says that it did not take (OTLP specification, partial success)."""
    try:
        return int(ExportMetricsServiceResponse.FromString(answer).partial_success.rejected_data_points)
    except Exception:  # noqa: BLE001 - protobuf's DecodeError: it took them, and says it in other words
        return 0


def has_headers() -> bool:
    """Whether the environment gives headers, which may be secrets."""
    return any(
        os.environ.get(name) for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS")
    )


def resource_of(attributes: Mapping[str, str]) -> Resource:
    """With what OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say, which wins."""
    return Resource({k: v for k, v in attributes.items() if v}).merge(OTELResourceDetector().detect())
