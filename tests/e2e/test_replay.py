"""`flopmeter replay`: real processes, good traces and bad ones, its own collector and a named one."""

import json
import signal
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trace_lines
from books_dump import dump
from processes import COMMAND, flopmeter, serving, start, wait_for
from trace_lines import entity, header, hmma_cycles, reading, steady, write

pytestmark = pytest.mark.e2e


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write(tmp_path / "small.jsonl", steady(150))


def replayed(*args: str | Path) -> dict[str, Any]:
    done = flopmeter("replay", *args, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document.keys() == {"runs", "events", "fleet"}
    return document


def small(document: dict[str, Any]) -> dict[str, Any]:
    (run,) = document["runs"]
    assert run["run"] == "small"
    return run


def test_totals_are_those_put_in(trace: Path) -> None:
    run = small(replayed(trace))
    assert int(run["by_pipe"]["hmma"]["sm_cycles"]) == 2 * hmma_cycles(150)
    assert int(run["executed"]["flop"]["point"]) == 2 * hmma_cycles(150) * 4096
    assert run["coverage"]["observed_device_seconds"] == 300
    assert run["coverage"]["gap_device_seconds"] == 0
    assert run["energy_joules"] == 2 * 150 * 600


@pytest.mark.parametrize("window", ["1s", "7s", "60s", "1h"])
def test_the_window_does_not_change_the_total(trace: Path, window: str) -> None:
    run = small(replayed(trace, "--window", window))
    assert int(run["by_pipe"]["hmma"]["sm_cycles"]) == 2 * hmma_cycles(150)


def test_for_people(trace: Path) -> None:
    done = flopmeter("replay", trace)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert "small" in done.stdout
    assert "302 readings in" in done.stdout
    assert "3 signed batches" in done.stdout
    assert done.stderr.splitlines()[-1] == "replaying small.jsonl: 302 of 302 readings"


def test_nothing_is_left_behind(trace: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = flopmeter("replay", trace, environ={"TMPDIR": str(temporary)})
    assert done.returncode == 0
    assert list(temporary.iterdir()) == []


def test_an_idle_trace_has_no_run(tmp_path: Path) -> None:
    lines = [reading(gpu, second, workload=None) for second in range(90) for gpu in range(2)]
    path = write(tmp_path / "idle.jsonl", lines)
    document = replayed(path)
    assert document["runs"] == []
    assert document["fleet"]["idle_device_seconds"] == 2 * 89
    assert "No run in" in flopmeter("replay", path).stdout


def test_a_trace_that_ends_in_failed_reads_ends_in_a_gap(tmp_path: Path) -> None:
    """Time without a usable reading is in the books, also where nothing follows that would close it."""
    lines = steady(100)
    for second in range(101, 111):
        for gpu in range(2):
            failed = {k: reading(gpu, second)[k] for k in ("t_boot_ns", "t_unix_ns", "entity")}
            lines.append(failed | {"error": "NVML_ERROR_GPU_IS_LOST"})
    document = replayed(write(tmp_path / "lost.jsonl", lines))
    run = small(document)
    assert int(run["by_pipe"]["hmma"]["sm_cycles"]) == 2 * hmma_cycles(100)
    assert document["fleet"]["device_seconds"] == 2 * 110
    gap = run["coverage"]["gap_device_seconds"] + document["fleet"]["unattributed_device_seconds"]
    assert gap == 2 * 10


def _cut(line: dict[str, Any]) -> str:
    return json.dumps(line)[:-30]


BAD = {
    "not json": ([*steady(3), {}], "expected", 10),
    "unknown entity": ([*steady(3), reading(0, 4) | {"entity": "GPU-feed"}], "among the node's devices", 10),
    "time goes back": ([*steady(3), reading(0, 2)], "t_boot_ns", 10),
    "no time": ([*steady(3), {"entity": entity(0)}], "t_boot_ns", 10),
    "time as text": ([*steady(3), reading(0, 4) | {"t_boot_ns": "soon"}], "t_boot_ns", 10),
    "unknown event": ([*steady(3), {"t_boot_ns": 10**15, "t_unix_ns": 1, "event": "party"}], "event", 10),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named(tmp_path: Path, name: str) -> None:
    lines, word, number = BAD[name]
    path = write(tmp_path / "bad.jsonl", lines)
    if name == "not json":
        path.write_text(
            path.read_text().replace("{}\n", '{"t_boot_ns": \n') + json.dumps(reading(0, 9)) + "\n"
        )
    done = flopmeter("replay", path, "--json")
    assert done.returncode == 3, done.stdout
    assert done.stdout == ""
    assert f"line {number}" in done.stderr
    assert word in done.stderr
    assert "Hint:" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_trace(tmp_path: Path) -> None:
    for name, content in (("empty", b""), ("words", b"hello\n"), ("other", b'{"format":"other/1"}\n')):
        path = tmp_path / name
        path.write_bytes(content)
        done = flopmeter("replay", path)
        assert done.returncode == 3
        assert "line 1" in done.stderr
    done = flopmeter("replay", tmp_path / "absent")
    assert done.returncode == 3
    assert "absent" in done.stderr


def test_a_half_written_last_line_is_dropped_and_told(tmp_path: Path) -> None:
    path = write(tmp_path / "torn.jsonl", steady(100), tail=_cut(reading(0, 101)))
    done = flopmeter("replay", path, "--json")
    assert done.returncode == 0
    assert "half-written line" in done.stderr
    run = small(json.loads(done.stdout))
    assert int(run["by_pipe"]["hmma"]["sm_cycles"]) == 2 * hmma_cycles(100)


def test_nobody_listens(trace: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
        done = flopmeter("replay", trace, "--collector", address)
    assert done.returncode == 3
    assert address in done.stderr
    assert "flopmeter collector serve" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:0", "192.0.2.1:9840"])
def test_an_address_that_cannot_be_one(trace: Path, address: str) -> None:
    done = flopmeter("replay", trace, "--collector", address)
    assert done.returncode == 2
    assert "collector" in done.stderr


def test_a_collector_that_does_not_admit_us(trace: Path, tmp_path: Path) -> None:
    with serving(tmp_path) as (address, _):
        done = flopmeter("replay", trace, "--collector", address)
    assert done.returncode == 3
    assert "unknown agent" in done.stderr
    assert "--admit-new" in done.stderr


def test_into_a_named_collector(trace: Path, tmp_path: Path) -> None:
    """Its books equal those of a replay's own collector; what is printed are this trace's totals."""
    with serving(tmp_path, "--admit-new") as (address, store):
        printed = replayed(trace, "--collector", address, "--state", tmp_path / "state")
    assert int(small(printed)["by_pipe"]["hmma"]["sm_cycles"]) == 2 * hmma_cycles(150)
    assert dump(store) == dump(tmp_path / "state/collector/books.sqlite")
    assert "|small|" in dump(store)


def test_cut_short_it_goes_on_and_counts_nothing_twice(tmp_path: Path) -> None:
    """Killed several times with the same --state, it ends with the books of one that was left alone."""
    path = write(tmp_path / "long.jsonl", steady(1500))
    calm, state = tmp_path / "calm", tmp_path / "state"
    replayed(path, "--state", calm, "--window", "5s")
    store = state / "collector/books.sqlite"
    for records in (1, 60, 150):
        process = start("replay", path, "--state", state, "--window", "5s", log=tmp_path / "log")
        wait_for(f"{records} records", partial(_has_records, store, records))
        process.kill()
        process.wait()
    replayed(path, "--state", state, "--window", "5s")
    # The same trace, another key: only the agent's id may differ.
    assert _without_agents(dump(state / "collector/books.sqlite")) == _without_agents(
        dump(calm / "collector/books.sqlite")
    )


def _has_records(store: Path, count: int) -> bool:
    return _records(store) >= count


def _records(store: Path) -> int:
    import sqlite3

    if not store.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
            return int(db.execute("SELECT count(*) FROM records").fetchone()[0])
    except sqlite3.Error:  # not made yet, or busy
        return 0


def _without_agents(text: str) -> str:
    before, _, lines = text.partition("[heads]\n")
    return before + "\n".join(line.partition("|")[2] for line in lines.splitlines())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_clean(tmp_path: Path, number: int) -> None:
    path = write(tmp_path / "long.jsonl", steady(60_000))  # seconds of work: the signal comes in the middle
    env_tmp = tmp_path / "tmp"
    env_tmp.mkdir()
    process = subprocess.Popen(
        ["env", f"TMPDIR={env_tmp}", str(COMMAND), "replay", str(path), "--window", "2s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for("it has begun", lambda: any(env_tmp.glob("*/collector/books.sqlite")))
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert list(env_tmp.iterdir()) == []


def test_a_state_that_cannot_be_made(trace: Path) -> None:
    done = flopmeter("replay", trace, "--state", "/proc/flopmeter")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "Hint:" in done.stderr


def test_two_replays_on_one_state_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "long.jsonl", steady(60_000))
    state = tmp_path / "state"
    first = start("replay", path, "--state", state, "--window", "2s", log=tmp_path / "log")
    try:
        lock = state / "collector/books.sqlite"
        wait_for("the first has begun", lock.exists)
        second = flopmeter("replay", path, "--state", state)
        assert first.poll() is None, "the first ended too early to be in the way"
        assert second.returncode == 3
        assert "Traceback" not in second.stderr
    finally:
        first.kill()
        first.wait()


def test_the_header_helper_matches_the_format(tmp_path: Path) -> None:
    """The hand-written traces of these tests are accepted as they stand."""
    from flopmeter.agent.sources.trace import TraceFile

    path = write(tmp_path / "t.jsonl", steady(2), first=header())
    file = TraceFile(path)
    assert len(list(file.items())) == 6
    assert not file.refused
    file.close()
    assert file.facts().devices[0].sm_count == trace_lines.SMS
    assert time.time_ns() > trace_lines.UNIX_NS
