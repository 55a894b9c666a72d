"""SIGKILL between every two steps of joining and renewing: the next start ends with one certificate, enrolled once."""

import json
import os
import signal
import subprocess
import sys

import pytest
from fake_authority import Authority, EnrolmentServer

from flopmeter.agent.access.state import load_identity, load_request
from flopmeter.agent.keys import load_or_create_key

#: Runs a step, and kills itself right before the n-th thing that others or a crash could see.
CHILD = """
import http.client, json, os, pathlib, signal, sys
limit, name, values = json.loads(sys.argv[1])
seen = 0
def counted(call):
    def do(*args, **kwargs):
        global seen
        seen += 1
        if seen == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **kwargs)
    return do
os.fsync = counted(os.fsync)
pathlib.Path.replace = counted(pathlib.Path.replace)
pathlib.Path.unlink = counted(pathlib.Path.unlink)
http.client.HTTPSConnection.request = counted(http.client.HTTPSConnection.request)
http.client.HTTPSConnection.getresponse = counted(http.client.HTTPSConnection.getresponse)
from flopmeter.agent.access import step
values["state"] = pathlib.Path(values["state"])
step._STEPS[name](**values)
print(seen)
"""


def run(limit: int, name: str, **values) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([limit, name, values])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.mark.parametrize("name", ["join", "renew-by-key"])
def test_killed_at_every_step_it_has_one_certificate_in_the_end(authority, tmp_path, name):
    killed = 0
    for limit in range(1, 60):
        state = tmp_path / f"state-{limit}"
        load_or_create_key(state)
        server = EnrolmentServer(authority, tmp_path)
        at = {"state": str(state), "host": "127.0.0.1", "port": server.port, "server_name": ""}
        first = {**at, "token": server.token, "node": "n"}
        values = first if name == "join" else at
        try:
            if name != "join":
                assert run(0, "join", **first).returncode == 0
            done = run(limit, name, **values)
            left = sorted(p.name for p in state.iterdir())
            assert all(p.stat().st_mode & 0o077 == 0 for p in state.iterdir()), left
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
            killed += 1
            if name != "join" or load_identity(state) is None:  # as credentials.py asks
                # The renewal may have been whole, but for its end: then this is the next one.
                again = run(0, name, **values)
                assert again.returncode == 0, again.stderr
                assert not list(state.glob("*.tmp")), "keys of the killed start lie about"
        finally:
            server.stop()
        identity, agent = load_identity(state), load_or_create_key(state).agent_id.hex()
        assert server.given[agent][0] == identity.sequence, f"killed before {limit}"
        assert server.given[agent][2].decode() == identity.certificate_pem
        assert load_request(state) is None
        assert identity.sequence == 1 or name != "join"
    assert killed >= 10, "every step was to be met"


def test_a_half_written_file_of_a_killed_write_is_never_read(authority, tmp_path):
    state = tmp_path / "state"
    load_or_create_key(state)
    (state / "tls.json.0123.tmp").write_bytes(b"{")
    os.chmod(state / "tls.json.0123.tmp", 0o600)  # noqa: PTH101
    assert load_identity(state) is None
