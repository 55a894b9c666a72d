"""`flopmeter agent` as a user meets it: real processes, exit codes, signals."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import free_port

from fakes import FakeCollector
from flopmeter.agent.cli import COMMANDS, agent
from flopmeter.agent.shipping.spool import Spool
from flopmeter.cli.main import flopmeter

FLOPMETER = [sys.executable, "-c", "from flopmeter.cli.main import main; main()"]
WAIT_S = 60.0


def environ(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLOPMETER_", "NOTIFY_", "WATCHDOG_"))}
    return kept | more


def started(*args: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*FLOPMETER, "agent", "run", *args], stderr=subprocess.PIPE, text=True, env=environ(**more)
    )


def refused(*args: str, **more: str) -> tuple[int, str]:
    done = subprocess.run(
        [*FLOPMETER, "agent", "run", *args],
        capture_output=True,
        text=True,
        env=environ(**more),
        timeout=WAIT_S,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


def until_line(child: "subprocess.Popen[str]", pattern: str) -> str:
    assert child.stderr is not None
    seen = []
    for line in child.stderr:
        seen.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError(f"{pattern!r} was never said: {seen}")


def test_every_command_is_listed_and_none_is_imported_by_the_help() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from flopmeter.agent.cli import agent\n"
        "for args in ([ '--help'], ['run', '--help']):\n"
        "    assert CliRunner().invoke(agent, args).exit_code == 0\n"
        "heavy = {'grpc', 'google.protobuf', 'nacl', 'pynvml', 'prometheus_client', 'psutil', 'zstandard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ())
    assert (done.stdout, done.stderr) == ("[]\n", "")
    told = CliRunner().invoke(agent, ["--help"]).output
    assert all(f"  {name} " in told for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_is_there(name: str) -> None:
    done = CliRunner().invoke(flopmeter, ["agent", name, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_the_help_names_each_variable() -> None:
    told = CliRunner().invoke(agent, ["run", "--help"]).output
    for param in agent.get_command(None, "run").params:  # type: ignore[union-attr, arg-type]
        if param.name != "help":
            assert f"FLOPMETER_AGENT_{str(param.name).upper()}" in told


def test_usage_errors_exit_2_and_say_what_to_do(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path))
    code, said = refused(*state, "--source", "nvidia")
    assert code == 2
    assert "expected one of nvml, dcgm:URL, sim, trace:FILE" in said
    code, said = refused(*state, "--collector", "10.0.0.1:9840")
    assert code == 2
    assert "Hint: join with a token" in said
    code, said = refused(*state, FLOPMETER_AGENT_WINDWO="5s")
    assert code == 2
    assert "did you mean 'window'?" in said
    assert refused("--insecure-network")[0] == 2


def test_what_cannot_be_read_exits_3(tmp_path: Path) -> None:
    code, said = refused("--state", str(tmp_path), "--source", "trace:/nonexistent.jsonl")
    assert code == 3
    assert "nonexistent" in said
    (tmp_path / "file").write_text("")
    code, said = refused("--state", str(tmp_path / "file" / "x"), "--source", "sim")
    assert code == 3
    assert "--state" in said


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_seals_ships_and_exits_0(tmp_path: Path, number: int) -> None:
    collector = FakeCollector()
    try:
        child = started("--source", "sim", "--state", str(tmp_path), "--collector", collector.target)
        until_line(child, "connected, sending from record 1")
        child.send_signal(number)
        _, said = child.communicate(timeout=WAIT_S)
        assert child.returncode == 0, said
        assert "Traceback" not in said
        assert collector.head == 1
    finally:
        collector.stop()
    spool = Spool.open(tmp_path / "spool")
    assert (spool.newest_seq, spool.pending) == (1, 0)
    spool.close()


@pytest.mark.e2e
def test_a_collector_out_of_reach_delays_the_stop_for_the_time_set_and_no_more(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{closed.getsockname()[1]}"
        child = started(
            "--source", "sim", "--state", str(tmp_path), "--collector", target, "--stop-timeout", "100ms"
        )
        until_line(child, "next record 1")
        child.terminate()
        _, said = child.communicate(timeout=WAIT_S)
    assert child.returncode == 0, said
    assert "1 records not acknowledged; they stay" in said


@pytest.mark.e2e
def test_a_second_agent_on_the_same_state_exits_3(tmp_path: Path) -> None:
    child = started("--source", "sim", "--state", str(tmp_path))
    until_line(child, "next record 1")
    code, said = refused("--source", "sim", "--state", str(tmp_path))
    assert code == 3
    assert f"in use by process {child.pid}" in said
    child.terminate()
    child.communicate(timeout=WAIT_S)
    assert child.returncode == 0


@pytest.mark.e2e
def test_systemd_hears_of_it_and_metrics_are_served(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(WAIT_S)
        port = free_port()
        child = started(
            *("--source", "sim", "--state", str(tmp_path), "--metrics-address", f"127.0.0.1:{port}"),
            NOTIFY_SOCKET=path,
            WATCHDOG_USEC="1000000",
        )
        said = [server.recv(4096).decode()]
        while not said[-1].startswith("READY=1"):
            said.append(server.recv(4096).decode())
        assert "metering 8 devices" in said[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=WAIT_S) as r:
            assert r.read() == b"ok\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as r:
            assert b"flopmeter_agent_info" in r.read()
        while "WATCHDOG=1" not in said:
            said.append(server.recv(4096).decode())
        child.terminate()
        while not said[-1].startswith("STOPPING=1"):
            said.append(server.recv(4096).decode())
        child.communicate(timeout=WAIT_S)
        assert child.returncode == 0


@pytest.mark.e2e
def test_a_trace_may_be_the_source(tmp_path: Path) -> None:
    head = {
        "format": "flopmeter-trace/1",
        "node": "n",
        "boot_id": "5f0c9a1e-7d3b-4c52-9a7e-2b1d0c4e8f60",
        "driver": "595.58.03",
        "nvml": "13.595.58",
        "devices": [
            {"entity": "GPU-1", "name": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "sm_count": 132}
        ],
    }
    readings = [
        {
            "t_boot_ns": t * 10**9,
            "t_unix_ns": (1_790_000_000 + t) * 10**9,
            "entity": "GPU-1",
            "utilization_gpu_pct": 50,
            "workload": None,
        }
        for t in range(100, 230)
    ]
    trace = tmp_path / "t.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in [head, *readings]))
    code, said = refused("--source", f"trace:{trace}", "--state", str(tmp_path / "s"), "--cluster", "c9")
    assert code == 0, said
    assert "played 130 items: 3 windows sealed" in said
    trace.write_text(trace.read_text() + '{"t_boot_ns":1}\n')
    code, said = refused("--source", f"trace:{trace}", "--state", str(tmp_path / "s"))
    assert code == 3
    assert "line 132" in said
