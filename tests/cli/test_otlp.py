"""Sending by OTLP: the same figures as /metrics, TLS and headers by the standard variables, and a receiver that costs nothing.

What arrives is decoded with OpenTelemetry's own protocol definitions; a real receiver is in test_otlp_receiver.py.
"""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from otlp_said import points, resources
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from receivers import Receiver, Reply, authority, raw_server, server_context

from flopmeter.cli import otlp
from flopmeter.cli.otlp import Exporter, OtlpError, check_url, metrics_url, open_exporter
from flopmeter.cli.otlp_outcomes import FAILED, REFUSED, SENT

SECRET = "s3cr3t-of-a-tenant"
TAKEN = Reply(200, ExportMetricsServiceResponse().SerializeToString())
START = {"service.name": "flopmeter-agent", "host.name": "n1"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No waiting, nothing of the machine's; and loggers of others as they were."""
    import os

    for name in [n for n in os.environ if n.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")  # seconds
    before = {name: logging.getLogger(name).level for name in otlp._OTHERS}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def families() -> list[Metric]:
    cycles = CounterMetricFamily("flopmeter_gpu_sm_cycles", "Cycles.", labels=["hw_id", "pipe"])
    cycles.add_metric(["GPU-1", "hmma"], 2**53 + 2)
    cycles.add_metric(["GPU-1", "imma"], 0)
    what = GaugeMetricFamily("flopmeter_gpu_info", "What.", labels=["hw_id", "hw_model", "hw_parent"])
    what.add_metric(["GPU-1", "NVIDIA H100", ""], 1)
    energy = CounterMetricFamily("flopmeter_gpu_energy_joules", "Energy.", labels=["hw_id"])
    energy.add_metric(["GPU-1"], 1.5)
    buckets = [("0.5", 3.0), ("1.0", 5.0), ("+Inf", 6.0)]
    times = HistogramMetricFamily(
        "flopmeter_collector_commit_seconds", "Time.", buckets=buckets, sum_value=4.0
    )
    nothing = GaugeMetricFamily("flopmeter_gpu_read_ok", "Nothing of it was read.", labels=["hw_id"])
    return [cycles, what, energy, times, nothing]


def exporter(url: str, made: Callable[[], list[Metric]] = families, **environ: str) -> Exporter:
    return open_exporter(url, made, START, environ)


# ---- what arrives ----------------------------------------------------------------------------------------


def test_what_arrives_is_what_metrics_shows() -> None:
    with Receiver(otherwise=TAKEN) as receiver:
        sending = exporter(f"http://127.0.0.1:{receiver.port}")
        assert sending.export() == SENT
        sending.close()
    (request,) = receiver.requests
    assert request.path == "/v1/metrics"
    assert request.headers["content-type"] == "application/x-protobuf"
    got = points(request.body)
    gpu = ("hw.id", "GPU-1"), ("hw.type", "gpu")
    assert got["flopmeter_gpu_sm_cycles", (*gpu, ("pipe", "hmma"))] == 2**53 + 2
    assert got["flopmeter_gpu_sm_cycles", (*gpu, ("pipe", "imma"))] == 0
    assert got["flopmeter_gpu_energy_joules", gpu] == 1.5
    model = ("hw.id", "GPU-1"), ("hw.model", "NVIDIA H100"), ("hw.type", "gpu")
    assert got["flopmeter_gpu_info", model] == 1  # no parent: no attribute, as Prometheus has it
    assert got["flopmeter_collector_commit_seconds", ()] == (6, 4.0, (3, 2, 1), (0.5, 1.0))
    assert len(got) == 5
    said = resources(request.body)[0]
    assert said.items() >= START.items()


def test_units_and_kinds_are_said() -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    with Receiver(otherwise=TAKEN) as receiver:
        exporter(f"http://127.0.0.1:{receiver.port}/").export()
    message = ExportMetricsServiceRequest.FromString(receiver.requests[0].body)
    metrics = {m.name: m for m in message.resource_metrics[0].scope_metrics[0].metrics}
    units = {name: m.unit for name, m in metrics.items()}
    assert units == {
        "flopmeter_gpu_sm_cycles": "{cycle}",
        "flopmeter_gpu_info": "",
        "flopmeter_gpu_energy_joules": "J",
        "flopmeter_collector_commit_seconds": "s",
    }
    counter = metrics["flopmeter_gpu_sm_cycles"].sum
    assert counter.is_monotonic
    assert counter.aggregation_temporality == 2  # cumulative
    point = counter.data_points[0]
    assert 0 < point.start_time_unix_nano <= point.time_unix_nano
    assert metrics["flopmeter_gpu_info"].WhichOneof("data") == "gauge"


def test_resource_attributes_of_the_environment_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "host.name=other,k8s.cluster.name=c1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    with Receiver(otherwise=TAKEN) as receiver:
        exporter(f"http://127.0.0.1:{receiver.port}").export()
    said = resources(receiver.requests[0].body)[0]
    assert (said["host.name"], said["k8s.cluster.name"], said["service.name"]) == ("other", "c1", "mine")


def test_a_pod_says_where_it_is() -> None:
    assert otlp.kubernetes({}, "n1") == {}
    pod = otlp.kubernetes({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "flopmeter-agent-x"}, "n1")
    assert pod == {"k8s.pod.name": "flopmeter-agent-x", "k8s.node.name": "n1"}


def as_prometheus_names_it(name: str, unit: str, kind: str) -> str:
    """OpenTelemetry specification, Prometheus compatibility (OTLP metric points to Prometheus): a unit is appended in
    words unless the name has it, annotations in braces are dropped, counters end in _total, gauges in 1 in _ratio."""
    words = {"s": "seconds", "By": "bytes", "J": "joules"}
    tokens = name.split("_")
    if unit not in ("", "1") and not unit.startswith("{") and words[unit] not in tokens:
        tokens.append(words[unit])
    if kind == "counter":
        tokens = [*(t for t in tokens if t != "total"), "total"]
    if kind in ("gauge", "info") and unit == "1":
        tokens.append("ratio")
    return "_".join(tokens)


def test_prometheus_makes_the_documented_name_of_what_it_gets_by_otlp() -> None:
    from metrics_said import documented

    from flopmeter.cli.otlp_data import unit_of

    for name, named in documented().items():
        sent = name.removesuffix("_total")
        assert as_prometheus_names_it(sent, unit_of(sent), named.kind) == name


# ---- TLS and headers -------------------------------------------------------------------------------------


def test_tls_and_headers_come_from_the_standard_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ca, cert, key = authority(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{SECRET},x-scope=c1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cert))  # the machine's: not of our authority
    with Receiver(otherwise=TAKEN, context=server_context(cert, key)) as receiver:
        url = f"https://127.0.0.1:{receiver.port}"
        assert exporter(url).export() == FAILED  # nobody said whom to trust
        assert not receiver.requests
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ca))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        assert exporter(url).export() == SENT
    (request,) = receiver.requests
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["x-scope"] == "c1"
    assert request.headers["content-encoding"] == "gzip"
    import gzip

    assert points(gzip.decompress(request.body))


def test_a_client_certificate_is_shown_where_one_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ssl

    ca, cert, key = authority(tmp_path)
    context = server_context(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ca))
    with Receiver(otherwise=TAKEN, context=context) as receiver:
        url = f"https://127.0.0.1:{receiver.port}"
        assert exporter(url).export() == FAILED
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(cert))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(key))
        assert exporter(url).export() == SENT


def test_no_secret_is_ever_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("opentelemetry", "urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    echo = f"you sent Bearer {SECRET}".encode()
    for headers in (
        f"authorization=Bearer%20{SECRET}",
        f"not a header {SECRET}",
        f"bad name={SECRET},=,{SECRET}",
    ):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", headers)
        with Receiver(otherwise=Reply(401, echo, {"WWW-Authenticate": SECRET})) as receiver:
            sending = exporter(f"http://127.0.0.1:{receiver.port}")
            assert sending.export() == REFUSED
            sending.close()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", f"/nowhere/{SECRET}")
    assert exporter("https://127.0.0.1:1").export() == FAILED
    assert SECRET not in caplog.text
    assert "HTTP 401" in caplog.text


def test_a_password_of_the_home_directory_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password theirs\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=mine")
    with Receiver(otherwise=TAKEN) as receiver:
        assert exporter(f"http://127.0.0.1:{receiver.port}").export() == SENT
    assert receiver.requests[0].headers["authorization"] == "mine"


def test_plain_text_to_another_machine_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exporter("http://127.0.0.1:4318")
    exporter("https://receiver.example:4318")
    assert not caplog.messages
    exporter("http://receiver.example:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization={SECRET}")
    exporter("http://receiver.example:4318")
    assert ["headers" in m for m in caplog.messages] == [False, True]
    assert all("plain text" in m for m in caplog.messages)


# ---- receivers that are no help --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "outcome", "why"),
    [
        (Reply(400), REFUSED, "HTTP 400"),
        (Reply(503), REFUSED, "HTTP 503"),
        (Reply(429, headers={"Retry-After": "86400"}), REFUSED, "HTTP 429"),
        (Reply(302, headers={"Location": "http://127.0.0.1:1/elsewhere"}), REFUSED, "HTTP 302"),
        (Reply(200, b"\xff not protobuf"), SENT, ""),
        (Reply(200, b"x" * 10_000_000), SENT, ""),
        (
            Reply(
                200,
                ExportMetricsServiceResponse(
                    partial_success=ExportMetricsPartialSuccess(rejected_data_points=3, error_message=SECRET)
                ).SerializeToString(),
            ),
            REFUSED,
            "3 data points rejected",
        ),
    ],
)
def test_what_a_receiver_answers_is_counted(
    reply: Reply, outcome: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Receiver(otherwise=reply) as receiver:
        sending = exporter(f"http://127.0.0.1:{receiver.port}")
        assert sending.export() == outcome
        sending.close()
    assert sending.outcomes.counts[outcome] == 1
    assert (sending.outcomes.last_success_unix_ns > 0) == (outcome == SENT)
    assert why in caplog.text
    assert SECRET not in caplog.text


def test_of_an_answer_no_more_is_read_than_one_has() -> None:
    from flopmeter.cli.otlp_http import MAX_ANSWER_BYTES

    with Receiver(otherwise=Reply(200, b"x" * 10_000_000)) as receiver:
        sender = _sender(receiver.port)
        assert sender.send(families(), 1)[0] == SENT
    assert 0 < len(sender._session.answer) <= MAX_ANSWER_BYTES


def test_a_receiver_that_is_down_costs_a_counter_and_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    sending = exporter("http://127.0.0.1:1")
    for _ in range(5):
        assert sending.export() == FAILED
    assert sending.outcomes.counts[FAILED] == 5
    assert len(caplog.messages) == otlp.SAID_FEW
    assert "ConnectionError" in caplog.text
    sending.close()


@pytest.mark.parametrize("trickles", [False, True])
def test_a_receiver_that_hangs_is_counted_and_said_and_holds_nobody(
    trickles: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    monkeypatch.setattr(otlp, "STOP_S", 0.05)
    connections, done = [], threading.Event()

    def talk(connection: Any, over: threading.Event) -> None:
        connections.append(connection)
        connection.recv(65536)
        while not over.wait(0.05):
            if trickles:
                connection.sendall(b"H")

    with raw_server(talk) as port:
        sending = Exporter("there", families, _sender(port), interval_s=0.01, hangs_s=0.05)
        sending.start()
        waited = threading.Event()
        for _ in range(400):
            if sending.outcomes.counts[FAILED] >= 3:
                break
            waited.wait(0.05)

        def end() -> None:
            sending.close()  # the receiver still hangs
            done.set()

        threading.Thread(target=end, daemon=True).start()
        assert done.wait(60)
        # Counted while the receiver still hangs: of a connection cut off, OpenTelemetry tries once more at once.
        assert len(connections) == 1  # never a second one beside it
    assert sending.outcomes.counts[FAILED] >= 3
    assert "no end of it" in caplog.text


def _sender(port: int) -> Any:
    from flopmeter.cli.otlp_http import HttpSender

    return HttpSender(metrics_url(f"http://127.0.0.1:{port}"), START)


def test_a_receiver_that_comes_back_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flopmeter")
    with Receiver(Reply(400), TAKEN, otherwise=TAKEN) as receiver:
        sending = exporter(f"http://127.0.0.1:{receiver.port}")
        assert [sending.export() for _ in range(3)] == [REFUSED, SENT, SENT]
        sending.close()
    assert sum("takes metrics again" in m for m in caplog.messages) == 1


def test_figures_that_cannot_be_made_cost_an_export_and_say_no_more_than_what_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> list[Metric]:
        raise RuntimeError(SECRET)

    sending = exporter("http://127.0.0.1:1", broken)
    assert sending.export() == FAILED
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_the_thread_sends_again_and_again_and_once_more_at_the_end() -> None:
    with Receiver(otherwise=TAKEN) as receiver:
        sending = Exporter("x", families, _sender(receiver.port), interval_s=0.01)
        sending.start()
        deadline = threading.Event()
        for _ in range(2_000):
            if len(receiver.requests) >= 3:
                break
            deadline.wait(0.01)
        sending.close()
        assert len(receiver.requests) == sending.outcomes.counts[SENT] >= 3


# ---- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:4318",
        "ftp://h",
        "http://",
        f"http://somebody:{SECRET}@h:4318",
        f"http://{SECRET}@h:4318",
        f"https://h/?token={SECRET}",
        f"https://h/#{SECRET}",
        "http://h:99999",
        "http://h h",
        "http://h\n",
        "http://" + "h" * 3_000,
    ],
)
def test_what_is_no_url_of_a_receiver_is_refused_without_repeating_a_secret(url: str) -> None:
    with pytest.raises(ValueError, match="expected") as e:
        check_url(url)
    assert SECRET not in str(e.value)


@pytest.mark.parametrize(
    ("base", "whole"),
    [
        ("http://h:4318", "http://h:4318/v1/metrics"),
        ("http://h:4318/", "http://h:4318/v1/metrics"),
        ("https://h/otlp", "https://h/otlp/v1/metrics"),
        ("https://h/otlp/v1/metrics", "https://h/otlp/v1/metrics"),
    ],
)
def test_metrics_go_below_the_base(base: str, whole: str) -> None:
    assert metrics_url(check_url(base)) == whole


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "10"}, "1000 to 3600000"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "a minute"}, "1000 to 3600000"),
    ],
)
def test_a_variable_that_cannot_be_followed_is_refused_at_the_start(
    environ: dict[str, str], expected: str
) -> None:
    with pytest.raises(OtlpError, match=expected):
        exporter("http://127.0.0.1:4318", **environ)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flopmeter.cli.otlp_http", None)
    with pytest.raises(OtlpError) as e:
        exporter("http://127.0.0.1:4318")
    assert "flopmeter[otlp]" in e.value.hint


def test_who_did_not_ask_for_it_pays_nothing() -> None:
    said = "import sys, flopmeter.agent.run, flopmeter.agent.metrics, flopmeter.collector.running as r\n"
    said += "import flopmeter.collector.metrics_page, flopmeter.cli.otlp\n"
    said += "print([m for m in ('opentelemetry', 'requests') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=60)
    assert found.stdout == "[]\n", found.stderr
