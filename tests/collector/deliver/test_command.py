"""The command sink: bounded, alone, and ended with all that it started."""

import json
import sys
import threading
from pathlib import Path

import pytest
from processes import gone, wait_for

from flopmeter.collector.deliver.answer import MAX_SAID_CHARS, Kind
from flopmeter.collector.deliver.command import CommandSender
from flopmeter.collector.deliver.message import test_message as a_test_message
from flopmeter.collector.deliver.settings import Command, SinkSettings
from flopmeter.collector.errors import SinkError

MESSAGE = a_test_message("c", 1_790_000_000_000_000_000, "")


def run(code, *arguments, timeout_s=60, environment=(), environ=None):
    target = Command((sys.executable, "-I", "-c", code, *map(str, arguments)), environment)
    (answer,) = CommandSender(SinkSettings("c", target, timeout_s=timeout_s), target, environ).send([MESSAGE])
    return answer


def test_the_event_is_on_its_standard_input(tmp_path):
    answer = run("import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())", tmp_path / "got")
    assert answer.kind is Kind.DELIVERED
    assert json.loads((tmp_path / "got").read_bytes()) == MESSAGE.document


def test_its_environment_is_its_own(tmp_path):
    answer = run(
        "import os, sys, json; json.dump({**os.environ, 'cwd': os.getcwd()}, open(sys.argv[1], 'w'))",
        tmp_path / "env",
        environment=("KUBECONFIG", "ABSENT"),
        environ={"KUBECONFIG": "/k", "SECRET": "s", "PATH": "/mine"},
    )
    assert answer.kind is Kind.DELIVERED
    found = json.loads((tmp_path / "env").read_text())
    found.pop("LC_CTYPE", None)  # Python's own
    assert found == {
        "KUBECONFIG": "/k",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "FLOPMETER_EVENT_ID": MESSAGE.id,
        "cwd": "/",
    }


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "ended by signal 11"),
        ("import sys; print('no such job', file=sys.stderr); sys.exit(1)", "exit code 1: no such job"),
        ("import os; os.close(0); raise SystemExit(7)", "exit code 7"),
    ],
)
def test_any_other_end_is_a_failure_with_what_it_said(code, said):
    answer = run(code)
    assert answer.kind is Kind.FAILED
    assert said in answer.said


def test_of_what_it_says_the_end_is_kept():
    answer = run("import sys; sys.stderr.write('x' * 10_000_000 + '\\x1b[31m the end'); sys.exit(1)")
    assert len(answer.said) <= MAX_SAID_CHARS
    assert answer.said.isprintable()
    assert "exit code 1" in answer.said


def test_it_need_not_read_what_it_does_not_want():
    assert run("import os; os.close(0)").kind is Kind.DELIVERED


def started(path: Path) -> int:
    """The process that wrote its number there, once it has."""
    wait_for("it is running", lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{child.pid}\\n")
"""


@pytest.mark.parametrize("ignores", ["", "trap '' TERM"], ids=["obeys", "ignores"])
def test_its_time_is_bounded_and_its_children_end_with_it(tmp_path, ignores):
    script = (
        f'{ignores}\nsleep 600 &\necho $! >"$0"\nwait'  # a shell has done that long before its second is over
    )
    target = Command(("/bin/sh", "-c", script, str(tmp_path / "pid")))
    (answer,) = CommandSender(SinkSettings("c", target, timeout_s=1), target).send([MESSAGE])
    assert answer.kind is Kind.FAILED
    assert "was killed" in answer.said
    wait_for("its child is gone", lambda: gone(started(tmp_path / "pid")))


def test_what_it_leaves_behind_ends_with_it(tmp_path):
    """Also when it was content: a sink does not collect processes. One that holds its standard error keeps nobody."""
    answer = run(CHILD, tmp_path / "pid")
    assert answer.kind is Kind.DELIVERED
    wait_for("its child is gone", lambda: gone(started(tmp_path / "pid")))


@pytest.mark.parametrize("argv", [("/no/such/program",), ("/etc/passwd",), ("/",)])
def test_what_cannot_be_run_is_said_at_the_start_and_tried_again_later(argv):
    sender = CommandSender(SinkSettings("c", Command(argv)), Command(argv))
    with pytest.raises(SinkError, match="expected a program"):
        sender.check()
    (answer,) = sender.send([MESSAGE])
    assert answer.kind is Kind.FAILED
    assert "cannot be run" in answer.said


def test_no_descriptor_is_left(tmp_path):
    run("pass")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        run("import sys; sys.exit(1)")
    wait_for(
        "others' descriptors are closed", lambda: len(list(Path("/proc/self/fd").iterdir())) <= before, 20
    )


def test_when_the_collector_ends_nothing_of_it_runs_on(tmp_path):
    """Else it would run beside the one that the next start gives the same event to."""
    target = Command((sys.executable, "-I", "-c", CHILD + "time.sleep(600)", str(tmp_path / "pid")))
    sender = CommandSender(SinkSettings("c", target, timeout_s=300), target)
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(sender.send([MESSAGE])))
    thread.start()
    child = started(tmp_path / "pid")
    sender.abandon()
    thread.join(60)
    assert [a.kind for a in answers] == [Kind.FAILED]
    wait_for("its child is gone", lambda: gone(child))
    (after,) = sender.send([MESSAGE])
    assert after.kind is Kind.FAILED, "one that was begun meanwhile is ended, too"
