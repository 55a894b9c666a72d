"""`flopmeter witness` as a process: made, served, asked, killed, stopped."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import COMMAND
from witness_rig import Log, post

from flopmeter.cli.main import flopmeter
from flopmeter.evidence.note import parse_checkpoint, parse_key, signers
from flopmeter.witness.errors import KeyFileError, StateError, UsageError, WitnessError
from flopmeter.witness.heads import Heads

LOG = Log().grow(8)


def run(*words: object) -> str:
    result = CliRunner().invoke(flopmeter, ["witness", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@contextmanager
def process(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A witness in a process of its own, and its port."""
    words = ["--key", "w.key", "--state", "w.db", "--log", LOG.vkey, "--listen", "127.0.0.1:0", *more]
    with subprocess.Popen(
        [COMMAND, "witness", "serve", *words],
        cwd=folder, stderr=subprocess.PIPE, text=True,
    ) as found:  # fmt: skip
        try:
            assert found.stderr is not None
            for line in found.stderr:
                if match := re.search(r"listening on https?://127\.0\.0\.1:(\d+)", line):
                    break
            else:
                pytest.fail("it did not listen")
            yield found, int(match[1])
        finally:
            found.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run("key", "new", tmp_path / "w.key", "--name", "witness.example/1")
    return tmp_path


def test_a_day_of_a_witness(folder: Path) -> None:
    """Asked, killed with what it cosigned on its lips, asked again; stopped gracefully; shown."""
    vkey = run("key", "show", folder / "w.key").strip()
    with process(folder) as (witness, port):
        answer = post(port, LOG.ask(0, 5))
        assert answer.status == 200
        signers(parse_checkpoint(LOG.sign(LOG.text(5)) + answer.body), [parse_key(vkey)])
        witness.kill()
        witness.wait(60)
    with process(folder) as (witness, port):
        assert post(port, LOG.ask(0)).body == b"5\n"
        fork = LOG.fork(3, b"other")
        assert post(port, fork.ask(5, 5)).status == 422
        witness.send_signal(signal.SIGTERM)
        assert witness.wait(60) == 0
    shown = CliRunner().invoke(flopmeter, ["witness", "show", "--state", str(folder / "w.db"), "--json"])
    assert shown.exit_code == 1  # the state proves a fork
    document = json.loads(shown.output)
    assert [(h["origin"], h["size"]) for h in document["heads"]] == [("log.example/1", "5")]
    assert [(r["size"], r["provesFork"]) for r in document["refused"]] == [("5", True)]
    text = CliRunner().invoke(flopmeter, ["witness", "show", "--state", str(folder / "w.db")])
    assert "FORK" in text.output
    assert max(map(len, text.output.splitlines())) <= 80


def test_show_of_a_state_that_proves_nothing(folder: Path) -> None:
    Heads(folder / "w.db").close()
    assert run("show", "--state", folder / "w.db") == "nothing cosigned yet\n"
    with pytest.raises(StateError, match="there is none"):
        run("show", "--state", folder / "absent.db")
    assert not (folder / "absent.db").exists()


def test_keys_as_json(folder: Path) -> None:
    made = json.loads(run("key", "new", folder / "two.key", "--name", "w.example/2", "--ml-dsa", "--json"))
    assert made == json.loads(run("key", "show", folder / "two.key", "--json"))
    assert [k["type"] for k in made["keys"]] == ["Ed25519", "ML-DSA-44"]


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("--log", "nonsense"), UsageError, "--log"),
        (("--log", LOG.vkey, "--log", LOG.vkey), UsageError, "twice"),
        (("--log", Log("x" * 256).vkey), UsageError, "255"),
        (("--log", LOG.vkey, "--listen", "0.0.0.0:0"), UsageError, "loopback"),
        (("--log", LOG.vkey, "--listen", "127.0.0.1"), UsageError, "HOST:PORT"),
        (("--log", LOG.vkey, "--listen", "127.0.0.1:99999"), UsageError, "HOST:PORT"),
        (("--log", LOG.vkey, "--tls-cert", "x"), UsageError, "both or neither"),
        (("--log", LOG.vkey, "--tls-cert", "x", "--tls-key", "y"), UsageError, "tls-cert"),
        (("--log", LOG.vkey, "--key", "absent.key"), KeyFileError, "absent"),
        (("--log", LOG.vkey, "--listen", "127.0.0.1:1"), WitnessError, "cannot listen"),
    ],
)  # fmt: skip
def test_what_it_cannot_run_with(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    if "127.0.0.1:1" in words and os.geteuid() == 0:
        import socket

        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            words = (*words[:-1], f"127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(error, match=message):
                run("serve", "--key", "w.key", "--state", "w.db", *words)
        return
    with pytest.raises(error, match=message):
        run("serve", "--key", "w.key", "--state", "w.db", *words)


def test_a_witnesss_own_key_is_no_log(folder: Path) -> None:
    vkey = run("key", "show", folder / "w.key").strip()
    with pytest.raises(UsageError, match="of a witness"):
        run("serve", "--key", folder / "w.key", "--state", folder / "w.db", "--log", vkey)


def test_help_teaches_by_examples_that_do_not_break() -> None:
    text = CliRunner().invoke(flopmeter, ["witness", "--help"], terminal_width=80).output
    assert len([line for line in text.splitlines() if line.startswith("      flopmeter witness ")]) == 3


def test_settings_by_environment_and_a_misspelt_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for name, value in {
        "KEY": "absent.key",
        "STATE": "w.db",
        "LOG": f"{LOG.vkey} {Log('b', bytes(32)).vkey}",
    }.items():
        monkeypatch.setenv(f"FLOPMETER_WITNESS_{name}", value)
    monkeypatch.setenv("FLOPMETER_WITNESS_POLICY", "of attest create")
    monkeypatch.setenv(
        "FLOPMETER_WITNESS_PORT", "tcp://10.0.0.1:9844"
    )  # Kubernetes' for a Service of our name
    with pytest.raises(KeyFileError, match="absent"):
        run("serve")
    monkeypatch.setenv("FLOPMETER_WITNESS_STAET", "w.db")
    with pytest.raises(UsageError, match="STAET"):
        run("serve")


def test_it_runs_with_click_and_cryptography_alone() -> None:
    """An auditor installs flopmeter without extras."""
    extras = ("google", "grpc", "nacl", "prometheus_client", "psutil", "pynvml", "rfc3161_client", "rfc8785", "sqlite_utils", "zstandard")  # fmt: skip
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extras!r})); "
        "import flopmeter.witness.cli, flopmeter.witness.running, flopmeter.witness.show; "
        "print(sorted(m for m in sys.modules if m.startswith(('flopmeter.collector', 'flopmeter.agent'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
