"""A small simulated cluster on the real path: the books hold what the script says, to the cycle."""

from pathlib import Path
from typing import Any

import pytest

from flopmeter.collector.report.queries import document
from flopmeter.play import scenario, snapshot
from flopmeter.play.cluster import Cluster
from flopmeter.play.scenario import FINETUNE, HOUR_NS, PRETRAIN, Scenario
from flopmeter.play.view import draw

END = 1_795_000_123_456_789_000  # November 2026, not on a full hour


@pytest.fixture(scope="module")
def script() -> Scenario:
    return scenario.default(days=3, nodes=5)


@pytest.fixture(scope="module")
def books(script: Scenario, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("demo")
    with Cluster(script, directory, END) as cluster:
        seen: list[int] = []
        cluster.history(seen.append)
        assert seen[-1] == cluster.readings == script.readings
        assert seen == sorted(set(seen))
        return cluster.store, document(cluster.store, END)


def of(books: tuple[Path, dict[str, Any]], run: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in books[1]["runs"] if r["run"] == run)
    return found


@pytest.mark.parametrize("run", [PRETRAIN, FINETUNE])
def test_a_runs_cycles_are_the_scripted_ones(
    script: Scenario, books: tuple[Path, dict[str, Any]], run: str
) -> None:
    """Across job restarts, agent restarts, a reboot and a dead agent."""
    assert int(of(books, run)["by_pipe"]["hmma"]["sm_cycles"]) == script.hmma_cycles(run) > 0


def test_every_device_second_is_somewhere(script: Scenario, books: tuple[Path, dict[str, Any]]) -> None:
    """Workloads + idle + unattributed + gap = the device, from each agent's first reading to its last."""
    _, doc = books
    expected = sum(script.last_hour(node) * 3600 * script.gpus_per_node for node in script.nodes)
    of_runs = sum(
        r["coverage"]["observed_device_seconds"]
        + r["coverage"]["gap_device_seconds"]
        - r["coverage"]["gaps"].get("unreported", 0)
        for r in doc["runs"]
    )
    fleet = doc["fleet"]
    whole = of_runs + fleet["idle_device_seconds"] + fleet["unattributed_device_seconds"]
    assert whole == fleet["device_seconds"] == expected


def test_the_reboot_is_a_gap_and_the_agents_restart_is_not(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    gaps = of(books, PRETRAIN)["coverage"]["gaps"]
    reboots = sum(len(n.reboots) for n in script.nodes)
    assert sum(len(n.agent_restarts) for n in script.nodes) == 2
    assert gaps.keys() == {"reset", "unreported"}
    assert gaps["reset"] == pytest.approx(reboots * 3600 * script.gpus_per_node, abs=script.gpus_per_node)


def test_the_dead_agent_is_silent_and_its_time_is_missed(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    dead = next(n for n in script.nodes if n.dies >= 0)
    status = {n["node"]: n["status"] for n in books[1]["fleet"]["nodes"]}
    assert status.pop(dead.name) == "silent"
    assert set(status.values()) == {"live"}
    (event,) = [e for e in books[1]["events"] if e["type"] == "agent.silent"]
    assert event["data"]["node"] == dead.name
    silences = {n["node"]: (n["silences"], n["silence_open"]) for n in books[1]["fleet"]["nodes"]}
    assert silences.pop(dead.name) == (1, True)
    assert set(silences.values()) == {(0, False)}
    missing = of(books, PRETRAIN)["coverage"]["gaps"]["unreported"]
    assert missing == (script.hours - dead.dies) * 3600 * script.gpus_per_node


def test_work_without_a_label_is_its_own_run_and_nobodys_is_nobodys(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    unlabelled = script.nodes[-1]
    run = of(books, "slurm:demo/88121")
    assert run["rule"] == "slurm-id"
    hours = {s.workload.kind: s.end - s.start for s in unlabelled.spans if s.hmma_ppm}
    assert len(hours) == 2
    seconds = sorted(h * 3600 * script.gpus_per_node for h in hours.values())
    got = sorted(
        (run["coverage"]["expected_device_seconds"], books[1]["fleet"]["unattributed_device_seconds"])
    )
    assert got == seconds


def test_the_books_stand_up_to_fsck(books: tuple[Path, dict[str, Any]]) -> None:
    from processes import flopmeter

    done = flopmeter("collector", "fsck", "--store", books[0])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_picture_shows_the_story(script: Scenario, books: tuple[Path, dict[str, Any]]) -> None:
    picture = snapshot.take(books[0], END, mode="live", live=True)
    assert (picture.nodes_live, picture.nodes_silent, picture.gpus) == (4, 1, 40)
    assert [r.name for r in picture.runs] == [PRETRAIN, FINETUNE, "slurm:demo/88121"]
    assert sum(ppm for _, ppm in picture.classes) in range(999_990, 1_000_001)
    by_name = {n.name: n for n in picture.nodes}
    assert by_name["node-01"].gpus == (0,) * 8
    assert by_name["node-04"].gpus == (1,) * 8
    assert by_name["node-05"].gpus == (snapshot.UNATTRIBUTED,) * 8
    assert [n.name for n in picture.nodes if n.silent] == ["node-03"]
    # The rate is that of the last hour: two nodes at their span's share, the third is silent.
    span = script.nodes[0].spans[-1]
    per_hour = 2 * sum(script.elapsed_per_hour * script.hmma_ppm(span, g) // 1_000_000 for g in range(8))
    assert picture.runs[0].rate_flop_per_s == pytest.approx(per_hour * 4096 / 3600, rel=1e-3)
    assert picture.runs[2].rate_flop_per_s == 0
    assert len(draw(picture, 100, colour=False)) > 15


def test_the_history_ends_where_asked_and_the_boot_clock_does_not_matter(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    ends = {n["last_window_end"] for n in books[1]["fleet"]["nodes"] if n["status"] == "live"}
    assert ends == {"2026-11-18T11:08:43.456Z"}
    assert END - script.hours * HOUR_NS > 0


def test_live_goes_on_from_the_history(script: Scenario, tmp_path: Path) -> None:
    """After the history the agents restart with short windows; nothing is lost or counted twice in between."""
    with Cluster(script, tmp_path, END) as cluster:
        cluster.history(lambda _: None, chunk_hours=24)
        cluster.go_live()
        second = 1_000_000_000
        for i in range(5, 30):
            cluster.live(END + i * second)
        cluster.settle()
        doc = document(cluster.store, END + 30 * second)
        last = snapshot.take(cluster.store, END + 30 * second, mode="live", live=True)
    run = next(r for r in doc["runs"] if r["run"] == PRETRAIN)
    hmma = int(run["by_pipe"]["hmma"]["sm_cycles"])
    before = script.hmma_cycles(PRETRAIN)
    span = script.nodes[0].spans[-1]
    per_second = sum(script.elapsed_per_hour * script.hmma_ppm(span, g) // 1_000_000 for g in range(8)) / 3600
    # Windows of 5 s are closed by the reading behind them: 20 to 29 of the 29 s are in the books, of two nodes.
    assert 20 * 2 * per_second <= hmma - before <= 29 * 2 * per_second
    assert last.nodes_live == 4
    assert last.runs[0].rate_flop_per_s == pytest.approx(2 * per_second * 4096, rel=1e-6)
    assert run["coverage"]["gaps"].keys() == {"reset", "unreported"}
