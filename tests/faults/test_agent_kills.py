"""The agent killed again and again while it plays a trace: the collector's books come out as if nothing was."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trace_lines
from rig import FedAgent
from sim_node import SimRecording

from fakes import FakeCollector
from flopmeter.agent.reading import Reading

pytestmark = pytest.mark.faults
KILLS = 50
WAIT_S = 60.0


def write_trace(path: Path, recording: SimRecording) -> None:
    facts = recording.facts()
    head = {
        "format": "flopmeter-trace/1",
        "node": facts.node,
        "boot_id": facts.boot_id.hex(),
        "driver": facts.driver,
        "nvml": facts.nvml,
        "devices": [
            {
                "entity": d.entity,
                "name": d.name,
                "compute_capability": d.compute_capability,
                "sm_count": d.sm_count,
                "serial": d.serial,
                "mig": False,
                "parent": None,
            }
            for d in facts.devices
        ],
    }
    with path.open("w") as f:
        f.write(json.dumps(head) + "\n")
        for r in recording.items():
            assert isinstance(r, Reading)
            assert r.workload is not None
            line = {
                "t_boot_ns": r.t_boot_ns,
                "t_unix_ns": r.t_unix_ns,
                "entity": r.entity,
                "gpm": {str(k): v for k, v in (*r.cycles.items(), *r.percent.items())},
                "sm_clock_mhz": list(r.sm_clock_mhz),
                "energy_mj": r.energy_mj,
                "workload": {"kind": "slurm", "job": r.workload.job, "run": r.workload.run},
            }
            f.write(json.dumps(line) + "\n")


def agent(trace: Path, state: Path, target: str) -> "subprocess.Popen[str]":
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FLOPMETER_")}
    code = "from flopmeter.cli.main import main; main()"
    args = ["--source", f"trace:{trace}", "--state", str(state), "--collector", target]
    more = ["--window", "10s", "--stop-timeout", str(WAIT_S)]
    return subprocess.Popen(
        [sys.executable, "-c", code, "agent", "run", *args, *more],
        stderr=subprocess.PIPE,
        text=True,
        env=kept,
    )


def test_fifty_kills_leave_the_books_as_if_nothing_had_been(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    write_trace(trace, SimRecording(9_000, gpus=2))
    rng = random.Random(20261122)
    collector = FakeCollector()
    try:
        done = agent(trace, tmp_path / "undisturbed", collector.target)
        _, said = done.communicate(timeout=WAIT_S)
        assert done.returncode == 0, said
        expected = dict(collector.records)
    finally:
        collector.stop()
    assert len(expected) == 900
    killed_at: list[int] = []
    pause = threading.Event()
    state = tmp_path / "killed"
    state.mkdir()
    shutil.copy(tmp_path / "undisturbed/record.key", state)
    collector = FakeCollector()
    collector.max_in_flight = 8
    try:
        for life in range(KILLS):
            child = agent(trace, state, collector.target)
            assert child.stderr is not None
            assert "flopmeter agent" in child.stderr.readline()
            # Some at once, some in the middle of starting, most when so many more records were taken.
            goal = collector.head + rng.choice([0, 1, 3, 8, 20, 40])
            give_up = time.monotonic() + rng.choice([0.2, 2.0])
            if life % 5 == 0:  # whatever the machine's load, some fall into the playing
                goal, give_up = max(goal, collector.head + 1), time.monotonic() + WAIT_S
            while collector.head < goal and time.monotonic() < give_up and child.poll() is None:
                pause.wait(0.001)
            child.send_signal(signal.SIGKILL)
            child.communicate()
            killed_at.append(collector.head)
        last = agent(trace, state, collector.target)
        _, said = last.communicate(timeout=WAIT_S)
        assert last.returncode == 0, said
        assert collector.records == expected
    finally:
        collector.stop()
    assert len(set(killed_at)) > 5, "the kills did not fall into the playing"


def dcgm_lines(seconds: int) -> list[bytes]:
    """A scrape a second as dcgm tells it, percentages alone; a second GPU comes on the way."""
    plain = {"5": 40.0, "7": 40.0, "2": 80.0}
    first, second = trace_lines.header(1), trace_lines.header(2)
    at = trace_lines.reading(0, 100)
    came = {"t_boot_ns": at["t_boot_ns"] + 1, "t_unix_ns": at["t_unix_ns"] + 1, "event": "mig-change"}
    lines: list[dict[str, object]] = [first | {"source": "dcgm"}]
    for s in range(seconds + 1):
        lines += [trace_lines.reading(gpu, s, gpm=plain) for gpu in range(1 if s <= 100 else 2)]
        lines += [came | {"devices": second["devices"]}] if s == 100 else []
    return [json.dumps(line).encode() + b"\n" for line in lines]


def test_a_trace_recorded_from_dcgm_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    """Its readings say dcgm, so only the agent knows that they come again from the beginning."""
    lines = dcgm_lines(200)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for state in (calm, killed):
        state.mkdir(mode=0o700)
    collector = FakeCollector()
    try:
        FedAgent(lines, calm, collector.target, tmp_path / "fifo").finish()
        expected = dict(collector.records)
    finally:
        collector.stop()
    assert len(expected) >= 199
    shutil.copy(calm / "record.key", killed)
    collector = FakeCollector()
    try:
        fed = FedAgent(lines, killed, collector.target, tmp_path / "fifo")
        # 64 windows are sealed at once.
        fed.live(80, 0.1, lambda: collector.head > 0)
        fed.live(250, 0.1, lambda: collector.head > 64)
        fed.live(251, 1.0)
        assert 0 < collector.head < len(expected)
        fed.finish()
        assert collector.records == expected
    finally:
        collector.stop()
