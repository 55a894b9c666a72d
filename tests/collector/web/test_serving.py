"""The port of a whole collector: the real process that answers, what the start says, and that no page delays an ack."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from access_rig import Clock
from builders import Chain
from processes import wait_for
from serving import settings_for, stored
from wire_client import WireClient

from flopmeter.collector.access.desk import Desk
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import CollectorError
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.running import run_collector


@pytest.fixture
def clock():
    return Clock()


def asked(running, path, text):
    """(status, body)"""
    headers = {"Authorization": f"Bearer {text}"} if text else {}
    request = urllib.request.Request(f"http://{running.http_address}/api/v1/{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as said:
            return said.status, said.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def children(of=None):
    """Process ids of the children of this process that answer."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == (of or os.getpid()) and b"api.worker" in command:
            found.append(int(entry.name))
    return found


def test_tokens_and_the_log_over_http(tmp_path, clock):
    with run_collector(settings_for(tmp_path), clock) as running:
        desk = Desk(running.store_path, None, clock)
        text, _ = desk.make_api_token(role="auditor", name="ann", lasts_s=0, who="tests")
        bound, _ = desk.make_api_token(role="viewer", name="lab", lasts_s=0, who="tests", tenant="owner:lab")
        assert asked(running, "whoami", "")[0] == 401
        assert json.loads(asked(running, "whoami", text)[1])["role"] == "auditor"
        assert json.loads(asked(running, "whoami", bound)[1])["tenant"] == "owner:lab"
        running.review()  # the tokens' rows are in the log with that commit
        running.seal()
        status, note = asked(running, "log/checkpoint", text)
        assert (status, len(note.split("\n\n"))) == (200, 2)
        assert int(note.split("\n")[1]) >= 2
        assert asked(running, "log/checkpoint", bound)[0] == 403
        assert json.loads(asked(running, "runs", bound)[1])["items"] == []
    assert (
        check_store(tmp_path / "b.db", read_laws(None).binding).difference is None
    )  # rows that name a tenant are good, too


def test_records_are_acknowledged_while_what_answers_is_stopped_and_killed(tmp_path, clock):
    with run_collector(settings_for(tmp_path), clock) as running:
        text, _ = Desk(running.store_path, None, clock).make_api_token(
            role="viewer", name="ann", lasts_s=0, who="tests"
        )
        assert asked(running, "overview", text)[0] == 200
        (pid,) = children()
        os.kill(pid, signal.SIGSTOP)  # hangs
        with WireClient(running.address, chain := Chain("gpu-001")) as client:
            client.hello()
            client.records(chain.next())
            client.ack(1)
            with urllib.request.urlopen(f"http://{running.http_address}/healthz", timeout=60) as said:
                assert said.status == 200
            os.kill(pid, signal.SIGKILL)
            client.records(chain.next())
            client.ack(2)
        wait_for("another answers", lambda: asked(running, "overview", text)[0] == 200)
        assert pid not in children()
        assert stored(running) == [1, 2]
    assert children() == []


def test_the_start_says_where_the_page_is_and_a_kill_leaves_no_process(tmp_path):
    command = [sys.executable, "-P", "-c", MAIN]
    flags = [
        "collector",
        "serve",
        "--store",
        str(tmp_path / "b.db"),
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
    ]
    log = tmp_path / "log"
    with log.open("w") as f:
        served = subprocess.Popen([*command, *flags, "--admit-new"], stderr=f)
    try:
        wait_for("it says where", lambda: "page on http://127.0.0.1:" in log.read_text(), 60)
        url = log.read_text().partition("page on ")[2].split()[0]
        assert url.endswith("/")
        with urllib.request.urlopen(url, timeout=60) as said:
            assert said.headers["Content-Type"].startswith("text/html")
        text, _ = Desk(tmp_path / "b.db", None).make_api_token(
            role="viewer", name="a", lasts_s=0, who="tests"
        )
        request = urllib.request.Request(url + "api/v1/overview", headers={"Authorization": f"Bearer {text}"})
        with urllib.request.urlopen(request, timeout=60) as said:
            assert said.status == 200
        (pid,) = children(served.pid)
        served.kill()
        served.wait()

        def gone():
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            return False

        wait_for("what answered is gone with it", gone)
        assert text not in log.read_text()
    finally:
        served.kill()
        served.wait()


IMPORTED = """
import sys, flopmeter.collector.running
print([m for m in sys.modules if m.split(".")[0] in ("uvicorn", "h11") or m.startswith("flopmeter.collector.web")])
"""
MAIN = "from flopmeter.cli.main import main; main()"


def test_agents_are_listened_for_before_anything_of_the_port_is_imported():
    """A start must not wait for uvicorn."""
    said = subprocess.run(
        [
            sys.executable,
            "-P",
            "-c",
            IMPORTED,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "[]"


def test_nodes_that_must_exist_are_missed_by_the_page(tmp_path, clock):
    nodes = tmp_path / "nodes.toml"
    nodes.write_text('[[node]]\nnames = ["rack-9"]\ngpus = 8\n')
    settings = settings_for(tmp_path, expect=nodes)
    with run_collector(settings, clock) as running:
        desk = Desk(running.store_path, None, clock)
        token, _ = desk.make_api_token(role="auditor", name="ann", lasts_s=0, who="tests")
        status, body = asked(running, "fleet", token)
        assert status == 200, body
        assert "rack-9" in body
    nodes.write_text("[[node]]\n")
    with pytest.raises(CollectorError, match="--expect"), run_collector(settings, clock):
        pass
