"""`flopmeter demo` as a newcomer runs it: a real process, its real output."""

import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from processes import COMMAND, flopmeter, start, wait_for

from flopmeter.play import scenario, story
from flopmeter.play.cluster import CHUNK_HOURS
from flopmeter.play.story import FINETUNE, MODIFIED, PRETRAIN, UNLABELLED

pytestmark = pytest.mark.e2e

SMALL = ("--days", "3", "--nodes", "5")


@pytest.fixture(scope="module")
def full() -> dict[str, Any]:
    """The demo that `make demo ARGS="--once --json"` runs. Ends by itself; the deadline is a hang's, not a promise."""
    done = flopmeter("demo", "--once", "--json", timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    document: dict[str, Any] = json.loads(done.stdout)
    assert document.keys() == {"runs", "events", "fleet"}
    return document


def beyond_ns(document: dict[str, Any]) -> int:
    """What follows the last reading before a full hour: the demo ends at a whole second, of which it tells."""
    (end,) = {n["last_window_end"] for n in document["fleet"]["nodes"] if n["status"] == "live"}
    behind_s = int(datetime.fromisoformat(end).timestamp()) % 3600
    return (behind_s + 1) * 1_000_000_000 if behind_s else 0


def test_totals_are_the_scripted_ones(full: dict[str, Any]) -> None:
    script = story.default()
    runs = {r["run"]: r for r in full["runs"]}
    for run in (PRETRAIN, FINETUNE):
        hmma = script.hmma_cycles(run, beyond_ns(full))
        assert int(runs[run]["by_pipe"]["hmma"]["sm_cycles"]) == hmma
        assert int(runs[run]["executed"]["flop"]["point"]) == hmma * 4096
    assert int(runs[PRETRAIN]["executed"]["flop"]["lower"]) > 10**23
    assert int(runs[PRETRAIN]["executed"]["flop"]["upper"]) < 10**25


def test_1e23_is_crossed_once_and_at_its_time(full: dict[str, Any]) -> None:
    everywhere = [e for e in full["events"] if e["type"] == "threshold.crossed"]
    # What is tuned from it stands on it, and is over the line with it.
    assert sorted((e["subject"], e["data"]["threshold_flop"]) for e in everywhere) == [
        (PRETRAIN, str(10**23)),
        (FINETUNE, str(10**23)),
    ]
    crossed = [e for e in everywhere if e["subject"] == PRETRAIN]
    states = [
        (e["type"], e["data"]["estimate"])
        for e in full["events"]
        if e["subject"] == PRETRAIN and e["type"] in ("threshold.undetermined", "threshold.crossed")
    ]
    assert states == [
        ("threshold.undetermined", "below"),
        ("threshold.undetermined", "crossed"),
        ("threshold.crossed", "crossed"),
    ]
    # When, by the script alone: the first hour by which 0.97 x 0.6 x 2048 FLOP of every HMMA cycle pass the line.
    script = story.default()
    hour = next(h for h in range(script.hours) if _cycles_by(script, h) * 2048 * 6 * 97 > 1_000 * 10**23)
    ended = max(datetime.fromisoformat(n["last_window_end"]) for n in full["fleet"]["nodes"])
    due = ended.replace(minute=0, second=0) - timedelta(hours=script.hours - hour)
    late = datetime.fromisoformat(crossed[0]["time"]) - due
    assert timedelta(0) <= late <= timedelta(hours=CHUNK_HOURS)


def _cycles_by(script: scenario.Scenario, hour: int) -> int:
    total = 0
    for node in script.nodes:
        for span in node.spans:
            # No parameter is updated by an evaluation: what counts against this line is the rest.
            if span.workload.run == PRETRAIN and span.workload.job != story.EVALUATION_JOB:
                end = min(span.end, script.last_hour(node), hour)
                lost = sum(1 for at in node.reboots if span.start <= at < end)
                each = sum(
                    script.elapsed_per_hour * script.hmma_ppm(span, gpu) // 1_000_000
                    for gpu in range(script.gpus_per_node)
                )
                total += max(0, end - span.start - lost) * each
    return total


def test_the_story_is_told(full: dict[str, Any]) -> None:
    fleet = full["fleet"]
    assert (fleet["nodes_total"], fleet["gpus"]) == (24, 192)
    assert fleet["nodes_by_status"] == {"live": 23, "silent": 1}
    assert [n["node"] for n in fleet["nodes"] if n["status"] == "silent"] == ["node-22"]
    assert {r["run"]: r["rule"] for r in full["runs"]} == {
        PRETRAIN: "label",
        FINETUNE: "label",
        MODIFIED: "label",
        UNLABELLED: "slurm-id",
    }
    assert fleet["idle_device_seconds"] > 0
    assert fleet["unattributed_device_seconds"] > 0
    pretrain = next(r for r in full["runs"] if r["run"] == PRETRAIN)
    assert {(j["job"], j["restarts"]) for j in pretrain["jobs"]} == {
        ("88001", 1),
        ("88202", 0),
        ("88213", 0),
        ("88377", 0),
    }
    assert len(pretrain["by_model"]) == 2
    assert {p["purpose"] for p in pretrain["purposes"]} == {
        "pretraining",
        "rolled-back",
        "evaluation",
        "finetuning",
    }
    assert pretrain["progress"]["restarts_at_a_checkpoint"] == 1
    # The code counts 3/4 of what is executed: the other quarter is done again to save memory.
    mfu, hfu = pretrain["progress"]["mfu"], pretrain["progress"]["hfu"]["point"]
    assert 0.73 < mfu / hfu < 0.76
    assert 0.6 < mfu < 0.7
    # The history is the last 30 days, so that what is in force now is in force there.
    last = datetime.fromisoformat(pretrain["last_seen"])
    assert timedelta(0) <= datetime.now(UTC) - last < timedelta(minutes=10)


def test_every_device_second_is_somewhere(full: dict[str, Any]) -> None:
    script = story.default()
    fleet = full["fleet"]
    of_runs = sum(
        r["coverage"]["expected_device_seconds"] - r["coverage"]["gaps"].get("unreported", 0)
        for r in full["runs"]
    )
    whole = of_runs + fleet["idle_device_seconds"] + fleet["unattributed_device_seconds"]
    behind_s = beyond_ns(full) // 1_000_000_000
    expected = sum(
        (script.last_hour(node) * 3600 + (behind_s if node.dies < 0 else 0)) * script.gpus_per_node
        for node in script.nodes
    )
    assert fleet["device_seconds"] == pytest.approx(expected, abs=1e-3)
    assert whole == pytest.approx(expected, abs=1e-3)  # floats of seconds, added up


def test_json_leaves_nothing_behind(tmp_path: Path) -> None:
    done = flopmeter(
        "demo", "--once", "--json", "--days", "2", "--nodes", "5", environ={"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_once_for_people_ends_with_commands_that_work(tmp_path: Path) -> None:
    done = flopmeter("demo", "--once", *SMALL, "--dir", tmp_path / "books")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "playing the history: 2,768 of 2,768 readings" in done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100
    commands = [line.strip() for line in lines if "--store" in line]
    assert len(commands) == 7
    (serve,) = [c for c in commands if "collector serve" in c]
    commands.remove(serve)
    for command in commands:
        name, *args = shlex.split(command)
        assert name.endswith("flopmeter")
        tried = flopmeter(*args)
        assert tried.returncode == 0, (command, tried.stderr)
        assert tried.stdout.strip()
        if "token" in args:
            token = tried.stdout.strip()
    assert "/#token=" not in done.stdout  # of a demo that is over there is no page
    page_is_served(shlex.split(serve)[1:], token, "viewer", tmp_path / "log")


def page_is_served(words: list[str], token: str, role: str, log: Path) -> None:
    """What the last screen says of the page is so. Elsewhere than there: that may be taken."""
    if "--http" in words:
        at = words.index("--http")
        del words[at : at + 2]
    process = start(*words, "--http", "127.0.0.1:0", "--listen", "127.0.0.1:0", log=log)
    try:
        wait_for("the page is served", lambda: re.search(r"http://127[\d.:]+", log.read_text()))
        found = re.search(r"http://127[\d.:]+", log.read_text())
        assert found is not None
        who = asked(f"{found[0]}/api/v1/whoami", token)
        assert (who["role"], who["tenant"]) == (role, None)
        assert asked(f"{found[0]}/api/v1/runs", token)["total"] == 4
    finally:
        process.terminate()
        assert process.wait(60) == 0


def asked(url: str, token: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("mine")
    done = flopmeter("demo", "--once", "--dir", tmp_path)
    assert done.returncode == 2
    assert "empty directory" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["something"]


def test_json_needs_an_end() -> None:
    done = flopmeter("demo", "--json")
    assert done.returncode == 2
    assert "--once" in done.stderr


class Terminal:
    """A demo on a terminal of its own."""

    def __init__(self, tmp_path: Path, columns: int, rows: int, **environ: str) -> None:
        master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        args = [COMMAND, "demo", *SMALL, "--dir", tmp_path / "books"]
        env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            list(map(str, args)),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env | {"TERM": "xterm-256color"} | environ,
            start_new_session=True,
        )
        os.close(slave)
        self.master = master
        self.output = b""

    def read_until(self, wanted: bytes, timeout: float = 180) -> None:
        deadline = time.monotonic() + timeout
        while wanted not in self.output:
            assert time.monotonic() < deadline, self.output[-2000:]
            self._read()

    def _read(self) -> bool:
        ready, _, _ = select.select([self.master], [], [], 0.2)
        if not ready:
            return True
        try:
            data = os.read(self.master, 65_536)
        except OSError:  # the other end is closed
            return False
        self.output += data
        return bool(data)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        deadline = time.monotonic() + 120
        while self._read() or self.process.poll() is None:
            assert time.monotonic() < deadline
            if self.process.poll() is not None and not select.select([self.master], [], [], 0)[0]:
                break
        os.close(self.master)
        return self.process.wait(60)


def desktop(tmp_path: Path) -> dict[str, str]:
    """An environment with a desktop, on which a browser would write down what it is shown."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "xdg-open").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/shown\n')
    (programs / "xdg-open").chmod(0o755)
    elsewhere = dict.fromkeys(("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "CI"), "")
    return {"DISPLAY": ":0", "PATH": f"{programs}:{os.environ['PATH']}", **elsewhere}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live_on_a_terminal(tmp_path: Path, number: int) -> None:
    terminal = Terminal(tmp_path, 80, 34, **desktop(tmp_path))
    terminal.read_until(b"live, a reading a second")
    found = re.search(rb"the page: (http://\S+)/#token=(\S+)", terminal.output)
    assert found is not None
    address, token = (part.decode() for part in found.groups())

    def live() -> bool:
        return bool(asked(f"{address}/api/v1/overview", token)["nodes"]["by_status"]["live"] == 4)

    wait_for("four nodes report", live)
    with urllib.request.urlopen(f"{address}/", timeout=60) as page:
        assert b"<!doctype html>" in page.read(200).lower()
    frames_before = terminal.output.count(b"\x1b[H")
    deadline = time.monotonic() + 120
    while terminal.output.count(b"\x1b[H") < frames_before + 3:  # it goes on by itself
        assert time.monotonic() < deadline
        terminal._read()
    assert terminal.end(number) == 0
    text = terminal.output.decode()
    assert text.index("\x1b[?1049h") < text.rindex("\x1b[?1049l")  # the terminal is given back
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")
    assert "Traceback" not in text
    frames = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", f) for f in text.split("\x1b[H")[1:]]
    assert len(frames) > 3
    for frame in frames[:-1]:
        rows = frame.split("\r\n")
        assert len(rows) <= 34
        assert max(map(len, rows)) <= 80
        assert "RUN " in frame  # the link takes no more than it needs
    assert "The books are in" in frames[-1]
    (link,) = set(re.findall(r"^the page: (http://127\.0\.0\.1:\d+/#token=FMA1\.\S+)\r$", text, re.MULTILINE))
    assert (tmp_path / "shown").read_text() == link + "\n"
    for frame in frames[1:-1]:  # whole and alone on its lines, below the picture
        assert link in frame.replace("\r\n", "")
    assert f"   {link}\r\n" in frames[-1]
    serve = next(line.strip() for line in frames[-1].split("\r\n") if "collector serve" in line)
    assert link.split("/")[2] in serve or ":9841/" in link
    if number == signal.SIGINT:
        page_is_served(shlex.split(serve)[1:], link.partition("#token=")[2], "admin", tmp_path / "log")
    done = flopmeter("runs", "show", PRETRAIN, "--store", tmp_path / "books", "--json")
    assert int(json.loads(done.stdout)["by_pipe"]["hmma"]["sm_cycles"]) > 0


def test_no_color_is_honoured(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, 100, 40, NO_COLOR="1")
    terminal.read_until(b"live, a reading a second")
    assert terminal.end(signal.SIGINT) == 0
    assert not re.search(rb"\x1b\[[0-9;]*m", terminal.output)
