"""The Dockerfiles' policy. They are built and run, hardened, by .ci/images."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
INSTRUCTION = re.compile(r"^([A-Z]+)\s+(.*?)$", re.MULTILINE)


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE))
    return INSTRUCTION.findall(text)


def test_both_programs_have_an_image() -> None:
    assert [f.name for f in FILES] == ["agent.Dockerfile", "collector.Dockerfile"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_two_stages_from_a_base_that_can_be_named(path: Path) -> None:
    lines = instructions(path)
    assert lines[0][0] == "ARG"
    assert re.fullmatch(r"BASE=python:3\.\d+-slim-\w+", lines[0][1])
    assert [rest for word, rest in lines if word == "FROM"] == ["${BASE} AS build", "${BASE}"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_nothing_is_fetched_while_building(path: Path) -> None:
    for word, rest in instructions(path):
        if word == "RUN":
            for install in re.findall(r"pip install ([^&]*)", rest):
                assert "--no-index" in install
                assert "--require-hashes" in install or "--no-deps" in install
            assert not re.search(r"\b(curl|wget|apt|apt-get|git)\b", rest)
        assert word != "ADD"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_last_stage_says_who_runs_and_what(path: Path) -> None:
    lines = instructions(path)
    side = path.stem
    last = lines[[i for i, (word, _) in enumerate(lines) if word == "FROM"][-1] :]
    said = dict(last)
    assert said["ENTRYPOINT"] == f'["flopmeter", "{side}"]'
    assert said["USER"] == ("0:0" if side == "agent" else "65532:65532")
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert said["VOLUME"] == f'["/var/lib/flopmeter/{side}"]'
    assert not [rest for word, rest in last if word == "RUN"]


def test_the_collector_asks_for_no_gpu_and_no_image_carries_nvml() -> None:
    texts = {p.stem: p.read_text() for p in FILES}
    assert "NVIDIA_VISIBLE_DEVICES=void" in texts["collector"]
    for path in FILES:
        assert not [r for w, r in instructions(path) if w in ("COPY", "RUN") and "libnvidia" in r]


def test_the_build_script_parses_and_refuses_what_it_does_not_know() -> None:
    script = ROOT / "deploy/docker/build.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    refused = subprocess.run([script, "--no-such"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--base IMAGE" in refused.stderr
    assert "--with parquet collector" in refused.stderr
    refused = subprocess.run([script, "--with", "dev"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "expected otlp, parquet or timestamps, got dev" in refused.stderr
