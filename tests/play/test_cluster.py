"""A small simulated cluster on the real path: the books hold what the script says, to the cycle."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flopmeter.collector.report.queries import asked, document, reading
from flopmeter.evidence.note import parse_checkpoint, parse_policy
from flopmeter.play import snapshot, story
from flopmeter.play.cluster import Cluster
from flopmeter.play.demo import present
from flopmeter.play.scenario import HOUR_NS, Scenario
from flopmeter.play.story import BASE, FINETUNE, MODIFIED, NEXT, PRETRAIN, UNLABELLED
from flopmeter.play.view import draw
from flopmeter.play.witness import NAME

END = 1_795_000_123_456_789_000  # November 2026, not on a full hour
BEYOND_NS = END % HOUR_NS + 1_000_000_000  # since the last reading before a full hour


@pytest.fixture(scope="module")
def script() -> Scenario:
    return story.default(days=3, nodes=5)


@pytest.fixture(scope="module")
def books(script: Scenario, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("demo")
    with Cluster(script, directory, END) as cluster:
        seen: list[int] = []
        cluster.history(seen.append)
        assert seen[-1] == cluster.readings == script.readings
        assert seen == sorted(set(seen))
        return cluster.store, document(cluster.store, END)


def test_a_history_ends_within_an_hour_whenever_it_is_begun(script: Scenario, tmp_path: Path) -> None:
    """On a full hour there would be no last readings, and the progress of them would not come to its end."""
    second = 1_000_000_000
    hour = END // HOUR_NS * HOUR_NS
    for now, ends in (
        (hour - 1, hour - second),
        (hour, hour - second),
        (hour + second - 1, hour - second),
        (hour + second, hour + second),
        (END, END // second * second),
    ):
        assert present(now) == ends
        assert Cluster(script, tmp_path, ends).beyond_ns > 0


def of(books: tuple[Path, dict[str, Any]], run: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in books[1]["runs"] if r["run"] == run)
    return found


@pytest.mark.parametrize("run", [PRETRAIN, FINETUNE])
def test_a_runs_cycles_are_the_scripted_ones(
    script: Scenario, books: tuple[Path, dict[str, Any]], run: str
) -> None:
    """Across job restarts, agent restarts, a reboot and a dead agent."""
    assert int(of(books, run)["by_pipe"]["hmma"]["sm_cycles"]) == script.hmma_cycles(run, BEYOND_NS) > 0


def test_every_device_second_is_somewhere(script: Scenario, books: tuple[Path, dict[str, Any]]) -> None:
    """Workloads + idle + unattributed + gap = the device, from each agent's first reading to its last."""
    _, doc = books
    expected_ns = sum(
        (node.dies * HOUR_NS if node.dies >= 0 else script.hours * HOUR_NS + BEYOND_NS) * script.gpus_per_node
        for node in script.nodes
    )
    of_runs = sum(
        r["coverage"]["observed_device_seconds"]
        + r["coverage"]["gap_device_seconds"]
        - r["coverage"]["gaps"].get("unreported", 0)
        for r in doc["runs"]
    )
    fleet = doc["fleet"]
    whole = of_runs + fleet["idle_device_seconds"] + fleet["unattributed_device_seconds"]
    assert whole == pytest.approx(expected_ns / 1e9, abs=1e-3)  # floats of seconds, added up
    assert fleet["device_seconds"] == pytest.approx(expected_ns / 1e9, abs=1e-6)


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
    (away,) = [n for n in script.nodes if n.away != (-1, -1)]
    events = [e["data"]["node"] for e in books[1]["events"] if e["type"] == "agent.silent"]
    assert events == [away.name, dead.name]
    silences = {n["node"]: (n["silences"], n["silence_open"]) for n in books[1]["fleet"]["nodes"]}
    assert silences.pop(dead.name) == (1, True)
    assert silences.pop(away.name) == (1, False)  # it came back, and its counters had counted on
    assert set(silences.values()) == {(0, False)}
    missing = of(books, PRETRAIN)["coverage"]["gaps"]["unreported"]
    missed_ns = (script.hours - dead.dies) * HOUR_NS + BEYOND_NS
    assert missing == pytest.approx(missed_ns / 1e9 * script.gpus_per_node, abs=2 * script.gpus_per_node)


def test_work_without_a_label_is_its_own_run_and_nobodys_is_nobodys(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    odd = script.nodes[-1]
    run = of(books, UNLABELLED)
    assert run["rule"] == "slurm-id"
    hours = {s.workload.kind: s.end - s.start for s in odd.spans if s.hmma_ppm and not s.workload.run}
    seconds = {kind.label: h * 3600 * script.gpus_per_node for kind, h in hours.items()}
    assert seconds == {
        "slurm": run["coverage"]["expected_device_seconds"],
        "unattributed": books[1]["fleet"]["unattributed_device_seconds"],
    }


def test_an_older_driver_is_another_class_and_a_lost_gpu_is_a_gap(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    assert of(books, UNLABELLED)["by_evidence_class"].keys() == {"A2"}
    run = of(books, MODIFIED)
    assert run["by_evidence_class"].keys() == {"A2", "gap"}
    lost_ns = (script.hours - script.nodes[-1].lost[1]) * HOUR_NS + BEYOND_NS
    assert run["coverage"]["gaps"] == {"lost": pytest.approx(lost_ns / 1e9)}
    # Percentages of a steady clock come to the script's cycles, but for the rounding of a float.
    cycles = script.hmma_cycles(MODIFIED, BEYOND_NS)
    assert int(run["by_pipe"]["hmma"]["sm_cycles"]) == pytest.approx(cycles, rel=1e-9)
    (uncovered,) = [m for m in books[1]["fleet"]["not_reporting"] if m["cause"] == "uncovered"]
    assert "AMD" in str(uncovered)


def test_every_part_of_a_runs_page_has_something_to_show(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    run = of(books, PRETRAIN)
    assert {(j["job"], j["restarts"]) for j in run["jobs"]} == {
        ("88001", 1),
        ("88202", 0),
        ("88213", 0),
        ("88377", 0),
    }
    assert len(run["by_model"]) == 2
    purposes = {p["purpose"] for p in run["purposes"] if int(p["flop"]["point"])}
    assert purposes == {"pretraining", "rolled-back", "evaluation", "finetuning"}
    (evaluated,) = [p for p in run["purposes"] if p["purpose"] == "evaluation"]
    (span,) = {s for n in script.nodes for s in n.spans if s.workload.job == "88202"}
    nodes = sum(span in n.spans for n in script.nodes)
    cycles = (span.end - span.start) * script.elapsed_per_hour * span.hmma_ppm // 1_000_000 * 8 * nodes
    assert int(evaluated["flop"]["point"]) == cycles * 4096
    said = run["progress"]
    assert said["restarts_at_a_checkpoint"] == 1
    assert said["hfu"]["lower"] < said["mfu"] < said["hfu"]["point"]
    stands_on = {tuple(link["path"]) for link in of(books, MODIFIED)["lineage"]}
    assert stands_on >= {(f"fine-tunes {BASE}",), (f"distils {FINETUNE}", f"fine-tunes {PRETRAIN}")}


def test_people_have_planned_tagged_linked_and_answered(books: tuple[Path, dict[str, Any]]) -> None:
    """By the product's own entries and answers, dated within the history."""
    from processes import flopmeter

    def told(*words: str) -> Any:
        done = flopmeter(*words, "--store", books[0], "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    entries = told("runs", "entries")["entries"]
    assert len(entries) == 10
    times = [datetime.fromisoformat(e["time"]).timestamp() for e in entries]
    assert END / 1e9 - 3 * 86_400 - 3_600 <= times[0] <= times[-1] <= END / 1e9
    due = told("deadlines", "list")["deadlines"]
    assert [(d["run"], d["regime"], d["state"]) for d in due] == [(NEXT, "eu-systemic-risk", "acknowledged")]
    states = {(e["type"], e["state"]) for e in told("events", "list")["events"]}
    assert ("usage.unattributed", "resolved") in states
    assert ("agent.silent", "acknowledged") in states


def test_an_hour_of_the_books_holds_an_hour_of_work(
    script: Scenario, books: tuple[Path, dict[str, Any]]
) -> None:
    """Windows end with the hours of UTC, and the hour that is not over holds what was done in it."""
    with reading(books[0]) as reader:
        hourly = {d["run"]: d["hourly"] for d in reader.runs(asked(END), series=True)}
    slots = [s for s in hourly[FINETUNE] if int(s["flop"]["point"])]
    assert {s["hours"] for s in slots} == {1}
    span = script.nodes[-2].spans[-1]
    per_hour = sum(script.elapsed_per_hour * script.hmma_ppm(span, g) // 1_000_000 for g in range(8)) * 4096
    assert int(slots[-2]["flop"]["point"]) == pytest.approx(per_hour, rel=1e-3)
    assert int(slots[-1]["flop"]["point"]) == pytest.approx(per_hour * (BEYOND_NS / HOUR_NS), rel=1e-3)
    bridged = {s["hours"] for s in hourly[PRETRAIN]} - {1}
    assert bridged == {14}  # of the agent that was away: its counters had counted on


def test_the_books_stand_up_to_fsck(books: tuple[Path, dict[str, Any]]) -> None:
    from processes import flopmeter

    done = flopmeter("collector", "fsck", "--store", books[0])
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_witness_has_cosigned_the_last_head(books: tuple[Path, dict[str, Any]]) -> None:
    """As `flopmeter verify --policy` would count it: by the policy that the collector was given."""
    policy = parse_policy((books[0].parent / "witness" / "policy").read_bytes())
    with reading(books[0]) as reader:
        number, note = reader.rows(
            "SELECT checkpoint_no, note FROM checkpoints ORDER BY checkpoint_no DESC"
        ).fetchone()
        lines = reader.rows("SELECT line FROM cosignatures WHERE checkpoint_no = ?", (number,)).fetchall()
    said = str(note) + "".join(f"{line}\n" for (line,) in lines)
    (key,) = policy.check(
        parse_checkpoint(said.encode())
    )  # it raises without the log's signature, or a quorum
    assert key.name == NAME


def test_the_picture_shows_the_story(script: Scenario, books: tuple[Path, dict[str, Any]]) -> None:
    picture = snapshot.take(books[0], END, mode="live", live=True)
    assert (picture.nodes_live, picture.nodes_silent, picture.gpus) == (4, 1, 40)
    assert [r.name for r in picture.runs] == [PRETRAIN, FINETUNE, UNLABELLED, MODIFIED]
    assert sum(ppm for _, ppm in picture.classes) in range(999_990, 1_000_001)
    by_name = {n.name: n for n in picture.nodes}
    assert by_name["node-01"].gpus == (0,) * 8
    assert by_name["node-04"].gpus == (1,) * 8
    assert by_name["node-05"].gpus == (3,) * 8
    assert [n.name for n in picture.nodes if n.silent] == ["node-03"]
    # The rate is that of the last hour: two nodes at their span's share, the third is silent.
    span = script.nodes[0].spans[-1]
    per_hour = 2 * sum(script.elapsed_per_hour * script.hmma_ppm(span, g) // 1_000_000 for g in range(8))
    assert picture.runs[0].rate_flop_per_s == pytest.approx(per_hour * 4096 / 3600, rel=1e-3)
    assert picture.runs[2].rate_flop_per_s == 0
    head = draw(picture, 80, colour=False)[1]
    assert "H100, H200" in head
    assert "A1" in head


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
    before = script.hmma_cycles(PRETRAIN, BEYOND_NS)
    span = script.nodes[0].spans[-1]
    per_second = sum(script.elapsed_per_hour * script.hmma_ppm(span, g) // 1_000_000 for g in range(8)) / 3600
    # Windows of 5 s are closed by the reading behind them: 20 to 29 of the 29 s are in the books, of two nodes.
    assert 20 * 2 * per_second <= hmma - before <= 29 * 2 * per_second
    assert last.nodes_live == 4
    assert last.runs[0].rate_flop_per_s == pytest.approx(2 * per_second * 4096, rel=1e-6)
    assert run["coverage"]["gaps"].keys() == {"reset", "unreported"}
