"""What `/metrics` shows of runs, laws and the fleet: chosen, bounded, and made of what the API answers. Pure.

The process that reads the books answers with it (`metrics-of-runs`), the HTTP port turns it into series
(metrics_books.py). docs/metrics.md has every name; all of them are gauges, because people may correct the books.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Any

#: Runs that have series of their own: half of them the largest, half those that were active last.
MAX_RUNS = 100
#: A run that did nothing for so long, and about which nothing is open, leaves.
KEEP_S = 14 * 86_400
#: Series of a run at most, with R regimes that bind: these and PER_REGIME x R.
PER_RUN, PER_REGIME = 17, 6
_BOUNDS = ("lower", "point", "upper")

#: name -> (help, labels)
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "flopmeter_run_info": ("A run and how it stands; always 1.", ("run", "status")),
    "flopmeter_run_executed_flop": (
        "Executed total, gaps and silence in the upper bound.",
        ("run", "bound"),
    ),
    "flopmeter_run_countable_flop": (
        "What counts under a regime that binds, in the unit of its line.",
        ("run", "regime", "bound"),
    ),
    "flopmeter_run_threshold_flop": ("The line of that regime for this run.", ("run", "regime")),
    "flopmeter_run_verdict_info": (
        "Crossed, below or undetermined; always 1.",
        ("run", "regime", "verdict"),
    ),
    "flopmeter_run_crossed_timestamp_seconds": (
        "When the crossing of a line that is crossed was recorded.",
        ("run", "regime"),
    ),
    "flopmeter_run_forecast_info": (
        "What the last forecast says of the nearest line that is not crossed; always 1.",
        ("run", "regime", "answer"),
    ),
    "flopmeter_run_forecast_crossing_timestamp_seconds": (
        "When that line is met if the run goes on so.",
        ("run", "regime", "edge"),
    ),
    "flopmeter_run_device_seconds": ("Coverage of the run.", ("run", "kind")),
    "flopmeter_run_energy_joules": ("Energy, as far as devices tell it.", ("run",)),
    "flopmeter_run_open_events": ("Events about the run that nobody has resolved.", ("run", "severity")),
    "flopmeter_run_last_usage_timestamp_seconds": ("End of the last usage in the books.", ("run",)),
    "flopmeter_runs": ("Runs in the books.", ("status",)),
    "flopmeter_runs_left_out": ("Runs without series of their own.", ()),
    "flopmeter_runs_left_out_executed_flop": ("Executed total of those.", ("bound",)),
    "flopmeter_regime_threshold_flop": ("Line of a regime that binds.", ("regime",)),
    "flopmeter_regime_info": (
        "A regime that binds; always 1.",
        ("regime", "title", "comparison", "unit"),
    ),
    "flopmeter_open_events": ("Events that nobody has resolved.", ("severity",)),
    "flopmeter_deadlines": ("Deadlines that nobody has resolved.", ("state",)),
    "flopmeter_next_deadline_timestamp_seconds": ("The next one that is due.", ()),
    "flopmeter_fleet_nodes": ("Nodes, by how they stand.", ("status",)),
    "flopmeter_fleet_gpus": ("GPUs of all nodes.", ()),
    "flopmeter_fleet_uncovered_devices": ("Accelerators that nothing meters.", ()),
    "flopmeter_fleet_device_seconds": ("Coverage of the fleet.", ("kind",)),
    "flopmeter_fleet_idle_device_seconds": ("Of the observed time: nobody held the GPU.", ()),
    "flopmeter_fleet_unattributed_device_seconds": (
        "Of the observed time: somebody held it, and nobody knows who.",
        (),
    ),
    "flopmeter_fleet_clocks_known": ("Nodes whose clock was measured within the last hour.", ()),
    "flopmeter_fleet_clocks_off": (
        "Of those: nodes whose clock is surely off by more than that.",
        ("over_seconds",),
    ),
    "flopmeter_fleet_clock_off_seconds": (
        "By how much the clock that is furthest off is off at the least.",
        (),
    ),
}

#: Of each family, label values and the value. FLOP are integers: JSON has no largest one.
Samples = dict[str, list[list[Any]]]


def run_metrics(
    lines: Sequence[Mapping[str, Any]],
    items: Iterable[Mapping[str, Any]],
    overview: Mapping[str, Any],
    fleet: Mapping[str, Any] | None,
    *,
    energy_joules: Callable[[str], float | None] = lambda _: None,
    crossed: Mapping[tuple[str, str], int] | None = None,
    now_unix_s: float,
    most: int = MAX_RUNS,
) -> dict[str, Any]:
    """`lines` and `items` as `GET /runs` has them (of all runs), `overview` and `fleet` likewise (docs/api.md).

    `energy_joules`: of a run, by name. `crossed`: of run and regime, when that was recorded (Unix ns). `fleet` None: its totals cannot be made.
    """
    samples: Samples = {}

    def add(name: str, *values: Any) -> None:
        assert len(values) == len(FAMILIES[name][1]) + 1
        samples.setdefault(name, []).append(list(values))

    good = [i for i in items if not i.get("fault")]
    shown = choose(good, now_unix_s, most)
    left = dict.fromkeys(_BOUNDS, 0)
    names = {i["run"] for i in shown}
    for item in good:
        if item["run"] not in names:
            for bound in _BOUNDS:
                left[bound] += int(item["executed"][bound])
    for item in shown:
        for name, values in _of_run(item, lines, crossed or {}):
            add(name, *values)
        energy = energy_joules(item["run"])
        if energy is not None:
            add("flopmeter_run_energy_joules", item["run"], energy)
    for status, number in overview["runs"]["by_status"].items():
        add("flopmeter_runs", status, number)
    add("flopmeter_runs_left_out", overview["runs"]["total"] - len(shown))
    for bound in _BOUNDS:
        add("flopmeter_runs_left_out_executed_flop", bound, left[bound])
    for line in lines:
        add("flopmeter_regime_threshold_flop", line["regime"], _whole(line["threshold_flop"]))
        what = line["regime"], line["title"], line["comparison"], line["unit"]
        add("flopmeter_regime_info", *what, 1)
    for severity, number in overview["events"]["by_severity"].items():
        add("flopmeter_open_events", severity, number)
    deadlines = overview["deadlines"]
    add("flopmeter_deadlines", "due", deadlines["open"] - deadlines["overdue"])
    add("flopmeter_deadlines", "overdue", deadlines["overdue"])
    if overview["next_deadline"] is not None:
        add("flopmeter_next_deadline_timestamp_seconds", _seconds(overview["next_deadline"]["due"]))
    if fleet is not None:
        _add_fleet(add, fleet)
    return {"as_of": now_unix_s, "samples": samples}


def _add_fleet(add: Any, fleet: Mapping[str, Any]) -> None:
    for status in ("live", "silent", "stopped", "never"):
        add("flopmeter_fleet_nodes", status, fleet["nodes_by_status"].get(status, 0))
    add("flopmeter_fleet_gpus", fleet["gpus"])
    add("flopmeter_fleet_uncovered_devices", fleet["uncovered_devices"])
    clocks = fleet["clocks"]
    add("flopmeter_fleet_clocks_known", clocks["known"])
    for step in clocks["off"]:
        add("flopmeter_fleet_clocks_off", str(step["over_seconds"]), step["nodes"])
    if clocks["largest_seconds"] is not None:
        add("flopmeter_fleet_clock_off_seconds", clocks["largest_seconds"])
    coverage = fleet["coverage"]
    for kind in ("expected", "observed", "gap"):
        add("flopmeter_fleet_device_seconds", kind, coverage[f"{kind}_device_seconds"])
    add("flopmeter_fleet_idle_device_seconds", fleet["idle_device_seconds"])
    add("flopmeter_fleet_unattributed_device_seconds", fleet["unattributed_device_seconds"])


def choose(items: Sequence[Mapping[str, Any]], now_unix_s: float, most: int) -> list[Mapping[str, Any]]:
    """Which runs have series: the largest and the most recent, by name where two are alike."""
    alive = [i for i in items if now_unix_s - _seconds(i["last_seen"]) < KEEP_S or any(_open(i).values())]
    by_size = sorted(alive, key=lambda i: (-int(i["executed"]["upper"]), i["run"]))
    chosen = {i["run"]: i for i in by_size[: (most + 1) // 2]}
    for item in sorted(alive, key=lambda i: (-_seconds(i["last_seen"]), i["run"])):
        if len(chosen) >= most:
            break
        chosen.setdefault(item["run"], item)
    return sorted(chosen.values(), key=lambda i: str(i["run"]))


def _open(item: Mapping[str, Any]) -> Mapping[str, int]:
    return item["open_events"] or {}


def _of_run(
    item: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], crossed: Mapping[tuple[str, str], int]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    run = item["run"]
    yield "flopmeter_run_info", (run, item["status"], 1)
    for bound in _BOUNDS:
        yield "flopmeter_run_executed_flop", (run, bound, int(item["executed"][bound]))
    for line in lines:
        counted = item["countable"].get(line["regime"])
        if counted is None:
            continue
        regime = line["regime"]
        for bound in _BOUNDS:
            yield "flopmeter_run_countable_flop", (run, regime, bound, int(counted[bound]))
        yield "flopmeter_run_threshold_flop", (run, regime, _whole(line["threshold_flop"]))
        verdict, at_unix_ns = verdict_of(counted, line), crossed.get((run, regime))
        yield "flopmeter_run_verdict_info", (run, regime, verdict, 1)
        if verdict == "crossed" and at_unix_ns is not None:
            yield "flopmeter_run_crossed_timestamp_seconds", (run, regime, at_unix_ns / 1e9)
    yield from _forecast(run, item["forecast"])
    coverage = item["coverage"]
    expected, observed = (coverage[f"{k}_device_seconds"] for k in ("expected", "observed"))
    for kind, seconds in (("expected", expected), ("observed", observed), ("gap", expected - observed)):
        yield "flopmeter_run_device_seconds", (run, kind, seconds)
    for severity, number in _open(item).items():
        yield "flopmeter_run_open_events", (run, severity, number)
    yield "flopmeter_run_last_usage_timestamp_seconds", (run, _seconds(item["last_seen"]))


def _forecast(run: str, found: Mapping[str, Any] | None) -> Iterator[tuple[str, tuple[Any, ...]]]:
    if found is None or found["regime"] is None:  # nothing in sight is no line's
        return
    yield "flopmeter_run_forecast_info", (run, found["regime"], found["answer"], 1)
    for edge in ("earliest", "point", "latest"):
        at = (found["crosses"] or {}).get(edge)
        if at is not None:
            name = "flopmeter_run_forecast_crossing_timestamp_seconds"
            yield name, (run, found["regime"], edge, _seconds(at))


def verdict_of(counted: Mapping[str, str], line: Mapping[str, Any]) -> str:
    """As law/rules.py's, whose words these are (a test compares them)."""
    threshold = Fraction(line["threshold_flop"])

    def meets(flop: str) -> bool:
        return int(flop) > threshold if line["comparison"] == ">" else int(flop) >= threshold

    if meets(counted["lower"]):
        return "crossed"
    return "undetermined" if meets(counted["upper"]) else "below"


def _whole(text: str) -> int | float:
    line = Fraction(text)  # a third of somebody else's total is no integer
    return line.numerator if line.denominator == 1 else float(line)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
