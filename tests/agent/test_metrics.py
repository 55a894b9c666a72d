"""/metrics and /healthz, fetched over HTTP and read with Prometheus's own parser."""

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sim_node import SimRecording

from fakes import FakeCollector
from flopmeter.agent.errors import AgentError
from flopmeter.agent.metering.meter import MeterSettings
from flopmeter.agent.metrics import MAX_CONNECTIONS, AgentView, MetricsServer
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reading import Reading
from flopmeter.agent.workloads.claims import Claims
from flopmeter.agent.workloads.processes import ProcFinder

WAIT_S = 60.0


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    fake = FakeCollector()
    yield fake
    fake.stop()


@pytest.fixture
def pipeline(tmp_path: Path, collector: FakeCollector) -> Iterator[Pipeline]:
    made = Pipeline.open(
        replace(SimRecording(1).facts(), source="nvml", cluster="c1"),
        meter_factory(MeterSettings(window_ns=10_000_000_000), agent_version="0.1.0"),
        PipelineSettings(state=tmp_path, collector=collector.target),
        agent_version="0.1.0",
        rng=Random(1),
    )
    yield made
    made.close()


@pytest.fixture
def view(pipeline: Pipeline) -> AgentView:
    return AgentView(pipeline, version="0.1.0", tick_ns=10**9, workload=lambda r: r.workload)


@pytest.fixture
def server(view: AgentView) -> Iterator[MetricsServer]:
    made = MetricsServer("127.0.0.1:0", view)
    yield made
    made.close()


def fetch(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=WAIT_S) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(server: MetricsServer) -> Series:
    status, text = fetch(server, "/metrics")
    assert status == 200
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            key = (s.name, tuple(sorted(s.labels.items())))
            assert key not in found
            found[key] = s.value
    return found


def test_the_numbers_are_those_of_the_parts(
    pipeline: Pipeline, view: AgentView, server: MetricsServer
) -> None:
    aside = pipeline.chain.spool.aside
    aside.limit_bytes = 50
    aside.keep("record-1", bytes(40), "w")
    aside.keep("record-2", bytes(30), "w")
    readings: list[Reading] = []
    for item in SimRecording(25).items():
        assert isinstance(item, Reading)
        pipeline.observe(item)
        readings.append(item)
    bad = Reading(readings[-1].entity, readings[-1].t_boot_ns, 0, error="NVML_ERROR_TIMEOUT")
    view.on_tick(readings[-2:])
    view.on_tick([readings[-2], bad])
    assert pipeline.wait_acked(WAIT_S)
    got = series(server)
    plain = {name: value for (name, labels), value in got.items() if not labels}
    assert plain["flopmeter_agent_readings_total"] == 50
    assert plain["flopmeter_agent_windows_sealed_total"] == 2
    assert plain["flopmeter_agent_spool_pending_records"] == 0
    assert plain["flopmeter_agent_spool_bytes"] == pipeline.chain.spool.total_bytes
    assert plain["flopmeter_agent_quarantine_bytes"] == 32
    assert plain["flopmeter_agent_quarantine_dropped_total"] == 1
    assert plain["flopmeter_agent_uplink_connected"] == 1
    assert plain["flopmeter_agent_uplink_connects_total"] == 1
    assert plain["flopmeter_agent_uplink_last_ack_timestamp_seconds"] > 1.7e9
    assert 0 < plain["flopmeter_agent_cpu_seconds_total"] < 3600
    assert 10e6 < plain["flopmeter_agent_resident_memory_bytes"] < 10e9
    assert plain["flopmeter_agent_threads"] >= 2
    one, two = readings[-2].entity, readings[-1].entity
    assert got["flopmeter_gpu_read_ok", (("hw_id", one),)] == 1
    assert got["flopmeter_gpu_read_ok", (("hw_id", two),)] == 0
    assert got["flopmeter_gpu_failed_readings_total", (("hw_id", two),)] == 1
    at = got["flopmeter_gpu_last_reading_timestamp_seconds", (("hw_id", two),)]
    assert at == pytest.approx(readings[-1].t_unix_ns / 1e9)
    jobs = [dict(labels) for (name, labels) in got if name == "flopmeter_gpu_workload_info"]
    assert jobs == [
        {"hw_id": one, "kind": "slurm", "job_id": "1001", "step": "0", "run": "run-a", "user": "u"}
    ]
    info = next(dict(labels) for (name, labels) in got if name == "flopmeter_agent_info")
    assert info["agent_id"] == pipeline.chain.key.agent_id.hex()
    assert info["cluster"] == "c1"


def test_names_units_and_labels_keep_the_conventions(
    pipeline: Pipeline, view: AgentView, server: MetricsServer
) -> None:
    view.on_tick([i for i in SimRecording(1).items() if isinstance(i, Reading)])
    _, text = fetch(server, "/metrics")
    for family in text_string_to_metric_families(text):
        assert family.name.startswith(("flopmeter_agent", "flopmeter_gpu"))
        assert family.documentation
        for s in family.samples:
            assert s.name.endswith("_total") == (family.type == "counter")
            assert len(s.labels) < 20
            job_labels = s.labels.keys() & {"job_id", "run", "user", "step"}
            assert not job_labels or s.name == "flopmeter_gpu_workload_info"


def test_health_is_the_loop_turning(view: AgentView, server: MetricsServer) -> None:
    assert fetch(server, "/healthz") == (200, "ok\n")
    view._ticked_s -= 1000
    status, text = fetch(server, "/healthz")
    assert status == 503
    assert "no tick for 1000 s" in text
    assert 1000 <= series(server)["flopmeter_agent_tick_age_seconds", ()] < 1100
    assert series(server)["flopmeter_agent_tick_period_seconds", ()] == 1
    view.on_tick([])
    assert fetch(server, "/healthz")[0] == 200
    assert series(server)["flopmeter_agent_tick_age_seconds", ()] < 100


def test_a_collector_out_of_reach_is_not_unhealthy_but_a_broken_uplink_is(
    pipeline: Pipeline, collector: FakeCollector, server: MetricsServer
) -> None:
    collector.stop()
    assert pipeline.uplink is not None
    assert fetch(server, "/healthz")[0] == 200
    pipeline.uplink.publish(fatal=AgentError("the spool is broken"))
    status, text = fetch(server, "/healthz")
    assert (status, text) == (503, "uplink: the spool is broken\n")


def test_who_drips_in_requests_holds_a_bounded_number_of_threads_and_no_scrape(server: MetricsServer) -> None:
    before = threading.active_count()
    slow = []
    try:
        for _ in range(4 * MAX_CONNECTIONS):
            slow.append(socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S))
            slow[-1].sendall(b"GET /met")
        assert fetch(server, "/metrics")[0] == 200
        assert all(s.recv(1) == b"" for s in slow[: 3 * MAX_CONNECTIONS])  # they were hung up on
        deadline_s = time.monotonic() + WAIT_S
        while threading.active_count() > before + MAX_CONNECTIONS and time.monotonic() < deadline_s:
            time.sleep(0.001)
        assert threading.active_count() <= before + MAX_CONNECTIONS
    finally:
        for s in slow:
            s.close()


def test_other_paths_are_not_found(server: MetricsServer) -> None:
    assert fetch(server, "/")[0] == 404
    assert fetch(server, "/metrics?name[]=x")[0] == 200


def test_an_address_in_use_is_an_error_with_a_hint(view: AgentView, server: MetricsServer) -> None:
    with pytest.raises(AgentError, match="cannot listen") as caught:
        MetricsServer(f"127.0.0.1:{server.port}", view)
    assert "--metrics-address" in caught.value.hint


def test_what_training_code_declared_is_counted(view: AgentView, server: MetricsServer) -> None:
    assert not [name for name, _ in series(server) if "declarations" in name]  # a recording hears nobody
    view.claims = Claims(ProcFinder())
    for pid, datagram in ((os.getpid(), b'{"v":1,"run":"x"}'), (1, b"no"), (1, b"[]"), (0, b'{"v":1}')):
        view.claims.hear(pid, datagram, 1, 1)
    got = {name: value for (name, _), value in series(server).items() if "declarations" in name}
    assert got == {
        "flopmeter_agent_declarations_taken_total": 1,
        "flopmeter_agent_declarations_refused_total": 2,
        "flopmeter_agent_declarations_unknown_total": 1,
        "flopmeter_agent_declarations_uncounted_total": 0,
        "flopmeter_agent_declarations_forgotten_total": 0,
    }


def test_scrapes_at_once_ask_one_after_another_whose_a_gpu_is(view: AgentView, pipeline: Pipeline) -> None:
    """What names workloads remembers them, and is no thing for two threads."""
    two = threading.Barrier(2)
    met: list[bool] = []

    def whose(reading: Reading) -> None:
        try:
            two.wait(0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)

    view.workload = whose
    view.on_tick([Reading(pipeline.facts.devices[0].entity, 1, 1)])
    scrapes = [threading.Thread(target=lambda: list(view.collect())) for _ in range(2)]
    for scrape in scrapes:
        scrape.start()
    for scrape in scrapes:
        scrape.join(WAIT_S)
    assert met == [False, False]
