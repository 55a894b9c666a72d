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
        for _ in range(KILLS):
            child = agent(trace, state, collector.target)
            assert child.stderr is not None
            assert "flopmeter agent" in child.stderr.readline()
            # Some at once, some in the middle of starting, most when so many more records were taken.
            goal = collector.head + rng.choice([0, 1, 3, 8, 20, 40])
            give_up = time.monotonic() + rng.choice([0.2, 2.0])
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
