"""Published results played as a fleet of overlapping runs: every run's total is its row's, the fleet's is their sum."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from mlperf_fleet import BOOTED_NS, FILES, IDLE_MS, Fleet, rows

from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.report.queries import document

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path, _ in FILES.values()), reason="../shared/data is not beside this checkout"
)


class Played:
    """The rows, the fleet that ran them, and what the books then say."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = rows()
        with Desk(path, shipped()) as desk:
            self.fleet = Fleet(desk)
            self.fleet.play(self.rows)
            self.end_unix_ns = desk.now
        self.books = document(path, self.end_unix_ns)
        self.runs: dict[str, dict[str, Any]] = {r["run"]: r for r in self.books["runs"]}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    return Played(tmp_path_factory.mktemp("mlperf") / "books.sqlite")


def test_the_rows_are_those_of_nvidia_gpus(played: Played) -> None:
    of = {name: [r for r in played.rows if name in r.cluster] for name in FILES}
    assert {name: len(found) for name, found in of.items()} == {"llama31_405b": 24, "llama31_8b": 330}
    assert {name: sum(r.gpus for r in found) for name, found in of.items()} == {
        "llama31_405b": 32_832,
        "llama31_8b": 23_120,
    }
    assert len({r.run for r in played.rows}) == 354
    first = played.rows[0]
    assert first.flop_asked == 6 * 405_853_388_800 * 326_400 * 8_192
    assert 0 <= first.flop_asked - first.flop < first.rate


def test_every_runs_total_is_its_rows_to_the_integer(played: Played) -> None:
    wanted = {r.run: (r.flop, r.cycles, r.device_ns) for r in played.rows}
    found = {
        name: (
            int(r["executed"]["flop"]["point"]),
            int(r["by_pipe"]["hmma"]["sm_cycles"]),
            round(r["coverage"]["observed_device_seconds"] * 10**9),
        )
        for name, r in played.runs.items()
    }
    assert found == wanted
    for r in played.runs.values():
        flop = {k: int(v) for k, v in r["executed"]["flop"].items()}
        assert 0 < flop["lower"] < flop["point"] < flop["upper"]
        assert r["coverage"]["gap_device_seconds"] == 0
        assert (r["rule"], r["declared_dtypes"]) == ("label", ["fp8"])


def test_the_fleets_total_is_the_sum_and_no_cycle_is_anybody_elses(played: Played) -> None:
    with sqlite3.connect(played.path) as db:
        totals = db.execute(
            "SELECT run, duration_ns, hmma_cycles FROM totals JOIN workloads USING (workload_no)"
        )
        by_run: dict[str, list[int]] = {}
        for run, duration, hmma in totals:
            sums = by_run.setdefault(run, [0, 0])
            sums[0] += int(duration)
            sums[1] += int(hmma)
        hourly = sum(int(cycles) for (cycles,) in db.execute("SELECT hmma_cycles FROM hourly"))
    db.close()
    idle_ns, idle_cycles = by_run.pop("")
    assert idle_cycles == 0
    assert sum(cycles for _, cycles in by_run.values()) == sum(r.cycles for r in played.rows) == hourly
    trained_ns = sum(r.device_ns for r in played.rows)
    assert sum(ns for ns, _ in by_run.values()) == trained_ns
    # All of every GPU's time from its first reading to its last is a run's or idle.
    end_ms = max(r.stop_ms for r in played.rows) + IDLE_MS
    whole_ns = sum(((end_ms - n.booted_ms) * 10**6 - BOOTED_NS) * len(n.entities) for n in played.fleet.nodes)
    assert trained_ns + idle_ns == whole_ns
    fleet = played.books["fleet"]
    assert fleet["unattributed_device_seconds"] == 0
    assert round(fleet["device_seconds"] * 1000) == whole_ns // 10**6


def test_runs_were_booked_while_others_went_on(played: Played) -> None:
    assert played.fleet.most_at_once >= 10
    moments = sorted([(r.start_ms, 1) for r in played.rows] + [(r.stop_ms, -1) for r in played.rows])
    at_once = most = 0
    for _, change in moments:
        at_once += change
        most = max(most, at_once)
    assert most >= 20


def test_none_of_them_is_near_a_line_and_the_books_hold_up(played: Played) -> None:
    assert not [e for e in played.books["events"] if e["type"].startswith("threshold")]
    assert max(r.flop for r in played.rows) < 10**22
    result = check_store(played.path, shipped())
    assert result.difference is None
