"""`runs watch`: on a terminal drawn over, elsewhere a line per change; both of the same figures."""

import re
import subprocess
import sys
import time

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import Desk
from terminals import Terminal

from flopmeter.cli.cells import columns
from flopmeter.cli.layout import Paint
from flopmeter.collector.api.run_lines import nearest_forecast
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.report.watch_view import change_line, watch_view
from flopmeter.contract.usage import Workload, WorkloadKind

PROGRAM = [sys.executable, "-c", "from flopmeter.cli.main import main; main()"]
LINES = [
    {"regime": "eu-gpai", "threshold_flop": str(10**23), "comparison": ">"},
    {"regime": "us", "threshold_flop": str(10**26), "comparison": ">"},
]


def line(run="llm-7", point=3 * 10**22, **changed):
    return {
        "run": run,
        "status": "running",
        "executed": {"lower": str(point // 3), "point": str(point), "upper": str(point * 5)},
        "rate": {"flop_per_second": {"lower": "1", "point": str(10**17), "upper": "3"}, "hour": ""},
        "nearest": {"regime": "eu-gpai", "verdict": "undetermined", "fraction": 0.3, "fraction_bounds": [0.1, 1.5]},
        "forecast": {
            "regime": "us", "answer": "will-be-met",
            "crosses": {"point": "2026-12-01T00:00:00Z", "earliest": "2026-11-28T00:00:00Z", "latest": None},
        },
        "coverage": {"expected_device_seconds": 1000.0, "observed_device_seconds": 990.0},
        "fault": None,
    } | changed  # fmt: skip


def test_a_run_has_its_band_against_the_lines_its_rate_and_its_forecast():
    page = watch_view([line()], LINES, "2026-11-22T19:00:00.000Z", Paint(colour=False, width=80))
    text = "\n".join(page)
    assert "llm-7  ● running  3.00e22 FLOP (1.00e22 to 1.50e23)  1.00e17 FLOP/s" in text
    assert "undetermined eu-gpai 30.0 %" in text
    assert "us will be met: 2026-12-01 (from 11-28 on)" in text
    assert "99.0 % observed" in text
    axis, bar = page[1], page[4]
    assert bar.index("◆") < bar.index("╋") < bar.index("┃")  # point, a line in the band, one above it
    assert axis.index("10^23") == bar.index("╋")
    assert bar.count("━") > 10


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("point", [0, 1, 10**22, 10**40])
def test_every_line_fits_whatever_is_in_it(width, point):
    runs = [line("漢" * 300, point), line("x" * 10_000, 5, rate=None, forecast=None, nearest=None)]
    runs.append(line("bad", fault="cannot be read " * 30))
    for row in watch_view(runs, LINES, "2026-11-22T19:00:00Z", Paint(colour=False, width=width)):
        assert columns(row) <= width


def test_a_forecast_with_nothing_in_sight_is_said_and_is_another_than_none():
    kept = {"time": "2026-11-22T01:00:00.000Z", "until": "2026-12-22T01:00:00.000Z", "confidence_percent": 90}
    crossed = {"regime": "eu-gpai", "answer": "crossed", "crosses": None}
    budget = {"regime": None, "answer": "will-be-met", "crosses": None}
    found = nearest_forecast(kept | {"lines": [crossed, budget]})
    assert found == kept | {"regime": None, "answer": "not-in-sight", "crosses": None}
    assert nearest_forecast(None) is None
    assert "forecast: no line in sight until 2026-12-22" in change_line(line(forecast=found))


def test_no_runs_say_what_to_do():
    page = watch_view([], LINES, "2026-11-22T19:00:00Z", Paint(colour=False, width=80))
    assert "flopmeter agent run" in "\n".join(page)


def test_a_change_is_a_line_with_exact_figures():
    text = change_line(line(point=123456789012345678901234))
    assert text.startswith("llm-7 running point=123456789012345678901234 lower=")
    assert (
        " flop_per_s=100000000000000000 undetermined eu-gpai 30.0 % forecast: us will be met: 2026-12-01"
        in text
    )
    assert change_line(line()) != change_line(line(status="silent"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Forty runs that ran until hours ago."""
    path = tmp_path_factory.mktemp("watch") / "books.sqlite"
    chain = Chain()
    chain.unix_ns = time.time_ns() - 200 * WINDOW_NS
    with Desk(path, shipped()) as desk:
        desk.now = time.time_ns()
        agent = desk.agent(chain)
        for i in range(40):
            work = Workload(WorkloadKind.SLURM, job=str(i), run=f"run-{i:02}", dtype="bf16")
            desk.offer(agent, chain.next([busy(0)], (work,)))
        desk.commit()
    return path


def test_elsewhere_a_line_per_change_and_none_without(store):
    words = [*PROGRAM, "runs", "watch", "--store", str(store), "--times", "3", "--interval", "0.1"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    named = [text.split()[1] for text in lines]
    # Three looks, and nothing changed; but what the silent agent of the last run owes grows, by a digit every 40 s.
    assert sorted(set(named)) == [*sorted(n for n in named if n != "run-39"), "run-39"]
    assert len(set(named)) == 40
    assert all(
        re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z run-\d\d (stopped|silent) point=\d+ lower=\d+ upper=\d+ ", text)
        for text in lines
    )
    assert "\x1b" not in done.stdout


def test_it_ends_when_nobody_reads_any_more(store):
    words = [*PROGRAM, "runs", "watch", "--store", str(store), "--interval", "60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        watch.stdout.close()
        assert watch.wait(60) == 0


@pytest.mark.e2e
def test_on_a_terminal_it_is_scrolled_resized_and_left_as_it_was(store):
    t = Terminal([*PROGRAM, "runs", "watch", "--store", str(store), "--interval", "60"], columns=80, lines=24)
    try:
        screen = t.shows("40 runs")
        assert len(screen.split("\r\n")) == 24
        assert max(columns(row) for row in screen.split("\r\n")) <= 80
        assert "run-04" in screen
        t.press("G")
        t.shows("run-39")
        t.resize(120, 200)
        t.until(lambda t: "run-00" in t.screen and "run-39" in t.screen, "all of it")
        assert t.modes() == (False, False)
        t.press("q")
        assert t.ended() == 0
        assert t.modes() == (True, True)
        assert t.seen.endswith("\x1b[?25h\x1b[?1049l")
    finally:
        t.close()


@pytest.mark.e2e
def test_what_is_wrong_is_said_on_the_screen_that_stays(tmp_path):
    t = Terminal([*PROGRAM, "runs", "watch", "--store", str(tmp_path / "none")], columns=80, lines=24)
    try:
        assert t.ended() == 3
        assert "expected a store" in " ".join(t.seen.split())
        assert "\x1b[?1049h" not in t.seen
    finally:
        t.close()


@pytest.mark.e2e
@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_plain_terminal_is_respected(store, environ):
    words = [*PROGRAM, "runs", "watch", "--store", str(store), "--times", "1", "--interval", "0.1"]
    t = Terminal(words, columns=80, lines=24, **environ)
    try:
        assert t.ended() == 0
        assert not re.search(r"\x1b\[[0-9;]*m", t.seen.replace("\x1b[0m", ""))
        assert ("\x1b" in t.seen) == ("TERM" not in environ)
    finally:
        t.close()
