"""deploy/prometheus: rules that Prometheus takes, alerts that fire when they should and only then, words that help."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring.alert_cases import CASES, MORE, Series, refusals

from flopmeter.collector.deliver.alertmanager import alert_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"
RECORDING, ALERTS = FOLDER / "flopmeter-recording.yml", FOLDER / "flopmeter-alerts.yml"
NO_PROMETHEUS = "Prometheus is not installed"
promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason=NO_PROMETHEUS)
SEVERITIES = {"info", "warning", "critical"}


def groups(file: Path) -> list[dict[str, Any]]:
    found = yaml.safe_load(file.read_text())["groups"]
    assert isinstance(found, list)
    return found


def alerts() -> Iterator[dict[str, Any]]:
    for group in groups(ALERTS):
        yield from group["rules"]


def tool(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["promtool", *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )


@promtool
def test_prometheus_takes_the_rules() -> None:
    done = tool("check", "rules", "--lint=all", "--lint-fatal", RECORDING, ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr


def scenarios(name: str) -> Iterator[tuple[Series, int, bool]]:
    """Series, the minute, and whether it fires then."""
    case = CASES[name]
    yield case.fires, case.minute, True
    yield case.quiet, case.minute, False
    if name in MORE:
        fires, quiet, minute = MORE[name]
        yield fires, minute, True
        yield quiet, minute, False


def unit_test(series: Series, checks: list[dict[str, Any]], step: int = 1) -> dict[str, Any]:
    return {
        "interval": f"{step}m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": checks,
    }


def fires(name: str, minute: int, severity: str | None) -> dict[str, Any]:
    """That the alert fires then, with this severity; None: that it does not."""
    samples = [{"labels": f'{{alertname="{name}", severity="{severity}"}}', "value": 1}] if severity else []
    return {
        "expr": f'count by (alertname, severity) (ALERTS{{alertname="{name}",alertstate="firing"}})',
        "eval_time": f"{minute}m",
        "exp_samples": samples,
    }


def packed(tests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tests that ask different metrics, in one: promtool looks at all rules for each test anew."""
    bins: list[tuple[set[str], dict[str, Any]]] = []
    for test in tests:
        names = {re.sub(r"[{].*", "", str(series["series"])) for series in test["input_series"]}
        for taken, whole in bins:
            if not names & taken and whole["interval"] == test["interval"]:
                taken.update(names)
                whole["input_series"] += test["input_series"]
                for kind in ("promql_expr_test", "alert_rule_test"):
                    whole.setdefault(kind, []).extend(test.get(kind, []))
                break
        else:
            bins.append((names, test))
    return [whole for _, whole in bins]


def run(
    tests: list[dict[str, Any]], folder: Path, rules: tuple[Path, ...] = (RECORDING, ALERTS)
) -> "subprocess.CompletedProcess[str]":
    """All of them; those of one interval in one file, for rules are looked at once in it."""
    order = [g["name"] for file in rules for g in groups(file)]
    files = []
    for interval in sorted({test["interval"] for test in tests}):
        files.append(folder / f"rules-{interval}.test.yml")
        whole = {
            "rule_files": list(map(str, rules)),
            "group_eval_order": order,
            "evaluation_interval": interval,
            "tests": [test for test in tests if test["interval"] == interval],
        }
        files[-1].write_text(json.dumps(whole))
    return tool("test", "rules", *files)


@promtool
def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}
    assert severity.keys() == CASES.keys()
    assert MORE.keys() <= CASES.keys()
    tests = packed(
        [
            unit_test(series, [fires(name, minute, severity[name] if fire else None)], CASES[name].step)
            for name in CASES
            for series, minute, fire in scenarios(name)
        ]
    )
    assert len(tests) < len(CASES)
    done = run(tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_a_crossing_is_told_for_a_day(tmp_path: Path) -> None:
    """By its own date: a Prometheus that is new, was down, or lost its data tells no old one, and misses no new one."""
    name, hour = "FlopmeterRunCrossedLine", 60
    (series,) = CASES[name].fires
    told = [
        fires(name, n * hour, severity)
        for n, severity in ((1, None), (2, "critical"), (25, "critical"), (26, None))
    ]
    late = [
        fires(name, n * hour, severity)
        for n, severity in ((24, "critical"), (25, "critical"), (26, None), (40, None))
    ]
    done = run(
        [
            unit_test({series: "_ _ 7200x48"}, told, hour),
            unit_test({series: "_x24 7200x20"}, late, hour),
            # its data gone a week later, or the collector's address another
            unit_test(
                {series: "_x200 7200x48"}, [fires(name, n * hour, None) for n in (200, 201, 230)], hour
            ),
        ],
        tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_without_the_recording_rules_somebody_is_told(tmp_path: Path) -> None:
    name = "FlopmeterRulesMissing"
    test = unit_test(CASES[name].quiet, [fires(name, 10, None), fires(name, 40, "critical")])
    done = run([test], tmp_path, (ALERTS,))
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_a_scrape_that_failed_a_while_ago_tells_nothing_again(tmp_path: Path) -> None:
    """A failed scrape, and a restart, end every series for a while: what is there afterwards is not new."""
    checks = [fires("FlopmeterRecordsRefused", 15 + minute, None) for minute in (30, 31, 32, 33)]
    done = run([unit_test(refusals("3x30 stale _x1 3x30", "1x60", "0x60"), checks)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_an_agent_that_was_refused_before_it_was_looked_at_is_told_of(tmp_path: Path) -> None:
    """A counter that is 1 at its first scrape never increased."""
    node = '{instance="n1:9842"}'
    refused, acked = (
        "flopmeter_agent_uplink_refusals_total",
        "flopmeter_agent_uplink_last_ack_timestamp_seconds",
    )
    checks = [
        fires("FlopmeterUplinkRefused", minute, severity)
        for minute, severity in ((5, "critical"), (45, None))
    ]
    series = {refused + node: "1x60", acked + node: "0x30 1800+60x30"}
    done = run([unit_test(series, checks)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_where_all_is_well_nothing_fires(tmp_path: Path) -> None:
    """The quiet series of all alerts together, without those that are something else's fault."""
    well: Series = {}
    for case in CASES.values():
        for name, values in case.quiet.items():
            well.setdefault(name, values)
    for name in list(well):
        if re.match(
            "up{|flopmeter_collector_ready|flopmeter_gpu_read_ok|flopmeter_collector_regimes_good", name
        ):
            well[name] = "1x200"
    well["flopmeter_collector_witness_quorum" + '{instance="c:9841"}'] = "1x200"
    well["flopmeter_collector_store_free_bytes" + '{instance="c:9841"}'] = "1e12x200"
    well['flopmeter_fleet_device_seconds{instance="c:9841",kind="observed"}'] = "0+99x200"
    well = {
        name: values for name, values in well.items() if "undetermined" not in name and "crossed" not in name
    }
    check = {"expr": 'ALERTS{alertstate="firing"}', "exp_samples": []}
    # `stale` and short series end before an hour is over: that is another story than being well
    long = {name: values for name, values in well.items() if "stale" not in values}
    checks = [{**check, "eval_time": f"{minute}m"} for minute in (20, 40, 58)]
    done = run([unit_test(long, checks)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_what_an_alert_says_names_what_it_is_about(tmp_path: Path) -> None:
    """promtool prints what it got where something else was expected: so the templates are read as they come out."""
    tests = []
    for name, case in CASES.items():
        test = unit_test(case.fires, [], case.step)
        test["alert_rule_test"] = [{"alertname": name, "eval_time": f"{case.minute}m", "exp_alerts": []}]
        tests.append(test)
    done = run(packed(tests), tmp_path)
    said = done.stdout + done.stderr
    found = re.findall(r'Labels:\{(alertname="(\w+)".*?)\}\n\s*Annotations:\{(.*?)\}\n', said, re.DOTALL)
    assert {name for _, name, _ in found} == CASES.keys(), said[:2000]
    written = {rule["alert"]: " ".join(rule["annotations"].values()) for rule in alerts()}
    for labels, name, annotations in found:
        there = set(re.findall(r'(\w+)="', labels))
        assert set(re.findall(r"\$labels\.(\w+)", written[name])) <= there, (name, there)
        assert "<no value>" not in annotations, (name, annotations)
        summary = annotations.split("summary=")[-1]
        assert "<error" not in annotations, (name, annotations)
        assert not re.search(r"\d{5,}|e\+\d", summary), (name, summary)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def section(page: Path, anchor: str) -> str:
    parts = re.split(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        if re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") == anchor:
            return text
    raise AssertionError(f"{page} has no section {anchor}")


@pytest.mark.parametrize("rule", list(alerts()), ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_to_do_and_where_to_read_more(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "docs"}
    assert len(notes["summary"]) <= 120
    page, _, anchor = notes["docs"].partition("#")
    assert f"`{rule['alert']}`" in section(ROOT / page, anchor)
    for named in re.findall(r"docs/[\w-]+\.md", notes["description"]):
        assert (ROOT / named).exists(), named


def test_a_bare_value_is_a_count() -> None:
    """Anything else has a unit, and a template that writes it."""
    bare = {r["alert"] for r in alerts() if "{{ $value }}" in " ".join(r["annotations"].values())}
    counts = (
        "NodesSilent",
        "NodeClocksOff",
        "GpuGone",
        "UncoveredDevices",
        "AgentLate",
        "SinkDead",
        "DeadlinePassed",
    )
    assert bare == {f"Flopmeter{name}" for name in counts}


def metrics_named(text: str) -> set[str]:
    """Names of series in a query or page, as they are scraped."""
    return set(re.findall(r"(?<![\w:])flopmeter_\w+(?![\w:])", text))


def documented() -> set[str]:
    names = set(re.findall(r"^\| `(flopmeter_\w+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    assert len(names) > 80
    return names | {
        f"{n}{end}" for n in names if n.endswith("_seconds") for end in ("_bucket", "_sum", "_count")
    }


@pytest.mark.parametrize("file", [RECORDING, ALERTS], ids=lambda file: file.name)
def test_every_metric_of_a_rule_is_documented(file: Path) -> None:
    for group in groups(file):
        for rule in group["rules"]:
            assert metrics_named(rule["expr"]) <= documented(), rule


def test_every_recorded_series_that_is_asked_for_is_recorded() -> None:
    recorded = {rule["record"] for g in groups(RECORDING) for rule in g["rules"]}
    text = (
        ALERTS.read_text()
        + RECORDING.read_text()
        + "".join(f.read_text() for f in (ROOT / "deploy/grafana").glob("*.json"))
    )
    named = set(re.findall(r"[a-z_]+:flopmeter_\w+:\w+", text))
    assert named == recorded


def test_the_page_has_each_alert_with_its_severity() -> None:
    rows = dict(
        re.findall(
            r"^\| `(Flopmeter\w+)` \| (\w+) \|", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE
        )
    )
    assert rows == {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}


def test_the_operators_objects_are_the_same_rules() -> None:
    done = subprocess.run(
        ["sh", FOLDER / "operator/rule.sh"], capture_output=True, text=True, timeout=60, check=True
    )
    found = list(yaml.safe_load_all(done.stdout))
    assert [d["kind"] for d in found] == ["PrometheusRule", "PrometheusRule"]
    assert [d["spec"]["groups"] for d in found] == [groups(RECORDING), groups(ALERTS)]


def test_the_operators_monitors_find_our_pods_and_say_our_jobs() -> None:
    agents, collector = yaml.safe_load_all((FOLDER / "operator/monitors.yaml").read_text())
    daemonset = (ROOT / "deploy/k8s/agent-daemonset.yaml").read_text()
    service = (ROOT / "deploy/k8s/collector-statefulset.yaml").read_text()
    (endpoint,), (port,) = agents["spec"]["podMetricsEndpoints"], collector["spec"]["endpoints"]
    assert f"- name: {endpoint['port']}" in daemonset
    assert f"- name: {port['port']}" in service
    for monitor, deployed in ((agents, daemonset), (collector, service)):
        for key, value in monitor["spec"]["selector"]["matchLabels"].items():
            assert f"{key}: {value}" in deployed
    jobs = {r["replacement"] for e in (endpoint, port) for r in e["relabelings"] if r["targetLabel"] == "job"}
    asked = set(re.findall(r'job="([\w-]+)"', ALERTS.read_text()))
    assert jobs == asked
    scraped = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert {s["job_name"] for s in scraped} == asked


@promtool
def test_prometheus_takes_the_example_as_it_is() -> None:
    done = tool("check", "config", FOLDER / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason=NO_PROMETHEUS)
def test_alertmanager_takes_the_route_of_the_page_and_it_names_alerts_that_exist(tmp_path: Path) -> None:
    (route,) = re.findall(r"```yaml\n(route:.*?)```", (ROOT / "docs/monitoring.md").read_text(), re.DOTALL)
    receivers = "".join(f"  - name: {name}\n" for name in ("admins", "counsel", "pager"))
    file = tmp_path / "alertmanager.yml"
    file.write_text(f"{route}receivers:\n{receivers}")
    done = subprocess.run(
        ["amtool", "check-config", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {rule["alert"] for rule in alerts()}
    for pattern in re.findall(r'alertname=~?"([^"]+)"', route):
        for part in pattern.split("|"):
            assert [name for name in names if re.fullmatch(part, name)], part


def test_no_alert_has_the_name_that_a_sink_gives_an_event() -> None:
    """Both may go to one Alertmanager."""
    source = (ROOT / "collector/flopmeter/collector/law/events.py").read_text()
    types = set(re.findall(r'^[A-Z_]+ = "([a-z]+\.[a-z-]+)"$', source, re.MULTILINE))
    assert len(types) >= 13
    assert not {alert_name(kind) for kind in types} & {rule["alert"] for rule in alerts()}
