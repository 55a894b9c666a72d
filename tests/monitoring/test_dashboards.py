"""deploy/grafana: dashboards that can be imported, and whose every query finds something in a live Prometheus."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from metrics_said import documented as said
from monitoring.live import Live, running
from monitoring.test_rules import NO_PROMETHEUS, documented, metrics_named

FOLDER = Path(__file__).parents[2] / "deploy/grafana"
FILES = sorted(FOLDER.glob("*.json"))
#: Queries that find nothing beside this rig's agent, and why; what is listed must be so.
WITHOUT = {
    ("Gaps by reason", "A"): "nothing is a gap here",
    ("GPUs with gaps or that cannot be read", "A"): "all are read, and nothing is a gap",
    (
        "Verdicts and forecasts",
        "D",
    ): "no forecast here has a latest day: it may go on for ever without the line",
    ("Refused, pushed back, failed", "A"): "nothing was refused: a code has a series once it was used",
    ("Refused, pushed back, failed", "B"): "nobody was pushed back",
    ("Events raised", "A"): "no event since the collector started",
    ("Since the last cosignature", "A"): "no witness is named here",
    ("Witnesses", "A"): "no witness is named here",
    ("Witnesses", "B"): "no witness is named here",
    ("Leaves of the log", "C"): "no witness is named here",
}
#: Legends that are labels, and those of their values that a panel speaks of.
NAMED = {"{{bound}}": ("lower", "point", "upper"), "{{evidence_class}}": ("gap",)}
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def board(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text())
    assert isinstance(found, dict)
    return found


def panels(file: Path) -> Iterator[dict[str, Any]]:
    yield from (p for p in board(file)["panels"] if p["type"] != "row")


QUERIES = [
    pytest.param(
        (panel["title"], target["refId"]),
        target["expr"],
        id=f"{file.stem}: {panel['title']} {target['refId']}",
    )
    for file in FILES
    for panel in panels(file)
    for target in panel["targets"]
]


def test_what_is_listed_as_without_data_is_there() -> None:
    assert WITHOUT.keys() <= {p.values[0] for p in QUERIES}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("live")) as found:
        yield found


@pytest.mark.skipif(shutil.which("prometheus") is None, reason=NO_PROMETHEUS)
@pytest.mark.timeout(150)
class TestLive:
    @pytest.mark.parametrize(("name", "expr"), QUERIES)
    def test_a_query_finds_something(self, live: Live, name: tuple[str, str], expr: str) -> None:
        node = (
            live.collector
            if "collector" in expr or "log_checkpoint" in expr or "process_" in expr
            else live.agent
        )
        for variable, value in (("instance", node), ("hw_id", ".*"), ("run", ".*")):
            expr = expr.replace(f"${variable}", value)
        assert not re.search(r"\$[a-z{]", expr)
        found = live.ask(expr)
        assert (not found) == (name in WITHOUT), f"{expr}: {found}; {WITHOUT.get(name)}"
        for series in found:
            assert series["value"][1] not in ("NaN", "+Inf", "-Inf"), series

    def test_every_rule_is_evaluated(self, live: Live) -> None:
        rules = live.rules()
        assert len(rules) > 50
        assert [r for r in rules if r["health"] != "ok"] == []
        assert not [r for r in rules if r.get("lastError")]

    def test_the_figures_are_the_programs(self, live: Live) -> None:
        """Recorded series are of the size that the agent's own numbers have."""
        lower, point, upper = (
            float(live.ask(f'bound:flopmeter_gpu_flop:rate5m{{bound="{bound}"}}')[0]["value"][1])
            for bound in ("lower", "point", "upper")
        )
        assert 0 < lower < point < upper
        gpus = float(live.ask("count(flopmeter_gpu_read_ok)")[0]["value"][1])
        assert point < gpus * 1e15, "more than an H100 can do"
        runs = {s["metric"]["run"] for s in live.ask("run_bound:flopmeter_gpu_flop:rate5m")}
        assert runs == {"sim-pretrain"} | {run for run in runs if run.startswith(("sim", "slurm"))}
        for share in live.ask("instance_hw_id:flopmeter_gpu_sm_active:ratio_rate5m"):
            assert 0 <= float(share["value"][1]) <= 1
        (gap,) = {s["value"][1] for s in live.ask("instance_hw_id:flopmeter_gpu_gap:ratio_rate15m")}
        assert gap == "0"

    def test_an_alert_that_should_fire_does(self, live: Live) -> None:
        """The demo's agents are gone, and one of its nodes was silent before: it waits for its ten minutes."""
        waiting = {s["metric"]["alertname"] for s in live.ask("ALERTS")}
        assert "FlopmeterNodesSilent" in waiting
        assert not waiting & {
            "FlopmeterAgentDown",
            "FlopmeterCollectorDown",
            "FlopmeterLogForked",
            "FlopmeterGpuUnread",
        }


def columns(panel: dict[str, Any]) -> set[str]:
    """Fields of what the queries answer, as Grafana names them: labels and values of a table, legends else."""
    if panel["type"] != "table":
        legends = {t["legendFormat"] for t in panel["targets"]}
        return legends | {value for legend in legends for value in NAMED.get(legend, ())}
    many = len(panel["targets"]) > 1
    found = {"Time"} | {f"Value #{t['refId']}" if many else "Value" for t in panel["targets"]}
    for target in panel["targets"]:
        by = re.findall(r"\bby \(([\w, ]+)\)", target["expr"])
        found |= {name.strip() for names in by for name in names.split(",")}
        if not by:
            found |= {"instance", "hw_id"} | {
                label for m in metrics_named(target["expr"]) for label in said()[m].labels
            }
    return found


def variables(file: Path) -> set[str]:
    return {v["name"] for v in board(file)["templating"]["list"]}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
class TestAsWritten:
    def test_it_can_be_imported_again_and_again(self, file: Path) -> None:
        d = board(file)
        assert d["uid"] == file.stem
        assert d["schemaVersion"] >= 39  # Grafana 11
        assert "id" not in d
        assert "flopmeter" in d["tags"]
        assert "datasource" in variables(file)
        ids = [p["id"] for p in d["panels"]]
        assert len(set(ids)) == len(ids)

    def test_it_names_no_datasource_of_ours(self, file: Path) -> None:
        found = re.findall(r'"uid": "([^"]+)"', file.read_text())
        assert set(found) == {"${datasource}", "-- Grafana --", file.stem}

    def test_panels_do_not_lie_on_each_other(self, file: Path) -> None:
        taken: dict[tuple[int, int], str] = {}
        for panel in board(file)["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            for cell in (
                (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
            ):
                assert cell not in taken, f"{panel['title']} on {taken[cell]}"
                taken[cell] = panel["title"]
        rows = {y for _, y in taken}
        assert rows == set(range(max(rows) + 1)), "a gap in the page"

    def test_every_metric_is_documented(self, file: Path) -> None:
        for panel in panels(file):
            for target in panel["targets"]:
                assert metrics_named(target["expr"]) <= documented(), target["expr"]
                others = set(re.findall(r"\bprocess_\w+", target["expr"]))
                assert others <= PROCESS

        for variable in board(file)["templating"]["list"]:
            if variable["type"] == "query":
                assert metrics_named(variable["definition"])
                assert metrics_named(variable["definition"]) <= documented()
                assert variable["query"]["query"] == variable["definition"]

    def test_every_panel_says_what_it_shows_in_which_unit(self, file: Path) -> None:
        for panel in panels(file):
            assert panel["description"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]

    def test_a_column_that_is_named_is_there(self, file: Path) -> None:
        """Grafana says nothing of a column that no query has: it stays as it was, without its name or unit."""
        for panel in panels(file):
            names = columns(panel)
            for step in panel.get("transformations", []):
                if step["id"] == "organize":
                    options = step["options"]
                    assert options.keys() == {"excludeByName", "indexByName", "renameByName"}
                    assert {*options["renameByName"], *options["indexByName"]} <= names, panel["title"]
                    names |= set(options["renameByName"].values())
            for override in panel["fieldConfig"]["overrides"]:
                assert override["matcher"]["id"] == "byName"
                assert override["matcher"]["options"] in names, panel["title"]

    def test_variables_and_links_exist(self, file: Path) -> None:
        text = "".join(t["expr"] for p in panels(file) for t in p["targets"])
        others = "".join(v["definition"] for v in board(file)["templating"]["list"] if v["type"] == "query")
        used = set(re.findall(r"\$([a-z]\w*)", text + others))
        assert used == variables(file) - {"datasource"}  # that one is used, as no other data source is named
        for uid in re.findall(r'"url": "/d/([\w-]+)', file.read_text()):
            other = FOLDER / f"{uid}.json"
            assert other.exists(), uid
        for uid, name in re.findall(r"/d/([\w-]+)\?var-(\w+)", file.read_text()):
            assert name in variables(FOLDER / f"{uid}.json")
