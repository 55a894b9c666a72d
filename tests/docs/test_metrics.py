"""docs/metrics.md and the programs name the same metrics, in both directions; the names keep Prometheus's rules."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from metrics_said import PAGE, documented, exposed
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from run_items import THRESHOLD, figure, fleet, items, lines, overview
from sim_node import SimRecording

from fakes import FakeCollector
from flopmeter.agent.gpu_metrics import MAX_SERIES_PER_GPU, USUAL_SERIES_PER_GPU
from flopmeter.agent.metering.meter import MeterSettings
from flopmeter.agent.metrics import AgentView
from flopmeter.agent.pipeline import Pipeline, PipelineSettings, meter_factory
from flopmeter.agent.reading import Reading
from flopmeter.agent.workloads.claims import Claims
from flopmeter.agent.workloads.processes import ProcFinder
from flopmeter.cli.otlp_outcomes import Outcomes
from flopmeter.collector.api.run_metrics import FAMILIES, MAX_RUNS, PER_REGIME, PER_RUN, run_metrics
from flopmeter.collector.metrics_books import BooksMetrics
from flopmeter.collector.metrics_page import CollectorMetrics
from flopmeter.contract.usage import Uncovered

MAX_LABELS = 20  # DESIGN: fewer than that


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentView]:
    """An agent that has seen everything: claims, cards of others, a failed reading, a gap, heads of a log."""
    collector = FakeCollector()
    recording = SimRecording(45, gpm="percent")
    card = Uncovered("0000:01:00.0", "AMD", "1002:74a1", "another vendor's")
    pipeline = Pipeline.open(
        replace(recording.facts(), source="nvml", cluster="c1", uncovered=(card, card)),
        meter_factory(MeterSettings(window_ns=10_000_000_000), agent_version="0.1.0"),
        PipelineSettings(state=tmp_path_factory.mktemp("agent"), collector=collector.target),
        agent_version="0.1.0",
        rng=Random(1),
    )
    view = AgentView(
        pipeline, version="0.1.0", tick_ns=10**9, workload=lambda r: r.workload, claims=Claims(ProcFinder())
    )
    view.otlp = Outcomes()
    pipeline.on_durable = view.on_durable
    gone = None
    for item in recording.items():
        assert isinstance(item, Reading)
        gone = gone or item.entity
        lost = item.entity == gone and item.t_boot_ns // 10**9 % 50 > 30
        failed = Reading(item.entity, item.t_boot_ns, item.t_unix_ns, error="NVML_ERROR_GPU_IS_LOST")
        pipeline.observe(failed if lost else item)
        view.on_tick([*(v.reading for k, v in view.gpus.items() if v.reading and k != item.entity), item])
    assert pipeline.wait_acked(20)
    yield view
    pipeline.close()
    collector.stop()


def books(regimes: int = 3, runs: int = 2) -> BooksMetrics:
    import json

    from flopmeter.collector.api.question import Answer

    found = BooksMetrics()
    certain = dict.fromkeys((f"law-{n}" for n in range(regimes)), figure(THRESHOLD * 10 ** (regimes + 1)))
    shown = [item | {"countable": certain} for item in items(runs)]
    said = run_metrics(
        lines(regimes),
        shown,
        overview(runs),
        fleet(),
        now_unix_s=1_795_000_000.0,
        energy_joules=lambda _: 5e9,
        crossed={(item["run"], law): 1_794_900_000 * 10**9 for item in shown for law in certain},
    )
    found.take(Answer(200, "application/json", json.dumps(said).encode()))
    return found


def test_the_agents_metrics_are_those_of_the_page(agent: AgentView) -> None:
    want = {n: d for n, d in documented().items() if n.startswith(("flopmeter_agent_", "flopmeter_gpu_"))}
    assert exposed(agent.collect()) == want


def test_the_metrics_of_the_books_are_those_of_the_page() -> None:
    of_books = {
        n: d for n, d in documented().items() if not n.startswith(("flopmeter_agent_", "flopmeter_gpu_"))
    }
    got = exposed(books().families())
    assert set(FAMILIES) <= set(got), "the runs of this test lack something that the program can say"
    assert got == {
        n: d for n, d in of_books.items() if n in FAMILIES or n.startswith("flopmeter_collector_books_")
    }


def promtool(text: bytes) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    said = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


def text_of(collector: object, render: object = generate_latest) -> bytes:
    registry = CollectorRegistry()
    registry.register(collector)  # type: ignore[arg-type]
    return render(registry)  # type: ignore[operator, no-any-return]


class Books:
    def collect(self) -> Iterator[Metric]:
        return books().families()


def test_promtool_finds_nothing_in_the_agents_page(agent: AgentView) -> None:
    promtool(text_of(agent))


def test_promtool_finds_nothing_in_what_the_books_say() -> None:
    promtool(text_of(Books()))


def test_openmetrics_reads_both(agent: AgentView) -> None:
    for page in (agent, Books()):
        assert list(read_openmetrics(text_of(page, openmetrics).decode()))


def test_a_series_has_fewer_labels_than_backends_allow_and_jobs_stand_on_one_alone(agent: AgentView) -> None:
    for name, named in documented().items():
        assert len(named.labels) < MAX_LABELS
        if named.labels & {"job_id", "user", "step"}:
            assert name == "flopmeter_gpu_workload_info"
        assert not named.labels & {"job", "instance"}, "Prometheus gives these itself, and renames ours"


def test_the_cardinality_budget_holds_in_a_scrape(agent: AgentView) -> None:
    page = PAGE.read_text()
    assert f"| a GPU or MIG instance, all well (class A1) | {USUAL_SERIES_PER_GPU} |" in page
    assert f"| the same, whatever happened to it | at most {MAX_SERIES_PER_GPU} |" in page
    assert f"| a run with R regimes that bind | at most {PER_RUN} + {PER_REGIME} R |" in page
    per_gpu: dict[str, int] = {}
    of_node = 0
    for family in text_string_to_metric_families(text_of(agent).decode()):
        for sample in family.samples:
            if "hw_id" in sample.labels:
                per_gpu[sample.labels["hw_id"]] = per_gpu.get(sample.labels["hw_id"], 0) + 1
            else:
                of_node += 1
    ill, well = sorted(per_gpu.values(), reverse=True)
    assert well == USUAL_SERIES_PER_GPU
    assert USUAL_SERIES_PER_GPU < ill <= MAX_SERIES_PER_GPU
    assert of_node <= int(re.findall(r"\| a node \| at most (\d+) ", page)[0])


@pytest.mark.parametrize("regimes", [0, 7])
def test_the_budget_of_runs_holds_however_many_there_are(regimes: int) -> None:
    page = PAGE.read_text()
    assert f"{MAX_RUNS} runs have series of their own" in page
    found = [s for f in books(regimes, 3 * MAX_RUNS).families() for s in f.samples]
    by_run: dict[str, int] = {}
    for s in found:
        if "run" in s.labels:
            by_run[s.labels["run"]] = by_run.get(s.labels["run"], 0) + 1
    assert len(by_run) == MAX_RUNS
    assert max(by_run.values()) <= PER_RUN + PER_REGIME * regimes
    assert len(found) <= MAX_RUNS * (PER_RUN + PER_REGIME * regimes) + 40 + 2 * regimes


def test_of_the_collector_itself_the_page_lacks_nothing() -> None:
    """A scrape of a whole collector is in tests/collector/test_metrics_page.py; here is what needs no office."""
    from flopmeter.collector.metrics import Counters

    counters = Counters()
    counters.refusals["bad-signature"] = counters.pushbacks["busy"] = counters.events["agent.silent"] = 1
    got = exposed(CollectorMetrics(counters, lambda: 3, lambda: True).collect())
    assert got.items() <= documented().items()
