"""A collector that runs hears what a command in another process says, and raises what follows; killed between, at its start."""

import os
import subprocess
import sys
import time
from importlib import resources

import pytest
from builders import UNIX_NS, Chain
from wire_client import WireClient

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.contract.usage import Workload, WorkloadKind

NOW = UNIX_NS + 86_400_000_000_000
LOOSE = Workload(WorkloadKind.SLURM, job="9", dtype="bf16")
DEADLINE_S = 60


def flopmeter(store, *args):
    done = subprocess.run(
        [sys.executable, "-c", "from flopmeter.cli.main import main; main()", *args, "--store", store],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def crossed(store):
    with reading(store) as reader:
        return [e["subject"] for e in reader.events() if e["type"] == "threshold.crossed"]


@pytest.fixture
def settings(tmp_path):
    """With a site's regime of which one window is not yet over the line, and two are."""
    regimes = tmp_path / "regimes"
    regimes.mkdir()
    return CollectorSettings(
        tmp_path / "books.db", listen="127.0.0.1:0", http="", admit_new=True, linger_ms=1, regimes=regimes
    )


def ship(collector, chain, *batches):
    with WireClient(collector.address, chain) as client:
        client.hello()
        client.records(*batches)
        client.ack(chain.seq)


def with_line(settings, flop):
    """A regime of the site's, whose line lies there."""
    text = resources.files("flopmeter.collector").joinpath("regimes", "eu-gpai.toml").read_text()
    changed = text.replace('id = "eu-gpai"', 'id = "site"').replace(
        "{ base = 10, exponent = 23 }", f'"{flop}"'
    )
    assert changed != text
    (settings.regimes / "site.toml").write_text(changed)


def good(settings):
    result = check_store(settings.store, read_laws(settings.regimes).binding)
    assert result.difference is None, result_text(result)


def booked(settings):
    """Two jobs of one window each, and a line that only both together cross."""
    chain = Chain("n")
    batches = [chain.next(), chain.next(workloads=(LOOSE,))]
    with run_collector(settings, lambda: NOW, review_s=None) as collector:
        ship(collector, chain, *batches)
        with reading(settings.store) as reader:
            lower = max(int(r["executed"]["flop"]["lower"]) for r in reader.runs(asked(0)))
    with_line(settings, lower * 3 // 2)


def test_an_entry_of_another_process_is_raised_by_the_collector_that_runs(settings):
    booked(settings)
    with run_collector(settings, lambda: NOW, review_s=0.2):
        flopmeter(settings.store, "runs", "assign", "r1", "--job", "9", "--why", "started without its label")
        with reading(settings.store) as reader:
            (run,) = reader.runs(asked(0))  # the totals follow at once, whatever the collector does
            assert run["run"] == "r1"
        until = time.monotonic() + DEADLINE_S
        while crossed(settings.store) != ["r1"]:
            assert time.monotonic() < until, "not raised"
            time.sleep(0.05)
    good(settings)


def test_killed_between_the_entry_and_the_review_it_is_raised_at_the_next_start(settings):
    booked(settings)
    with run_collector(settings, lambda: NOW, review_s=None) as collector:
        collector.review()
        flopmeter(settings.store, "runs", "assign", "r1", "--job", "9", "--why", "started without its label")
    assert crossed(settings.store) == []  # it stopped without another look
    with run_collector(settings, lambda: NOW, review_s=None) as collector:
        collector.review()
        assert crossed(settings.store) == ["r1"]
        collector.review()
        assert crossed(settings.store) == ["r1"]
    good(settings)
