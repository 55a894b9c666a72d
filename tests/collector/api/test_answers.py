"""Every answer: its shape, and that its figures are those of the CLI, from the same books at the same moment."""

import json
import re
from pathlib import Path

import pytest
from api_books import api_store, asked, unpacked_names
from processes import wait_for

from flopmeter.collector.api import openapi
from flopmeter.collector.api.answering import FUNCTIONS
from flopmeter.collector.api.routes import AT_LEAST, ROUTES
from flopmeter.collector.api.schemas import SCHEMAS
from flopmeter.collector.figures import Tally
from flopmeter.collector.forecast.live import last_kept
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.report.queries import asked as question_of
from flopmeter.collector.report.queries import reading
from flopmeter.collector.spelling import figure_json
from flopmeter.collector.web.may import TABLE
from flopmeter.contract.w_table import current

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.fixture(scope="module")
def books(tmp_path_factory):
    path = tmp_path_factory.mktemp("api") / "books.sqlite"
    api_store(path)
    return asked(path)


@pytest.fixture(scope="module")
def cli(books):
    """What the CLI prints at the same moment: documents of runs, lines of runs, the fleet."""
    question = question_of(books.clock.now)
    with reading(books.path) as reader:
        runs = {d["run"]: d | {"forecast": last_kept(reader, d["run"])} for d in reader.runs(question)}
        return {
            "runs": runs,
            "briefs": reader.briefs(question),
            "fleet": reader.fleet(question),
            "report": run_report(reader, "mine", question),
            "hourly": {name: reader.hourly(name) for name in runs},
            "models": reader.models(),
        }


def test_a_run_is_what_runs_show_prints(books, cli):
    assert len(cli["runs"]) > 6
    for name, expected in cli["runs"].items():
        found = books.get("runs", name)
        del found["as_of"], found["open_events"]
        assert found == json.loads(json.dumps(expected)), name


def test_lines_are_what_runs_list_and_runs_show_print_in_the_same_order(books, cli):
    found = books.get("runs")
    assert [i["run"] for i in found["items"]] == [b["run"] for b in cli["briefs"]]
    assert found["total"] == len(cli["briefs"])
    for line, brief in zip(found["items"], cli["briefs"], strict=True):
        whole = cli["runs"][line["run"]]
        assert line["executed"] == brief["executed"]["flop"] == whole["executed"]["flop"]
        assert line["status"] == brief["status"]
        assert line["coverage"] == brief["coverage"]
        assert line["first_seen"], line["last_seen"] == (whole["first_seen"], brief["last_seen"])
        near = brief["thresholds"][0]
        assert line["nearest"] == {k: near[k] for k in line["nearest"]}
        assert line["countable"] == {
            r["regime"]: whole["countable"][r["regime"]]["flop"] for r in found["lines"]
        }
        assert line["countable"].keys() == {t["regime"] for t in whole["thresholds"] if t["in_force"]}
        for name, share in line["classes"].items():
            assert share == pytest.approx(whole["by_evidence_class"][name]["device_time_share"], abs=2e-6)
        assert line["fault"] is None


def test_the_fleet_is_what_fleet_list_prints(books, cli):
    found, expected = books.get("fleet"), json.loads(json.dumps(cli["fleet"]))
    rows = found.pop("rows")
    nodes = expected.pop("nodes")
    del found["as_of"]
    assert found.pop("not_reporting_total") == len(expected["not_reporting"])
    assert found == expected
    assert unpacked_names(rows["names"]) == [n["node"] for n in nodes]
    letters = {"L": "live", "S": "silent", "P": "stopped", "N": "never"}
    assert [letters[c] for c in rows["status"]] == [n["status"] for n in nodes]
    for column, key in (("cluster", "cluster"), ("version", "agent_version")):
        of = rows[column]["of"] or [0] * len(nodes)
        assert [rows[column]["values"][i] for i in of] == [n[key] for n in nodes]
    gpus = [rows["gpus"]["values"][i] for i in rows["gpus"]["of"]]
    assert [len(g) for g in gpus] == [n["gpus"] + len(n["uncovered"]) for n in nodes]
    overview = books.get("overview")
    assert sum(overview["gpus"]["by_code"].values()) == sum(map(len, gpus))
    assert overview["nodes"]["total"] == len(nodes)


def test_a_node_is_what_fleet_list_prints_with_its_gpus(books, cli):
    names = {n["node"] for n in cli["fleet"]["nodes"]}
    for name in names:
        expected = [n for n in cli["fleet"]["nodes"] if n["node"] == name]  # one an agent that it has had
        found = books.get("fleet", "nodes", name)["items"]
        for node, item in zip(expected, found, strict=True):
            devices = item.pop("devices")
            assert item == json.loads(json.dumps(node))
            assert len(devices) == (node["entities"] if node["last_seq"] else 0)
            seconds = sum(d["device_seconds"] for d in devices)
            assert seconds == pytest.approx(node["last_window"]["device_seconds"])
    assert books.ask("fleet", "nodes", "no-such-node").status == 404


def test_who_holds_a_gpu_is_said_by_run(books):
    (found,) = books.get("fleet", "nodes", "gpu-node-41")["items"]
    held = [h["run"] for d in found["devices"] for h in d["holders"]]
    assert held == ["mine", "second", "rivals-secret", "mine"]


@pytest.mark.parametrize("unit", ["floating-point", "integer-or-floating-point"])
def test_every_point_of_a_curve_is_the_price_of_all_hours_before_it(books, cli, unit):
    for name, hourly in cli["hourly"].items():
        found = books.get("runs", name, "curve", points="600", unit=unit)
        hours = sorted({slot.hour for slot, *_ in hourly})
        assert len(found["times"]) == len(hours)
        for i, hour in enumerate(hours):
            tally = Tally()
            for slot, dtype, key, sums in hourly:
                if slot.hour <= hour:
                    tally.add(key, dtype, sums)
            flop, ops = tally.figures(cli["models"], current())
            expected = figure_json(flop if unit == "floating-point" else flop + ops)
            assert {k: v[i] for k, v in found["cumulative"].items()} == expected, (name, i)


def test_a_curve_ends_at_the_total_of_the_records(books, cli):
    for name, whole in cli["runs"].items():
        found = books.get("runs", name, "curve", points="2")
        assert len(found["times"]) == min(2, len(books.get("runs", name, "curve")["times"]))
        last = {k: int(v[-1]) for k, v in found["cumulative"].items()}
        silent = int(found["silent"]["flop"]["upper"]) if found["silent"] else 0
        assert last["point"] == int(whole["executed"]["flop"]["point"])
        assert last["upper"] + silent == int(whole["executed"]["flop"]["upper"])


def test_a_stretch_of_a_curve_is_that_part_of_it_and_no_other(books, cli):
    whole = books.get("runs", "mine", "curve", points="600")
    begin, end = whole["times"][2], whole["times"][4]
    part = books.get("runs", "mine", "curve", **{"from": begin, "to": end})
    assert part["times"] == [t for t in whole["times"] if begin < t <= end]
    assert part["cumulative"]["point"] == whole["cumulative"]["point"][3:5]
    assert books.ask("runs", "mine", "curve", **{"from": end, "to": begin}).status == 400
    far = books.get("runs", "mine", "curve", **{"from": "2199-01-01"})
    assert far["times"] == []


def test_gaps_bridges_and_empty_hours_are_told_apart(books, cli):
    kinds = {}
    for name, whole in cli["runs"].items():
        for g in books.get("runs", name, "curve")["gaps"]:
            kinds.setdefault(g["kind"], []).append(g)
            assert g["from"] < g["to"]
        seconds = sum(g["device_seconds"] for g in books.get("runs", name, "curve")["gaps"])
        in_records = whole["coverage"]["gap_device_seconds"] - whole["unreported"]["device_seconds"]
        assert seconds == pytest.approx(in_records), name
    assert kinds.keys() == {"gap", "nothing", "bridge"}
    assert all(sum(g["reasons"].values()) == g["device_seconds"] for g in kinds["gap"])


def test_spans_jobs_and_lines_stand_beside_a_curve(books, cli):
    found = books.get("runs", "mine", "curve")
    (span,) = found["purposes"]
    assert (span["purpose"], span["job"], span["entry"] > 0) == ("evaluation", None, True)
    assert [j["job"] for j in found["jobs"]] == ["77"]
    assert found["jobs_total"] == 1
    thresholds = {t["regime"]: t for t in cli["runs"]["mine"]["thresholds"]}
    for line in found["lines"]:
        mine = thresholds[line["regime"]]
        assert line["counted"] == cli["runs"]["mine"]["countable"][line["regime"]]["flop"]
        assert (line["verdict"], line["verdict_of_records"]) == (mine["verdict"], mine["verdict_of_records"])


def test_the_rate_is_the_last_whole_hours(books, cli):
    (line,) = books.get("runs", q="mine")["items"]
    hour = (int(cli["runs"]["mine"]["last_seen"][11:13]) - 1) % 24
    assert line["status"] == "running"
    assert line["rate"]["hour"][11:13] == f"{hour:02d}"
    tally = Tally()
    wanted = [slot.hour for slot, *_ in cli["hourly"]["mine"]][-1] - 1
    for slot, dtype, key, sums in cli["hourly"]["mine"]:
        if slot.hour == wanted:
            tally.add(key, dtype, sums)
    flop = tally.figures(cli["models"], current())[0]
    assert int(line["rate"]["flop_per_second"]["point"]) == flop.point // 3600


def test_a_spark_has_a_month_and_adds_up_to_what_was_done_in_it(books):
    for line in books.get("runs")["items"]:
        assert len(line["spark"]["flop"]) == 30
        assert sum(line["spark"]["flop"]) == pytest.approx(int(line["executed"]["point"]), rel=0.01)


def test_a_report_and_the_lineage(books, cli):
    found = books.get("runs", "mine", "report")
    assert found.pop("as_of") == found["time"]
    assert found == json.loads(json.dumps(cli["report"]))
    graph = books.get("runs", "mine", "lineage")
    assert {n["name"]: (n["kind"], n["distance"]) for n in graph["nodes"]} == {
        "mine": ("run", 0),
        "rivals-secret": ("run", -1),
        "llama": ("external", -1),
        "ancient": ("external", -2),
        "second": ("run", 1),
    }
    assert {(e["from"], e["to"], e["relation"]) for e in graph["edges"]} == {
        ("mine", "rivals-secret", "fine-tunes"),
        ("mine", "llama", "continues"),
        ("second", "mine", "continues"),
        ("rivals-secret", "ancient", "continues"),
    }
    flops = {n["name"]: n["flop"] for n in graph["nodes"]}
    assert flops["llama"]["point"] == str(2 * 10**20)


def test_the_rest_has_its_shape(books):
    for path in (
        ("state",),
        ("evidence",),
        ("fleet", "inventory"),
        ("regimes",),
        ("runs", "mine", "entries"),
    ):
        assert books.ask(*path).status == 200, path
    assert [e["statement"]["run"] for e in books.get("runs", "mine", "entries")["items"]].count("mine") == 4
    assert books.ask("log", "checkpoint").status == 404  # a desk signs none
    wait_for(
        "the sums by tenant", lambda: books.ask("fleet", "tenants").status != 503
    )  # by a command of its own
    tenants = books.get("fleet", "tenants")
    assert {t["tenant"] for t in tenants["tenants"]} >= {"slurm-account:c1/lab", "slurm-account:c1/rival"}


def test_the_state_is_the_last_of_each(books):
    with reading(books.path) as reader:
        said = {
            name: reader.rows(f"SELECT max({column}) FROM {table}").fetchone()[0] or 0
            for name, column, table in (
                ("position", "position", "records"),
                ("event", "event_no", "events"),
                ("answer", "answer_no", "answers"),
                ("entry", "entry_no", "entries"),
            )
        }
    found = books.get("state")
    assert found | {"position": int(found["position"])} == found | said
    assert said["position"] > 10
    assert said["entry"] > 10


def test_etags_are_of_the_body(books):
    first, again = books.ask("runs"), books.ask("runs")
    assert first.etag == again.etag != ""
    assert books.ask("runs", sort="run").etag != first.etag
    assert books.ask("nope").etag == ""


# ---- one table -------------------------------------------------------------------------------------------


def test_dispatch_roles_page_and_openapi_are_the_same_table():
    assert FUNCTIONS.keys() == {r.name for r in ROUTES}
    rows = {(r.method, "/".join(r.pattern)): (r.roles, r.tenants) for r in TABLE}
    document = openapi.document()
    told = {}
    for line in PAGE.read_text().splitlines():
        cells = [c.strip() for c in line.strip("|").split("|")]
        if len(cells) == 3 and (found := re.fullmatch(r"`(GET|POST) /(\S+)`", cells[0])):
            told[found[1], found[2]] = cells[1], re.findall(r"`(\w+)`", cells[2])
    assert told.keys() == {(r.method, r.path) for r in ROUTES}
    for r in ROUTES:
        role, names = told[r.method, r.path]
        assert names == [p.name for p in r.parameters], r.path
        operation = document["paths"][f"/{r.path}"][r.method.lower()]
        said = [p["name"] for p in operation["parameters"] if p["in"] == "query"]
        assert said == names
        if r.public:
            assert (role, operation["security"]) == ("nobody is asked", [])
            continue
        assert role == r.role
        pattern = re.sub(r"{\w+}", "*", r.path)
        assert rows[r.method, pattern] == (AT_LEAST[r.role], r.tenants), r.path


def test_every_schema_is_used_and_every_one_that_is_named_is_there():
    document = openapi.document()
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named == SCHEMAS.keys()


def test_the_page_has_a_chapter_for_each():
    page = PAGE.read_text()
    for r in ROUTES:
        if not r.public:
            assert f"\n## {r.method} /{r.path}\n" in page, r.path
