"""Agent and collector send to a receiver that is not ours: Rotel, an OpenTelemetry collector in Rust (`make peers`).

It takes the export, and passes on what it understood of it to the tests, which read that by OpenTelemetry's definitions.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest
from metrics_said import documented
from otlp_said import points, resources
from processes import COMMAND, free_port, wait_for
from receivers import Receiver, Reply

from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings

PEERS = Path(__file__).parents[2] / ".venv-peers"
GPUS = 8  # of the simulated node


class Rotel(NamedTuple):
    url: str
    seen: Receiver  # where it passes on what it took

    def metrics(self, service: str) -> dict[object, object]:
        """The newest of each point that it passed on of that service."""
        found: dict[object, object] = {}
        for request in list(self.seen.requests):
            if resources(request.body)[0].get("service.name") == service:
                found |= points(request.body)
        return found

    def resource(self, service: str) -> dict[str, str]:
        every = (r for request in list(self.seen.requests) for r in resources(request.body))
        return next(r for r in every if r["service.name"] == service)


@pytest.fixture(scope="module")
def rotel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotel]:
    binary = next(PEERS.glob("lib/python*/site-packages/rotel/rotel-agent"), None)
    if binary is None:
        pytest.skip("peers are not installed: make peers")
    folder = tmp_path_factory.mktemp("rotel")
    grpc, http = free_port(), free_port()
    with ExitStack() as stack:
        seen = stack.enter_context(Receiver(otherwise=Reply(200)))
        flags = {
            "--otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
            "--otlp-http-endpoint": f"127.0.0.1:{http}",
            "--exporter": "otlp",
            "--otlp-exporter-endpoint": f"http://127.0.0.1:{seen.port}",
            "--otlp-exporter-protocol": "http",
            "--log-file": str(folder / "log"),
            "--pid-file": str(folder / "pid"),
        }
        said = stack.enter_context((folder / "said").open("wb"))
        words = [str(binary), "start", *(w for flag in flags.items() for w in flag)]
        process = subprocess.Popen(words, stdout=said, stderr=said, cwd=folder)
        stack.callback(process.wait, 60)
        stack.callback(process.kill)

        def listens() -> bool:
            assert process.poll() is None, (folder / "said").read_text()
            with closing(socket.socket()) as s:
                return s.connect_ex(("127.0.0.1", http)) == 0

        wait_for("rotel listens", listens)
        yield Rotel(f"http://127.0.0.1:{http}", seen)


def test_an_agent_sends_what_its_gpus_did(rotel: Rotel, tmp_path: Path) -> None:
    words = ["agent", "run", "--source", "sim", "--state", tmp_path, "--window", "2s"]
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("OTEL_")},
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=c1",
    }
    process = subprocess.Popen(
        [COMMAND, *map(str, words), "--node", "n1", "--otlp", rotel.url],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        names = {
            n.removesuffix("_total"): d for n, d in documented().items() if n.startswith("flopmeter_gpu_")
        }
        # No gap: every reading of the simulation is good.
        wanted = set(names) - {"flopmeter_gpu_gap_seconds"}
        wait_for(
            "every metric of GPUs",
            lambda: process.poll() is not None or wanted <= {n for n, _ in rotel.metrics("flopmeter-agent")},  # type: ignore[misc]
        )
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    got = rotel.metrics("flopmeter-agent")
    gpus = {dict(labels)["hw.id"] for name, labels in got if name.startswith("flopmeter_gpu_")}  # type: ignore[misc]
    assert len(gpus) == GPUS
    for name, labels in got:  # type: ignore[misc]
        if name in names:
            said_labels = {n.replace("hw.", "hw_") for n in dict(labels)} - {"hw_type"}
            assert said_labels <= names[name].labels
            assert dict(labels)["hw.type"] == "gpu"
    resource = rotel.resource("flopmeter-agent")
    assert resource["host.name"] == "n1"
    assert resource["k8s.cluster.name"] == "c1"
    assert len(resource["service.instance.id"]) == 32
    assert "WARNING" not in said.replace("WARNING flopmeter.agent.workloads", "")


def test_a_collector_sends_its_own(rotel: Rotel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1000")
    settings = CollectorSettings(
        store=tmp_path / "b.db", listen="127.0.0.1:0", http="", admit_new=True, otlp=rotel.url
    )
    with run_collector(settings, time.time_ns):
        wait_for(
            "the collector's metrics",
            lambda: ("flopmeter_collector_ready", ()) in rotel.metrics("flopmeter-collector"),
        )
    got = rotel.metrics("flopmeter-collector")
    assert {n for n, _ in got} <= {n.removesuffix("_total") for n in documented()}  # type: ignore[misc]
    count, _, counts, bounds = got["flopmeter_collector_commit_seconds", ()]  # type: ignore[misc]
    assert sum(counts) == count
    assert len(counts) == len(bounds) + 1
    assert rotel.resource("flopmeter-collector")["service.version"]
