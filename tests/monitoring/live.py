"""A real Prometheus that scrapes a real collector, over the demo's books, and a real agent of simulated GPUs."""

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from processes import flopmeter, free_port, start, wait_for

ROOT = Path(__file__).parents[2]
DEPLOYED = ROOT / "deploy/prometheus"
_SINKS = '[[sinks]]\nname = "ops"\ntype = "jsonl"\npath = "{path}"\n'


@dataclass(frozen=True)
class Live:
    """The two as Prometheus calls them, and what it answers."""

    url: str
    agent: str
    collector: str

    def _get(self, path: str, **query: str) -> Any:
        with urllib.request.urlopen(
            f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=60
        ) as got:
            said = json.load(got)
        assert said["status"] == "success", said
        return said["data"]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query, now. Raises HTTPError for one that cannot be read."""
        found = self._get("query", query=expr)["result"]
        assert isinstance(found, list)
        return found

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def ready(self) -> bool:
        """The figures of the books have been there twice, and something has been recorded of them."""
        try:
            return bool(
                self.ask("fleet:flopmeter_unattributed:ratio_delta1h")
                and self.ask("run_bound:flopmeter_gpu_flop:rate5m")
                and self.ask("run_regime_bound:flopmeter_run_line:ratio")
            )
        except OSError:
            return False


def configuration(folder: Path, agent: str, collector: str) -> Path:
    """What deploy/prometheus says, with these targets, and every second instead of every thirty."""
    whole = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
    whole["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in whole["scrape_configs"]:
        job["static_configs"][0]["targets"] = [agent if job["job_name"].endswith("agent") else collector]
    for name in whole["rule_files"]:
        text = (DEPLOYED / name).read_text()
        (folder / name).write_text(re.sub(r"(?m)^    interval: 30s$", "    interval: 1s", text))
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(whole))
    return file


@contextmanager
def running(folder: Path) -> Iterator[Live]:
    ports = {name: free_port() for name in ("agents", "http", "metrics", "prometheus")}
    at = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    store = folder / "store"
    done = flopmeter("demo", "--once", "--nodes", "5", "--days", "3", "--dir", store)
    assert done.returncode == 0, done.stderr
    sinks = folder / "sinks.toml"
    sinks.write_text(_SINKS.format(path=folder / "events.jsonl"))
    with ExitStack() as undo:

        def begin(name: str, process: "subprocess.Popen[bytes]") -> None:
            def end() -> None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(60)

            undo.callback(end)
            assert process.poll() is None, (folder / f"{name}.log").read_text()[-2000:]

        log = folder / "collector.log"
        begin(
            "collector",
            start(
                "collector", "serve", "--store", store, "--listen", at["agents"], "--http", at["http"], "--admit-new",
                "--checkpoint-s", "2", "--sinks", sinks, log=log,
            ),
        )  # fmt: skip
        wait_for("the collector listens", lambda: "listening on" in log.read_text(), 60)
        begin(
            "agent",
            start(
                "agent", "run", "--source", "sim", "--state", folder / "agent", "--collector", at["agents"], "--window",
                "1s", "--tick", "500ms", "--metrics-address", at["metrics"], log=folder / "agent.log",
            ),
        )  # fmt: skip
        file = configuration(folder, at["metrics"], at["http"])
        with (folder / "prometheus.log").open("ab") as out:
            prometheus = subprocess.Popen(
                [
                    str(shutil.which("prometheus")), f"--config.file={file}", f"--storage.tsdb.path={folder}/tsdb",
                    f"--web.listen-address={at['prometheus']}",
                ],
                stdout=out, stderr=out,
            )  # fmt: skip
        begin("prometheus", prometheus)
        live = Live(f"http://{at['prometheus']}", at["metrics"], at["http"])
        try:
            wait_for("Prometheus has recorded what it is asked for", live.ready, 150)
        except AssertionError as e:
            logs = "\n".join(f"--- {f.name}\n{f.read_text()[-1500:]}" for f in folder.glob("*.log"))
            raise AssertionError(f"{e}\n{logs}") from e
        yield live
