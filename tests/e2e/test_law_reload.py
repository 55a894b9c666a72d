"""Law files of a collector that is a process of its own: SIGHUP, /metrics, `regimes status`, and a start on bad files."""

import json
import signal
import urllib.request
from pathlib import Path

import pytest
from law_files import REGIME
from processes import flopmeter, start, wait_for


class Served:
    def __init__(self, tmp_path: Path, law: Path) -> None:
        self.store, self.log, self.law = tmp_path / "books.sqlite", tmp_path / "collector.log", law
        words = ("--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--regimes", law)
        self.log.write_text("")
        self.process = start("collector", "serve", "--store", self.store, *words, log=self.log)
        wait_for("it serves", lambda: "health and metrics on " in self.log.read_text(), 60)
        line = next(line for line in self.log.read_text().splitlines() if "health and metrics on " in line)
        self.url = line.split(" on ")[1]

    def gauge(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as response:
            lines = response.read().decode().splitlines()
        return next(
            float(line.split()[1]) for line in lines if line.startswith(f"flopmeter_collector_{name} ")
        )

    def look(self, said: str) -> None:
        self.process.send_signal(signal.SIGHUP)
        wait_for(said, lambda: said in self.log.read_text(), 60)

    def status(self) -> dict:
        done = flopmeter("regimes", "status", "--store", self.store, "--regimes", self.law, "--json")
        return {"code": done.returncode, **json.loads(done.stdout)}

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 0


@pytest.fixture
def law(tmp_path: Path) -> Path:
    directory = tmp_path / "law"
    directory.mkdir()
    (directory / "own.toml").write_text(REGIME)
    return directory


def test_sighup_takes_good_files_and_keeps_the_last_good_ones(tmp_path, law):
    served = Served(tmp_path, law)
    try:
        wait_for("the first is judged by", lambda: served.status()["ok"], 60)
        count = served.gauge("regimes")
        (law / "own.toml").write_text(REGIME.replace('version = "1"', 'version = "2"'))
        (law / "two.toml").write_text(REGIME.replace("site-rule", "second"))
        served.look("second is new: version 1")
        assert "site-rule is another text: version 2" in served.log.read_text()
        wait_for("both are judged by", lambda: served.status()["ok"], 60)
        assert (served.gauge("regimes"), served.gauge("regimes_good")) == (count + 1, 1)

        (law / "two.toml").write_text(REGIME.replace("site-rule", "second").replace("effective", "efective"))
        served.look("two.toml:9:1: key efective: expected no such key")
        assert (served.gauge("regimes"), served.gauge("regimes_good")) == (count + 1, 0)
        status = served.status()
        assert (status["code"], status["ok"]) == (1, False)
        assert ("two.toml", 9, "efective") in {(f["file"], f["line"], f["key"]) for f in status["faults"]}
        assert "second" in {r["regime"] for r in status["regimes"]}
    finally:
        served.stop()

    again = Served(tmp_path, law)  # on files that are still bad
    try:
        assert "starts with the site's files that it applied last" in again.log.read_text()
        assert (again.gauge("regimes"), again.gauge("regimes_good")) == (count + 1, 0)
        (law / "two.toml").unlink()
        again.look("second is no longer judged by")
        assert (again.gauge("regimes"), again.gauge("regimes_good")) == (count, 1)
        wait_for("what is here is judged by", lambda: again.status()["ok"], 60)
    finally:
        again.stop()
