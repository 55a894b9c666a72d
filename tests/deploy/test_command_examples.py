"""The examples for command sinks, run by the sink itself, with scheduler commands that only write down what they are told."""

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from flopmeter.collector.deliver.answer import Kind
from flopmeter.collector.deliver.command import CommandSender
from flopmeter.collector.deliver.message import Message
from flopmeter.collector.deliver.message import test_message as a_test_message
from flopmeter.collector.deliver.settings import Command, SinkSettings

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
HOLD, SUSPEND = "hold-slurm-job.sh", "suspend-kueue-workload.sh"


def event(run: object = "llm-7", kind: str = "threshold.crossed") -> Message:
    test = a_test_message("x", 1_790_000_000_000_000_000, "")
    document = {**test.document, "type": kind, "data": {"message": "m", "run": run}}
    return replace(test, document=document)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """scontrol and kubectl that note their arguments; kubectl finds two jobs with one workload each."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "calls"
    log.touch()
    note = f'#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >>{shlex.quote(str(log))}\necho -- >>{shlex.quote(str(log))}\n'
    (folder / "scontrol").write_text(note + 'exit "${STATUS:-0}"\n')
    (folder / "kubectl").write_text(
        note
        + 'case "$*" in *job-uid=uid-1*) echo workload/a ;; *job-uid=uid-2*) echo workload/b ;; *jsonpath*) echo uid-1; echo uid-2 ;; esac\n'
    )
    for tool in folder.iterdir():
        tool.chmod(0o755)
    monkeypatch.setattr("flopmeter.collector.deliver.command.PATH", f"{folder}:{os.defpath}:/usr/bin:/bin")
    return log


def run(message, name, *arguments, **environ):
    target = Command((str(EXAMPLES / name), *map(str, arguments)), tuple(environ))
    (answer,) = CommandSender(SinkSettings("x", target), target, environ).send([message])
    return answer


def calls(log):
    return [call.split("\n")[:-1] for call in log.read_text().split("--\n")[:-1]]


@pytest.fixture
def held(tmp_path):
    path = tmp_path / "held-runs"
    path.write_text("# mine\nllm-7  4711,4712\nllm-8\tjobname=pretrain-8\n")
    return path


@pytest.mark.parametrize(("name", "jobs"), [("llm-7", "4711,4712"), ("llm-8", "jobname=pretrain-8")])
@pytest.mark.parametrize("kind", ["threshold.crossed", "threshold.forecast"])
def test_the_jobs_of_a_run_are_held(tools, held, name, jobs, kind):
    assert run(event(name, kind), HOLD, held).kind is Kind.DELIVERED
    assert calls(tools) == [["hold", jobs]]


def test_they_are_requeued_only_when_that_is_asked_for(tools, held):
    run(event(), HOLD, held, "requeuehold")
    assert calls(tools) == [["requeuehold", "4711,4712"]]
    assert run(event(), HOLD, held, "cancel").kind is Kind.FAILED
    assert len(calls(tools)) == 1


@pytest.mark.parametrize(
    "message",
    [
        event("another"),
        event("llm-7", "threshold.crossed.acknowledged"),
        event("llm-7", "agent.silent"),
        event(None),
        event(["llm-7"]),
        event("#"),
        event("llm-7 4711"),
        event("llm-7\n4711"),
        event("$(touch /x); `id`"),
        event("-x"),
        event(".*"),
        a_test_message("x", 1, ""),
    ],
    ids=repr,
)
def test_nothing_is_held_that_was_not_written_down(tools, held, message):
    if message.document["data"].get("run") == "#":  # the name of a comment is a name like any other
        held.write_text("llm-7 4711\n")
    assert run(message, HOLD, held).kind is Kind.DELIVERED
    assert calls(tools) == []


def test_a_scheduler_that_does_not_take_it_is_asked_again(tools, held):
    answer = run(event(), HOLD, held, STATUS="1")
    assert answer.kind is Kind.FAILED
    assert "exit code 1" in answer.said


def test_a_list_that_is_gone_is_said(tools, held):
    held.unlink()
    assert run(event(), HOLD, held).kind is Kind.FAILED


def test_the_workloads_of_a_run_are_suspended(tools):
    assert run(event(), SUSPEND, "training", "jobs.batch").kind is Kind.DELIVERED
    found = calls(tools)
    assert found[0][:6] == [
        "--namespace",
        "training",
        "get",
        "jobs.batch",
        "--selector",
        "flopmeter.dev/run=llm-7",
    ]
    patched = [c for c in found if "patch" in c]
    assert [c[3] for c in patched] == ["workload/a", "workload/b"]
    assert {json.loads(c[-1])["spec"]["active"] for c in patched} == {False}


@pytest.mark.parametrize("name", ["", "a b", "x,y", "a=b", "$(id)", "-a", "a" * 64, None, "é"])
def test_what_cannot_be_a_label_selects_nothing(tools, name):
    assert run(event(name), SUSPEND, "training").kind is Kind.DELIVERED
    assert calls(tools) == []


@pytest.mark.parametrize("name", [HOLD, SUSPEND])
def test_they_are_programs_that_shellcheck_takes(name):
    assert os.access(EXAMPLES / name, os.X_OK)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", "--shell=sh", str(EXAMPLES / name)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
