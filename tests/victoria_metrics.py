"""VictoriaMetrics, a database of its own that takes OTLP. Debian 12's is older than its OTLP: that of 13 is taken."""

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from debian_13 import program
from processes import free_port, wait_for

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class VictoriaMetrics:
    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}"
        self.otlp = f"{self._at}/opentelemetry"

    def last(self, service: str) -> Series:
        """The last sample of each series of ours that the service sent, without what tells services apart."""
        with urllib.request.urlopen(f"{self._at}/internal/force_flush", timeout=60):
            pass  # what it took a moment ago can be read from now on
        match = urllib.parse.quote(f'{{__name__=~"flopmeter_.+",service_name="{service}"}}')
        with urllib.request.urlopen(f"{self._at}/api/v1/export?match[]={match}", timeout=60) as answer:
            lines = [json.loads(line) for line in answer.read().splitlines()]
        found: Series = {}
        for line in lines:
            labels = {k: v for k, v in line["metric"].items() if not k.startswith(("service_", "host_"))}
            key = labels.pop("__name__"), frozenset(labels.items())
            assert key not in found, f"two series where /metrics has one: {key}"
            found[key] = line["values"][-1]
        return found


@contextmanager
def running(folder: Path) -> Iterator[VictoriaMetrics]:
    port = free_port()
    words = [
        program("victoria-metrics"), f"-storageDataPath={folder}/data", f"-httpListenAddr=127.0.0.1:{port}", "-memory.allowedBytes=64MB",
        "-opentelemetry.usePrometheusNaming", "-retentionPeriod=100y",
    ]  # fmt: skip
    with (folder / "victoria.log").open("wb") as log:
        process = subprocess.Popen(list(map(str, words)), stdout=log, stderr=log)
    try:

        def listens() -> bool:
            assert process.poll() is None, (folder / "victoria.log").read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_for("VictoriaMetrics listens", listens, 60)
        yield VictoriaMetrics(port)
    finally:
        process.kill()
        process.wait(60)
