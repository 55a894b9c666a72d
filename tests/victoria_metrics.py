"""VictoriaMetrics, a database of its own that takes OTLP: of Debian 13, once below out/, nothing installed.

Debian 12's is older than its OTLP. The package of 13 runs on 12 as well (libc6 2.34), comes by the machine's own
mirror under apt's signatures, and is unpacked, not installed.
"""

import fcntl
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from processes import free_port, wait_for

PLACE = Path(__file__).resolve().parents[1] / "out/victoria-metrics-debian-13"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
NO_DEBIAN = "victoria-metrics of Debian 13 could not be fetched by apt"
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def binary() -> Path:
    """The program; skips the test, with the reason, where it cannot be had."""
    program = PLACE / "victoria-metrics"
    if not shutil.which("apt-get") or not Path(KEYS).exists():
        pytest.skip(NO_DEBIAN)
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests of several processes at once
        if not program.exists():
            try:
                _fetch()
            except (OSError, subprocess.SubprocessError, StopIteration) as e:
                pytest.skip(f"{NO_DEBIAN}: {type(e).__name__}")
    return program


def _fetch() -> None:
    """By apt's ordinary client, with lists and a cache of its own: the machine's own sources stay what they are."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirrors = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.split()
    mirror = next(m for m in mirrors if re.search(r"/debian/?$", m))
    for folder in ("lists/partial", "cache/archives/partial"):
        (PLACE / folder).mkdir(parents=True, exist_ok=True)
    (PLACE / "debian.sources").write_text(
        f"Types: deb\nURIs: {mirror}\nSuites: trixie\nComponents: main\nSigned-By: {KEYS}\n"
    )
    own = {
        "Dir::Etc::sourcelist": PLACE / "debian.sources", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": PLACE / "lists", "Dir::Cache": PLACE / "cache", "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }  # fmt: skip
    options = [f"-o{name}={value}" for name, value in own.items()]
    for words in (["update"], ["download", "victoria-metrics/trixie"]):
        subprocess.run(
            ["apt-get", "-q", *options, *words], cwd=PLACE, capture_output=True, timeout=120, check=True
        )
    (package,) = PLACE.glob("victoria-metrics_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, PLACE / "all"], capture_output=True, timeout=60, check=True)
    (PLACE / "all/usr/bin/victoria-metrics").rename(PLACE / "victoria-metrics")
    package.unlink()
    for folder in ("all", "lists", "cache"):
        shutil.rmtree(PLACE / folder)


class VictoriaMetrics:
    def __init__(self, port: int) -> None:
        self._at = f"http://127.0.0.1:{port}"
        self.otlp = f"{self._at}/opentelemetry"

    def last(self, service: str) -> Series:
        """The last sample of each series of ours that the service sent, without what tells services apart."""
        with urllib.request.urlopen(f"{self._at}/internal/force_flush", timeout=20):
            pass  # what it took a moment ago can be read from now on
        match = urllib.parse.quote(f'{{__name__=~"flopmeter_.+",service_name="{service}"}}')
        with urllib.request.urlopen(f"{self._at}/api/v1/export?match[]={match}", timeout=20) as answer:
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
        binary(), f"-storageDataPath={folder}/data", f"-httpListenAddr=127.0.0.1:{port}", "-memory.allowedBytes=64MB",
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

        wait_for("VictoriaMetrics listens", listens, 30)
        yield VictoriaMetrics(port)
    finally:
        process.kill()
        process.wait(30)
