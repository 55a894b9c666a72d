"""Each command of our pages that calls kubectl is one that kubectl takes: its own parser reads them all, a server that is
not there answers none. What needs no server is run to its end.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from debian_13 import program

ROOT = Path(__file__).parents[2]
#: A ConfigMap holds no more (Kubernetes: ConfigMaps).
MAX_CONFIG_MAP_BYTES = 1 << 20


def commands() -> list[str]:
    """Whole lines of code blocks, and what stands in back ticks."""
    found = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found += [line for line in block.replace("\\\n", " ").splitlines() if "kubectl " in line]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        found += re.findall(r"`(kubectl [^`]+)`", prose)
    return sorted(set(found))


def calls(command: str) -> list[list[str]]:
    """Of a line of shell, what kubectl is called with."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;<>()"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words[:1] == ["kubectl"]]


CALLS = [call for command in commands() for call in calls(command)]


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a person with a cluster, where nothing listens."""
    home = tmp_path_factory.mktemp("home")
    at = {"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}
    who = {"name": "u", "user": {"token": "t"}}
    chosen = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [at], "users": [who], "contexts": [chosen]}
    (home / "config").write_text(json.dumps(config | {"current-context": "x"}))
    return {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "config")}


def kubectl(environ: dict[str, str], *words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    run = [str(program("kubectl")), *words]
    return subprocess.run(
        run, input=given, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environ, check=False
    )


def test_the_pages_have_some() -> None:
    assert len(CALLS) >= 12


def asked_in_vain(done: "subprocess.CompletedProcess[str]") -> bool:
    return done.returncode == 1 and "connection" in done.stderr and "refused" in done.stderr


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_it_is_one_that_kubectl_takes(call: list[str], environ: dict[str, str]) -> None:
    a_file = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
    words = [word.replace("join-token", "README.md") for word in call[1:]]
    done = kubectl(environ, *words, given=a_file)
    if "--dry-run=client" in call or "--local" in call:  # needs no server
        assert done.returncode == 0, done.stderr
    else:
        assert asked_in_vain(done), done.stderr


def test_what_kubectl_does_not_take_is_seen(environ: dict[str, str]) -> None:
    for wrong in (
        "get --namespase x pods",
        "aply -f deploy/k8s/namespace.yaml",
        "create configmap",
        "label --local pods x=1",
    ):
        assert not asked_in_vain(kubectl(environ, *wrong.split())), wrong


def test_the_dashboards_come_as_a_config_map_that_grafanas_sidecar_finds(environ: dict[str, str]) -> None:
    (line,) = (c for c in commands() if "create configmap flopmeter-dashboards" in c)
    made = ""
    for call in calls(line)[:2]:  # the third applies it
        done = kubectl(environ, *call[1:], given=made)
        assert done.returncode == 0, done.stderr
        made = done.stdout
    found = yaml.safe_load(made)
    files = sorted((ROOT / "deploy/grafana").glob("*.json"))
    assert found["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert found["data"] == {f.name: f.read_text() for f in files}
    assert sum(f.stat().st_size for f in files) < MAX_CONFIG_MAP_BYTES
    assert calls(line)[2] == [
        "kubectl",
        "apply",
        "--server-side",
        "-f",
        "-",
    ]  # else it is kept twice, and too large
