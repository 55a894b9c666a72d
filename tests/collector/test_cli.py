"""`flopmeter collector serve` as a process: start, precedence, signals, errors and their exit codes."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys

import pytest
from builders import Chain
from processes import COMMAND, flopmeter, start, wait_for
from wire_client import WireClient


def served(log):
    """The address that a started collector listens on, once it does."""

    def found():
        text = log.read_text()
        return text.partition("listening on ")[2].partition(",")[0]

    wait_for("listening", found)
    return found()


@pytest.fixture
def serve(tmp_path):
    running = []

    def begin(*more, env=None):
        log = tmp_path / f"log{len(running)}"
        args = ["collector", "serve", "--listen", "127.0.0.1:0", "--http", "", *more]
        if env is None:
            running.append(start(*args, log=log))
        else:
            with log.open("ab") as f:
                running.append(subprocess.Popen([COMMAND, *args], stdout=f, stderr=f, env=env))
        return running[-1], log

    yield begin
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_what_was_taken_and_ends_well(tmp_path, serve, number):
    process, log = serve("--store", tmp_path / "b.db", "--admit-new", "--linger-ms", "50")
    chain = Chain("gpu-001")
    chain.unix_ns = 1_750_000_000_000_000_000  # before any clock of a machine that runs this
    with WireClient(served(log), chain) as client:
        client.hello()
        client.records(chain.next(), chain.next())
        client.ack(2)
        process.send_signal(number)
        assert process.wait(60) == 0
    assert "setting: linger_ms = 50" in log.read_text()
    assert "stopped" in log.read_text()
    connection = sqlite3.connect(tmp_path / "b.db")
    assert connection.execute("SELECT count(*) FROM records").fetchone() == (2,)
    connection.close()


def test_flag_over_environment_over_file_over_default(tmp_path, serve):
    config = tmp_path / "c.toml"
    config.write_text(
        f"[collector]\nstore = '{tmp_path / 'file.db'}'\nlinger-ms = 11\nadmit-new = true\n"
        "[agent]\nwindow = '10s'\n"
    )
    env = os.environ | {
        "FLOPMETER_COLLECTOR_LINGER_MS": "22",
        "FLOPMETER_COLLECTOR_CONFIG": str(config),
    }
    _, log = serve(env=env)
    served(log)
    text = log.read_text()
    assert "setting: linger_ms = 22" in text
    assert "setting: admit_new = True" in text
    assert f"setting: store = {tmp_path / 'file.db'}" in text
    assert "setting: regimes = None" in text
    _, log = serve("--linger-ms", "33", "--store", tmp_path / "flag.db", env=env)
    served(log)
    assert "setting: linger_ms = 33" in log.read_text()


def test_systemd_is_told(tmp_path, serve):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(60)
        process, _ = serve(
            "--store", tmp_path / "b.db", env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        )
        assert s.recv(100).startswith(b"READY=1\nSTATUS=listening on 127.0.0.1:")
        process.terminate()
        assert s.recv(100) == b"STOPPING=1\nSTATUS=committing what was taken"
    assert process.wait(60) == 0


def test_systemds_watchdog_hears_of_it_again_and_again(tmp_path, serve):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "notify"))
        s.settimeout(60)
        asked = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        serve("--store", tmp_path / "b.db", env=os.environ | asked)
        assert s.recv(100).startswith(b"READY=1")
        assert [s.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3


ERRORS = [
    (["--linger-ms", "-5"], 2, "--linger-ms: expected 0 to 10000"),
    (["--listen", "0.0.0.0:0"], 2, "expected a loopback address"),
    (["--no-such-flag"], 2, "No such option"),
    (["--admit", "absent"], 2, "--admit absent: cannot read"),
    (["--config", "absent.toml"], 2, "--config absent.toml: cannot read"),
    (["--regimes", "absent"], 2, "expected a directory that can be read"),
    (["--identity-rules", "absent"], 2, "--identity-rules absent: cannot read"),
    (["--identity-rules", "/dev/null"], 2, "--identity-rules /dev/null: key schema: expected"),
    (["--store", "/proc/b.db"], 3, "cannot open"),
    (["--event-log", "/proc/self/events.jsonl"], 3, "expected a file that events can be added to"),
    (["--event-log", "/proc"], 3, "Hint: name a file in a directory that exists"),
]


@pytest.mark.parametrize(("args", "code", "said"), ERRORS)
def test_errors_say_what_and_exit_by_the_rule(tmp_path, args, code, said):
    store = [] if "--store" in args else ["--store", tmp_path / "b.db"]
    done = flopmeter("collector", "serve", "--http", "", *store, *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_collector_on_the_store_is_refused(tmp_path, serve):
    _, log = serve("--store", tmp_path / "b.db")
    served(log)
    done = flopmeter(
        "collector", "serve", "--listen", "127.0.0.1:0", "--http", "", "--store", tmp_path / "b.db"
    )
    assert done.returncode == 3
    assert "another collector (pid" in done.stderr
    assert "Hint: stop it first" in done.stderr


def test_who_can_be_admitted_is_said_at_start(tmp_path, serve):
    nobody = "no new agent can be admitted (0 are in the books)"
    (tmp_path / "empty").write_text("# none yet\n")
    (tmp_path / "one").write_text(Chain("n").public_key.hex() + " n\n")
    for number, (args, said) in enumerate(
        [
            ((), 1),
            (("--admit", tmp_path / "empty"), 1),
            (("--admit", tmp_path / "one"), 0),
            (("--admit-new",), 0),
        ]
    ):
        _, log = serve("--store", tmp_path / f"{number}.db", *args)
        served(log)
        text = log.read_text()
        assert text.count(nobody) == said
        assert ("--admit-new" in text.partition(nobody)[2]) == bool(said)


def test_a_start_imports_nothing_that_it_does_not_need(tmp_path, serve):
    """Migrations of a store that needs none, estimates that nobody declared: each is a part of a start's time."""
    env = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    _, log = serve("--store", tmp_path / "b.db", env=env)
    served(log)
    modules = {
        line.rpartition("|")[2].strip() for line in log.read_text().splitlines() if "import time:" in line
    }
    assert "flopmeter.collector.ingest.server" in modules
    assert not {"sqlite_utils", "importlib.metadata", "flopmeter.collector.estimate.files"} & modules


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['flopmeter', 'collector', 'serve', '--help']\n"
        "from flopmeter.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'grpc', 'google', 'nacl', 'sqlite_utils', 'prometheus_client', 'asyncio'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Trust" in done.stdout or "trust on first use" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_group_lists_fsck_beside_serve():
    done = flopmeter("collector", "--help")
    assert done.returncode == 0
    assert "serve" in done.stdout
    assert "fsck" in done.stdout


def test_a_directory_is_served_and_read_by_one_name(tmp_path, serve):
    _, log = serve("--store", tmp_path / "books")
    served(log)
    assert (tmp_path / "books/books.sqlite").is_file()
    for named in ("books", "books/books.sqlite"):
        done = flopmeter("fleet", "list", "--json", "--store", tmp_path / named)
        assert done.returncode == 0, done.stderr


def test_serving_and_reading_have_the_same_default():
    for words in (("collector", "serve"), ("collector", "fsck"), ("runs", "list"), ("fleet", "list")):
        assert "default: /var/lib/flopmeter/collector]" in " ".join(
            flopmeter(*words, "--help").stdout.split()
        )
