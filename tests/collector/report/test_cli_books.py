"""`flopmeter runs | events | regimes | fleet | collector fsck` as people and scripts meet them."""

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import time

import pytest
from builders import WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.cli.main import main
from flopmeter.cli.output import flop_text, lower_text, upper_text
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.report.runs_view import run_view
from flopmeter.contract.usage import IDLE, Workload, WorkloadKind

PRETRAIN = Workload(WorkloadKind.SLURM, job="4711", run="llama-70b-pretrain", dtype="bf16")


@pytest.fixture
def store(tmp_path):
    """Two runs and one loss; the run's windows end now, so that it is running."""
    path = tmp_path / "books.sqlite"
    chain = Chain(gpus=4)
    chain.unix_ns = time.time_ns() - 5 * WINDOW_NS
    with Desk(path, shipped()) as desk:
        desk.now = time.time_ns()
        agent = desk.agent(chain, oldest_seq=0)
        other = Workload(WorkloadKind.POD, job="uid-1", user="alice")
        for _ in range(5):
            desk.offer(agent, chain.next([busy(0), busy(1), gap(2, 1), busy(3, 2)], (PRETRAIN, other, IDLE)))
        desk.commit()
        desk.agent(Chain("n2"), oldest_seq=4)
        desk.commit()
    return path


@pytest.fixture
def flopmeter(monkeypatch, capsys, store):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    monkeypatch.delenv("FLOPMETER_REGIMES", raising=False)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["flopmeter", *words])
        try:
            main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def test_runs_list_for_people_and_for_scripts(flopmeter):
    code, out, _ = flopmeter("runs", "list")
    assert code == 0
    head, first, second, *_ = out.splitlines()
    assert head.split()[:2] == ["run", "FLOP"]
    assert "llama-70b-pretrain" in first
    assert "running" in first
    assert "below eu-gpai" in first
    assert "pod:c1/uid-1" in second
    code, out, _ = flopmeter("runs", "list", "--json")
    assert [r["run"] for r in json.loads(out)["runs"]] == ["llama-70b-pretrain", "pod:c1/uid-1"]


def test_runs_show_is_the_same_figure_in_both_forms(flopmeter):
    _, out, _ = flopmeter("runs", "show", "llama-70b-pretrain", "--json")
    document = json.loads(out)
    point = document["executed"]["flop"]["point"]
    assert re.fullmatch(r"[0-9]+", point)
    code, text, _ = flopmeter("runs", "show", "llama-70b-pretrain")
    assert code == 0
    assert f"{flop_text(int(point))} FLOP" in text
    flop = document["executed"]["flop"]
    assert f"between {lower_text(int(flop['lower']))} and {upper_text(int(flop['upper']))}" in text
    for r in shipped():
        assert r.id in text
    assert "Why the bounds are as wide" in text
    assert "not a measure of risk" in " ".join(text.split())  # wherever the lines break
    assert "\x1b" not in text  # no terminal, no colour


def test_the_bar_puts_the_point_on_the_right_side_of_the_line(flopmeter):
    _, out, _ = flopmeter("runs", "show", "llama-70b-pretrain", "--json")
    document = json.loads(out)

    def bar(factor):
        d = json.loads(json.dumps(document))
        threshold = next(t for t in d["thresholds"] if t["regime"] == "eu-systemic-risk")
        for figure in (d["executed"]["flop"], d["countable"]["eu-systemic-risk"]["flop"]):
            figure.update(
                {k: str(int(10**25 * factor * f)) for k, f in (("lower", 0.5), ("point", 1), ("upper", 2))}
            )
        threshold["fraction"] = factor
        text = run_view(d, Paint(colour=False, width=100))
        return next(line for line in text.splitlines() if "eu-systemic-risk" in line)

    assert bar(0.1).index("◆") < bar(0.1).index("┃")
    assert bar(5).index("◆") > bar(5).index("┃")
    assert "━" in bar(1)


@pytest.mark.parametrize("flop", [(0, 0, 0), (0, 0, 1), (0, 0, 10**30), (1, 1, 1), (10**40, 10**40, 10**41)])
@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_any_figure_can_be_drawn_at_any_width(flopmeter, flop, width):
    _, out, _ = flopmeter("runs", "show", "llama-70b-pretrain", "--json")
    d = json.loads(out)
    figure = dict(zip(("lower", "point", "upper"), map(str, flop), strict=True))
    d["executed"]["flop"] = figure
    for countable in d["countable"].values():
        countable["flop"] = figure
    text = run_view(d, Paint(colour=True, width=width))
    assert len(text.splitlines()) > 10
    d["thresholds"] = []
    assert "no regimes" in run_view(d, Paint(colour=False, width=width))


def test_eighty_columns_are_enough(flopmeter):
    _, out, _ = flopmeter("runs", "show", "llama-70b-pretrain", "--json")
    text = run_view(json.loads(out), Paint(colour=False, width=80))
    assert max(map(len, text.splitlines())) <= 80
    lines = text.splitlines()
    assert any(line.split()[:2] == ["A1", lines[4].split()[1]] for line in lines), "a line per class"
    assert any(line.split()[:1] == ["hmma"] for line in lines), "a line per pipe"
    assert "not within the EU's ±30 %" in text
    assert "if bf16 is true as declared" in text
    assert "had all tensor work been 2:4 sparse" in text


def test_shared_time_is_told(flopmeter):
    document = json.loads(flopmeter("runs", "show", "llama-70b-pretrain", "--json")[1])
    assert "apportioned" not in run_view(document, Paint(colour=False, width=80))
    document["apportioned_device_seconds"] = 7200.0
    assert "2.00 GPU-h apportioned among the holders" in run_view(document, Paint(colour=False, width=80))


def test_models_have_a_line_each_where_there_are_several(flopmeter):
    document = json.loads(flopmeter("runs", "show", "llama-70b-pretrain", "--json")[1])
    ((name, part),) = document["by_model"].items()
    assert "  model" not in run_view(document, Paint(colour=False, width=80))
    document["by_model"] = {name: part, "NVIDIA B200": part}
    assert "\n  NVIDIA B200 " in run_view(document, Paint(colour=False, width=80))


def test_lists_leave_out_what_matters_least_where_there_is_no_room(flopmeter, monkeypatch):
    for width, seen in ((80, False), (130, True)):
        monkeypatch.setenv("COLUMNS", str(width))
        code, out, _ = flopmeter("runs", "list")
        assert code == 0
        head, *_, note = out.splitlines()
        assert ("last seen" in head) is ("observed" in head) is seen
        assert note.startswith("(left out at this width") is not seen
        assert "upper" in head


def test_an_unknown_run_is_named_with_what_is_near(flopmeter):
    code, out, err = flopmeter("runs", "show", "lama-70b-pretrian")
    assert code == 3
    assert not out
    assert "found none of that name" in err
    assert "did you mean llama-70b-pretrain?" in err
    assert flopmeter("runs", "show", "")[0] == 3


@pytest.mark.parametrize(
    "words",
    [("runs", "list"), ("runs", "show", "x"), ("events", "list"), ("fleet", "list"), ("collector", "fsck")],
)
def test_a_missing_store_is_exit_3_with_a_hint(flopmeter, tmp_path, words):
    code, out, err = flopmeter(*words, "--store", str(tmp_path / "absent"))
    assert code == 3
    assert not out
    assert "expected a store, found no such file" in err
    assert "--store" in err


def test_events_list_and_its_filters(flopmeter):
    code, out, _ = flopmeter("events", "list")
    assert code == 0
    assert "coverage.lost" in out
    _, out, _ = flopmeter("events", "list", "--json")
    (event,) = json.loads(out)["events"]
    assert event["specversion"] == "1.0"
    assert json.loads(flopmeter("events", "list", "--type", "coverage", "--json")[1])["events"] == [event]
    assert json.loads(flopmeter("events", "list", "--type", "threshold", "--json")[1])["events"] == []
    assert json.loads(flopmeter("events", "list", "--run", "nobody", "--json")[1])["events"] == []
    assert "no event matches" in flopmeter("events", "list", "--run", "nobody")[1]
    code, _, said = flopmeter("events", "list", "--type", "threshold.crosed")
    assert code == 2
    assert "expected one of threshold.undetermined" in said


def test_fleet_list(flopmeter):
    code, out, _ = flopmeter("fleet", "list")
    assert code == 0
    assert "2 nodes (1 live, 1 never)" in out
    assert "3 lost" in next(line for line in out.splitlines() if line.startswith("n2"))
    fleet = json.loads(flopmeter("fleet", "list", "--json")[1])
    assert [n["status"] for n in fleet["nodes"]] == ["live", "never"]


def test_fsck_says_good_or_names_the_difference(flopmeter, store):
    code, out, err = flopmeter("collector", "fsck")
    assert (code, err) == (0, "")
    assert "good. 5 records" in " ".join(out.split())  # a line ends where the path leaves no room
    assert json.loads(flopmeter("collector", "fsck", "--json")[1])["ok"] is True
    with sqlite3.connect(store) as db:
        db.execute("UPDATE totals SET hmma_cycles = '5' WHERE hmma_cycles != '0'")
    db.close()
    code, out, err = flopmeter("collector", "fsck")
    assert code == 1
    assert not out
    assert "table totals" in err
    assert "got      5" in err
    code, out, _ = flopmeter("collector", "fsck", "--json")
    assert code == 1
    assert json.loads(out)["difference"]["column"] == "hmma_cycles"
    store.write_bytes(b"not a store")
    assert flopmeter("collector", "fsck")[0] == 3


def test_watch_prints_a_line_per_change_where_there_is_no_terminal(flopmeter):
    code, out, _ = flopmeter("runs", "watch", "--interval", "0.1", "--times", "3")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 2  # two runs, and nothing changed between the looks
    assert re.match(
        r"\d{4}-\d\d-\d\dT\S+Z llama-70b-pretrain (running|silent) point=\d+ lower=\d+ upper=\d+ below",
        lines[0],
    )
    assert flopmeter("runs", "watch", "--interval", "0")[0] == 2


def on_terminal(store, *words, **environ):
    """What a terminal shows, as bytes."""
    parent, child = pty.openpty()
    env = {**os.environ, "FLOPMETER_STORE": str(store), "TERM": "xterm", "COLUMNS": "100", **environ}
    env = {k: v for k, v in env.items() if v is not None}
    process = subprocess.Popen(
        [sys.executable, "-c", "from flopmeter.cli.main import main; main()", *words],
        stdout=child,
        stderr=child,
        stdin=subprocess.DEVNULL,
        env=env,
    )
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 65_536):
            shown += chunk
    except OSError:  # the terminal's other end was closed
        pass
    os.close(parent)
    assert process.wait(60) == 0
    return shown


def test_a_terminal_gets_colour_and_a_picture_that_is_redrawn_in_place(store):
    shown = on_terminal(store, "runs", "watch", "--times", "2", "--interval", "0.1", NO_COLOR=None)
    assert shown.count(b"\x1b[H") == 2
    assert b"\x1b[32m" in shown
    plain = on_terminal(store, "runs", "list", NO_COLOR="1")
    assert b"\x1b[" not in plain
    progress = on_terminal(store, "collector", "fsck", NO_COLOR="1")
    assert b"5 of 5 records" in progress
