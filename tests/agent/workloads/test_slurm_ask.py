"""Asking squeue: only when something is to be known, never often, never for long, and never for too much."""

import json
import logging
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from processes import gone, wait_for

from fakes import FakeClock
from flopmeter.agent.workloads.slurm_ask import (
    KEPT_NS,
    MAX_BACKOFF_PERIODS,
    MAX_WANTED,
    REFRESH_PERIODS,
    Asker,
    AskError,
    _collect,
    run_bounded,
)

PERIOD = 60_000_000_000


def answer(*jobs: int) -> bytes:
    return json.dumps(
        {"jobs": [{"job_id": j, "name": f"n{j}", "job_state": "RUNNING"} for j in jobs]}
    ).encode()


class Squeue:
    def __init__(self, *jobs: int) -> None:
        self.jobs = jobs
        self.asked: list[list[str]] = []
        self.error: Exception | None = None

    def __call__(self, argv: list[str]) -> bytes:
        self.asked.append(argv)
        if self.error:
            raise self.error
        return answer(*self.jobs)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def asker(squeue: Squeue, clock: FakeClock) -> Asker:
    return Asker("/usr/bin/squeue", PERIOD, clock, squeue)


def test_nobody_wants_to_know(clock: FakeClock) -> None:
    squeue = Squeue(1)
    asker(squeue, clock).turn()
    assert squeue.asked == []


def test_asked_once_for_what_is_wanted(clock: FakeClock) -> None:
    squeue = Squeue(1, 2, 3)
    ask = asker(squeue, clock)
    assert ask.facts("1") is None
    assert ask.facts("2") is None
    ask.turn()
    assert squeue.asked == [["/usr/bin/squeue", "--json", "--jobs=1,2"]]
    assert [f and f.name for f in map(ask.facts, "123")] == ["n1", "n2", None]
    ask.turn()  # 3 is wanted now, and the period is not over
    assert len(squeue.asked) == 1
    clock.advance(PERIOD)
    ask.turn()
    assert squeue.asked[1:] == [["/usr/bin/squeue", "--json", "--jobs=3"]]
    assert ask.facts("3") is not None
    clock.advance(PERIOD)
    ask.turn()  # all is known
    assert len(squeue.asked) == 2


def test_a_job_that_slurm_does_not_know_is_not_asked_for_again_at_once(clock: FakeClock) -> None:
    squeue = Squeue()
    ask = asker(squeue, clock)
    for _ in range(REFRESH_PERIODS):
        assert ask.facts("9") is None
        ask.turn()
        clock.advance(PERIOD)
    assert len(squeue.asked) == 1
    ask.facts("9")
    ask.turn()
    assert len(squeue.asked) == 2


def test_an_ended_job_is_an_answer_too(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    squeue = Squeue()
    squeue.error = AskError("ended with 1: slurm_load_jobs error: Invalid job id specified")
    ask = asker(squeue, clock)
    ask.facts("9")
    ask.turn()
    clock.advance(PERIOD)
    ask.turn()
    assert len(squeue.asked) == 1
    assert caplog.records == []


def test_what_is_known_is_refreshed_while_it_is_wanted(clock: FakeClock) -> None:
    squeue = Squeue(1)
    ask = asker(squeue, clock)
    for _ in range(REFRESH_PERIODS + 1):
        ask.facts("1")
        ask.turn()
        clock.advance(PERIOD)
    assert len(squeue.asked) == 2


@pytest.mark.parametrize(("later_ns", "known"), [(KEPT_NS, True), (KEPT_NS + 1, False)])
def test_an_ended_jobs_facts_stay_for_its_last_window_and_no_longer(
    clock: FakeClock, later_ns: int, known: bool
) -> None:
    squeue = Squeue(1)
    ask = asker(squeue, clock)
    ask.facts("1")
    ask.turn()
    clock.advance(later_ns)
    ask.turn()
    assert len(squeue.asked) == 1  # nobody wanted it for long
    assert (ask.facts("1") is not None) == known


def test_failures_are_said_once_and_asked_after_later_and_later(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    squeue = Squeue(1)
    squeue.error = AskError("no answer within 20 s")
    ask = asker(squeue, clock)
    at: list[int] = []
    for second in range(0, 4 * 3600, 60):
        ask.facts("1")
        before = len(squeue.asked)
        ask.turn()
        if len(squeue.asked) > before:
            at.append(second // 60)
        clock.advance(PERIOD)
    assert at[:6] == [0, 2, 6, 14, 30, 62]
    assert {b - a for a, b in pairwise(at[6:])} == {MAX_BACKOFF_PERIODS}
    assert [r.getMessage() for r in caplog.records] == ["/usr/bin/squeue: no answer within 20 s"]
    squeue.error = None
    clock.advance(MAX_BACKOFF_PERIODS * PERIOD)
    ask.facts("1")
    ask.turn()
    assert ask.facts("1") is not None
    assert caplog.records[-1].getMessage() == "/usr/bin/squeue answers again"


def test_an_answer_that_is_none_is_a_failure(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    ask = Asker("/usr/bin/squeue", PERIOD, clock, lambda _: b"no")
    ask.facts("1")
    ask.turn()
    assert "Expecting value" in caplog.text


def test_a_node_has_so_many_jobs(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    squeue = Squeue(1)
    ask = asker(squeue, clock)
    for job in range(1, 10 * MAX_WANTED):
        ask.facts(str(job))
    ask.turn()
    assert squeue.asked[0][2].count(",") == MAX_WANTED - 1
    told = [r.getMessage() for r in caplog.records if "not asked of job" in r.getMessage()]
    assert len(told) == 1  # however many they are
    assert told[0].startswith(f"/usr/bin/squeue: not asked of job {MAX_WANTED + 1} and perhaps others")
    clock.advance((REFRESH_PERIODS + 1) * PERIOD)
    ask.turn()
    for job in range(1, MAX_WANTED + 3):
        ask.facts(str(job))
    assert len([r for r in caplog.records if "not asked of job" in r.getMessage()]) == 2


# ---- the program itself --------------------------------------------------------------------------


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "squeue"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{text}\n")
    path.chmod(0o755)
    return [str(path), "--json"]


def test_what_it_prints(tmp_path: Path) -> None:
    assert run_bounded(script(tmp_path, "print(sys.argv[1:])")) == b"['--json']\n"


def test_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOPMETER_AGENT_STATE", "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    names = run_bounded(script(tmp_path, "print(*(n for n in os.environ if n != 'LC_CTYPE'))")).split()
    assert b"SLURM_CONF" in names
    assert set(names) <= {b"SLURM_CONF", b"PATH", b"LANG"}


def test_a_bad_end(tmp_path: Path) -> None:
    with pytest.raises(AskError, match="ended with 1: slurm_load_jobs error"):
        run_bounded(script(tmp_path, "sys.exit('slurm_load_jobs error: Unable to contact slurm controller')"))
    with pytest.raises(AskError, match="ended with 3: no reason given"):
        run_bounded(script(tmp_path, "sys.exit(3)"))


def test_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(AskError, match="cannot be started: No such file"):
        run_bounded([str(tmp_path / "none")])
    (tmp_path / "text").write_text("")
    with pytest.raises(AskError, match="cannot be started: Permission denied"):
        run_bounded([str(tmp_path / "text")])


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = tmp_path / "squeue"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $$ $! >{pids}\nwait\n")
    program.chmod(0o755)
    with pytest.raises(AskError, match="no answer within 2 s"):
        run_bounded([str(program)], deadline_s=2.0)
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    wait_for("both are gone", lambda: all(map(gone, left)))


def test_one_that_prints_without_end_is_cut(tmp_path: Path) -> None:
    with pytest.raises(AskError, match="printed more than 1000000 bytes"):
        run_bounded(script(tmp_path, "while True: print('x' * 4096)"), limit=1_000_000)


def test_one_that_complains_without_end_is_cut(tmp_path: Path) -> None:
    text = "for _ in range(2_000): print('x' * 4096, file=sys.stderr)\nsys.exit(1)"
    with pytest.raises(AskError, match=r"ended with 1: x{200}$"):
        run_bounded(script(tmp_path, text))
    with subprocess.Popen(script(tmp_path, text), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        _, err = _collect(child, time.monotonic() + 60, 0)
    assert 0 < len(err) < 1 << 17


def test_no_pipe_and_no_child_is_left(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run_bounded(script(tmp_path, "print(1)"))
        with pytest.raises(AskError):
            run_bounded(script(tmp_path, "sys.exit(1)"))
    wait_for(
        "others' descriptors are closed", lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, 20
    )
