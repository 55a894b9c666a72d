"""A second receiver that is not ours, and a database: what it keeps of our OTLP is what `/metrics` shows.

VictoriaMetrics reads OTLP with code of its own and makes Prometheus's names of OpenTelemetry's by itself.
"""

import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from metrics_said import documented
from processes import free_port, start, wait_for
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from victoria_metrics import Series, VictoriaMetrics, running

from flopmeter.cli.otlp import SENT, open_exporter
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings

#: Other at each look: of the program itself, and of the export under way.
OWN = (
    "cpu_seconds_total",
    "resident_memory_bytes",
    "threads",
    "otlp_exports_total",
    "otlp_last_success_timestamp_seconds",
)
MOVING = ("tick", "readings_total", "last_reading_timestamp_seconds")


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    with running(tmp_path_factory.mktemp("victoria")) as found:
        yield found


def scraped(address: str) -> Series:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (s.name, frozenset((k, v) for k, v in s.labels.items() if v)): s.value
        for family in families
        for s in family.samples
        if s.name.startswith("flopmeter_")
    }


def as_otlp(shown: Series) -> Series:
    """With what OpenTelemetry's conventions add to hardware."""
    return {
        (name, labels | {("hw_type", "gpu")} if any(k == "hw_id" for k, _ in labels) else labels): value
        for (name, labels), value in shown.items()
    }


def steady(series: Series) -> Series:
    return {
        key: v
        for key, v in series.items()
        if not key[0].endswith(OWN) and not any(m in key[0] for m in MOVING)
    }


def test_it_keeps_of_an_agent_what_metrics_shows(victoria: VictoriaMetrics, tmp_path: Path) -> None:
    at = f"127.0.0.1:{free_port()}"
    process = start(
        "agent", "run", "--source", "sim", "--state", tmp_path / "agent", "--window", "3s", "--node", "n1",
        "--otlp", victoria.otlp, "--metrics-address", at,
        log=tmp_path / "agent.log", environ={"OTEL_METRIC_EXPORT_INTERVAL": "1000"},
    )  # fmt: skip
    seen: list[Series] = []

    def same() -> bool:
        assert process.poll() is None, (tmp_path / "agent.log").read_text()[-2000:]
        try:
            shown, kept = as_otlp(scraped(at)), victoria.last("flopmeter-agent")
        except OSError:  # does not listen yet
            return False
        seen[:] = [shown, kept]
        sealed = any(name == "flopmeter_gpu_flop_total" for name, _ in shown)
        return sealed and shown.keys() == kept.keys() and steady(shown) == steady(kept)

    try:
        wait_for("both have the same series, and of what a window seals the same values", same, 120)
    except AssertionError as e:
        shown, kept = seen
        differ = {
            k: (shown.get(k), kept.get(k)) for k in shown.keys() | kept.keys() if shown.get(k) != kept.get(k)
        }
        raise AssertionError(f"{e}: {list(differ.items())[:10]}") from e
    finally:
        process.terminate()
        process.wait(60)
    shown = seen[0]
    assert len(steady(shown)) > 150
    assert {name for name, _ in shown} > {
        "flopmeter_gpu_sm_cycles_total",
        "flopmeter_gpu_energy_joules_total",
    }


def test_it_keeps_of_a_collector_what_it_sends(
    victoria: VictoriaMetrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
    settings = CollectorSettings(
        store=tmp_path / "b.db", listen="127.0.0.1:0", http="", admit_new=True, otlp=victoria.otlp
    )
    with run_collector(settings, time.time_ns):
        ready = "flopmeter_collector_ready", frozenset[tuple[str, str]]()
        wait_for("the collector's metrics", lambda: victoria.last("flopmeter-collector").get(ready) == 1)
    names = {name for name, _ in victoria.last("flopmeter-collector")}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in names} <= documented().keys()


def test_a_histogram_arrives_with_its_buckets(victoria: VictoriaMetrics) -> None:
    name = "flopmeter_collector_commit_seconds"
    buckets = {"0.5": 3.0, "1": 5.0, "+Inf": 6.0}
    times = HistogramMetricFamily(name, "Time.", buckets=list(buckets.items()), sum_value=4.0)
    sending = open_exporter(victoria.otlp, lambda: [times], {"service.name": "one"}, {})
    assert sending.export() == SENT
    sending.close()
    wait_for("all of it can be read", lambda: len(victoria.last("one")) == 5, 60)
    assert victoria.last("one") == {
        **{(f"{name}_bucket", frozenset({("le", le)})): count for le, count in buckets.items()},
        (f"{name}_count", frozenset()): 6,
        (f"{name}_sum", frozenset()): 4,
    }
