"""/metrics of a whole collector: every family of the page, run totals that are the books', and nobody who waits for them."""

import re
import shutil
import subprocess
import threading
import time
import urllib.request
from dataclasses import replace

import pytest
from builders import Chain
from desk import Desk
from metrics_said import PAGE_PREFIXES, documented, exposed
from otlp_said import points
from prometheus_client.parser import text_string_to_metric_families
from receivers import Receiver, Reply, authority
from serving import settings_for
from witness_rig import keys

from flopmeter.collector.errors import SettingsError
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.metrics_books import BooksMetrics
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.running import run_collector

TSA = "http://127.0.0.1:1/tsr"
#: What this collector has no reason to say: no line is crossed, nothing is forecast yet, nothing is due, and its agents,
#: which are of an older version, do not tell their clocks.
NOT_YET = {
    "flopmeter_fleet_clock_off_seconds",
    "flopmeter_run_crossed_timestamp_seconds",
    "flopmeter_run_forecast_info",
    "flopmeter_run_forecast_crossing_timestamp_seconds",
    "flopmeter_next_deadline_timestamp_seconds",
}


def scrape(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        return answer.read().decode()


def poll(address, *names):
    """Scrapes until the page has all of them: figures of runs come when the process that reads the books has answered."""
    nap = threading.Event()
    for _ in range(400):
        text = scrape(address)
        if all(re.search(rf"^{name}[{{ ]", text, re.MULTILINE) for name in names):
            return text
        nap.wait(0.1)
    raise AssertionError(text)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(text, what a receiver of OTLP got, the run's document) of a collector with everything that one can have."""
    home = tmp_path_factory.mktemp("whole")
    now = time.time_ns()  # the process that reads the books goes by the real clock
    chain = Chain("gpu-001")
    with Desk(home / "b.db", shipped()) as desk:
        desk.now = now
        chain.unix_ns = now - 4 * 60_000_000_000
        agent = desk.agent(chain)
        for _ in range(3):
            desk.offer(agent, chain.next())
        desk.commit()
    witness = keys("w.example", seed=b"w" * 32)[0].vkey
    (home / "policy").write_text(f"witness w {witness} http://127.0.0.1:1/w\ngroup all 1 w\nquorum all\n")
    said = settings_for(
        home,
        tls_name="localhost",
        enrol="127.0.0.1:0",
        event_log=home / "events.jsonl",
        witness_policy=home / "policy",
        tsa=(TSA,),
        tsa_ca=authority(home)[0],
    )
    with Receiver(otherwise=Reply(200)) as receiver:
        said = replace(said, otlp=f"http://127.0.0.1:{receiver.port}")
        with run_collector(said, lambda: now) as running:
            counters = running.counters
            counters.refusals["bad-signature"] = counters.pushbacks["busy"] = counters.events[
                "agent.silent"
            ] = 1
            text = poll(running.http_address, "flopmeter_run_info", "flopmeter_collector_witness_quorum")
            exporter = running._collector._otlp
            assert exporter.export() == "sent"
            sent = receiver.requests[-1].body
    with reading(home / "b.db") as reader:
        (run,) = reader.runs(asked(now))
    return text, sent, run


def test_every_metric_of_the_page_is_there_and_no_other(page):
    want = {n: d for n, d in documented().items() if not n.startswith(("flopmeter_agent_", "flopmeter_gpu_"))}
    got = exposed(text_string_to_metric_families(page[0]))
    ours = {n: d for n, d in got.items() if n.startswith("flopmeter_")}
    assert set(want) - set(ours) == NOT_YET
    assert {n: want[n] for n in ours} == ours
    assert all(n.startswith(PAGE_PREFIXES) for n in set(got) - set(ours))


def test_promtool_finds_nothing(page):
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    said = subprocess.run(
        [program, "check", "metrics"], input=page[0].encode(), capture_output=True, timeout=60
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


def values(text):
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in text_string_to_metric_families(text)
        for s in f.samples
    }


def test_run_totals_are_those_of_runs_show(page):
    text, _, run = page
    got = values(text)
    for bound in ("lower", "point", "upper"):
        labels = (("bound", bound), ("run", run["run"]))
        assert got["flopmeter_run_executed_flop", labels] == float(run["executed"]["flop"][bound]) > 0
        for line in run["thresholds"]:
            if not line["in_force"]:
                continue
            of = (("bound", bound), ("regime", line["regime"]), ("run", run["run"]))
            counted = run["countable"][line["regime"]]["flop"][bound]
            assert got["flopmeter_run_countable_flop", of] == float(counted)
            there = ("regime", line["regime"]), ("run", run["run"])
            assert got["flopmeter_run_threshold_flop", there] == float(line["threshold_flop"])
            assert got["flopmeter_run_verdict_info", (*there, ("verdict", line["verdict"]))] == 1
    for kind in ("expected", "observed", "gap"):
        labels = (("kind", kind), ("run", run["run"]))
        assert got["flopmeter_run_device_seconds", labels] == run["coverage"][f"{kind}_device_seconds"]
    assert got["flopmeter_run_energy_joules", (("run", run["run"]),)] == run["energy_joules"] > 0


def test_otlp_says_the_same(page):
    text, sent, _ = page
    at_rest = {
        k: v for k, v in values(text).items() if k[0].startswith(("flopmeter_run", "flopmeter_regime"))
    }
    got = points(sent)
    assert at_rest
    for (name, labels), value in at_rest.items():
        assert got[name, tuple((k, v) for k, v in labels if v)] == value, name
    assert {n for n, _ in got} <= {n.removesuffix("_total") for n in documented()}


# ---- while nobody answers --------------------------------------------------------------------------------


def test_a_scrape_does_not_wait_for_a_process_that_hangs(tmp_path):
    """The real one in its place would be killed after minutes; a scrape is there at once, without runs."""
    import sys

    from flopmeter.collector.metrics import Counters
    from flopmeter.collector.metrics_page import CollectorMetrics
    from flopmeter.collector.web.commands import Commands
    from flopmeter.collector.web.server import Edge, EdgeServer

    books = BooksMetrics()
    hangs = (
        sys.executable,
        "-c",
        "import sys; open(sys.argv[1], 'w'); sys.stdin.buffer.read()",
        tmp_path / "asked",
    )
    served = EdgeServer(
        "127.0.0.1",
        0,
        Edge(
            metrics=CollectorMetrics(Counters(), lambda: 3, lambda: True, books=books),
            alive=lambda: True,
            ready=lambda: True,
            store=tmp_path / "b.db",
            unix_ns=time.time_ns,
            worker=tuple(map(str, hangs)),
            commands=Commands(tmp_path / "b.db"),
            background=books.follow,
        ),
    )
    try:
        nap = threading.Event()
        for _ in range(400):
            got = values(scrape(f"127.0.0.1:{served.port}"))
            assert got["flopmeter_collector_books_answer_timestamp_seconds", ()] == 0
            assert not [n for n, _ in got if n.startswith("flopmeter_run")]
            if (tmp_path / "asked").exists():
                break
            nap.wait(0.05)
        else:
            raise AssertionError("nobody asked")
        assert values(scrape(f"127.0.0.1:{served.port}"))
    finally:
        served.stop()


def test_a_collector_that_cannot_send_as_it_was_asked_to_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    before = {t.name for t in threading.enumerate()}
    with pytest.raises(SettingsError, match="http/protobuf"):
        run_collector(settings_for(tmp_path, otlp="http://127.0.0.1:4318"))
    after = {t.name for t in threading.enumerate() if "_poll_wrapper" not in t.name}  # gRPC's own stays
    assert not after - before


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "http://ann:s3cr3t@h", "https://h/?key=s3cr3t"])
def test_a_url_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(tmp_path, url):
    with pytest.raises(SettingsError, match="--otlp: expected") as e:
        settings_for(tmp_path, otlp=url)
    assert "s3cr3t" not in str(e.value)
