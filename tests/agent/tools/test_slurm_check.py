"""doctor's word on Slurm's evidence."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from metering import device, facts

from flopmeter.agent.tools.advice import Advice
from flopmeter.agent.tools.cli import doctor
from flopmeter.agent.tools.slurm_check import of_slurm
from flopmeter.agent.workloads.slurm_ask import AskError

A = "GPU-aaaaaaaa-0000-4000-8000-aaaaaaaaaaaa"
NODE = facts(device(entity=A, pci_address="00000000:18:00.0"))


def check(directory: object = "", squeue: str = "", run: object = None) -> list[Advice]:
    return of_slurm(NODE, directory=str(directory), squeue=squeue, run=run)  # type: ignore[arg-type]


def test_nothing_is_set() -> None:
    assert check() == []


def test_a_directory_that_works(tmp_path: Path) -> None:
    (tmp_path / A).write_text("1\n2\n")
    assert check(tmp_path) == [Advice("job mapping: 1 of 1 GPUs given to 2 Slurm jobs")]
    (tmp_path / "7").write_text("1\n")
    assert check(tmp_path)[1:] == [
        Advice(f"job mapping: {tmp_path}/7: no GPU of this node has that index", "see docs/slurm.md")
    ]


def test_a_directory_that_does_not(tmp_path: Path) -> None:
    (missing,) = check(tmp_path / "none")
    assert "is not there: no prolog has written to it" in missing.why
    assert "install the prolog" in missing.change
    tmp_path.chmod(0o777)
    (open_to_all,) = check(tmp_path)
    assert "anybody may write to it" in open_to_all.why
    assert "only root" in open_to_all.change


def answers(said: bytes | Exception) -> object:
    def run(argv: list[str]) -> bytes:
        assert argv == ["/usr/bin/squeue", "--json", "--jobs=1"]
        if isinstance(said, Exception):
            raise said
        return said

    return run


@pytest.mark.parametrize("said", [b'{"jobs": []}', AskError("ended with 1: Invalid job id specified")])
def test_squeue_answers(said: bytes | Exception) -> None:
    assert check(squeue="/usr/bin/squeue", run=answers(said)) == [Advice("/usr/bin/squeue answers")]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (AskError("no answer within 20 s"), "no answer within 20 s"),
        (b"JOBID PARTITION", "--json: Expecting value"),
        (b'{"errors": [{"error": "no munge"}]}', "--json: Slurm says: no munge"),
    ],
)
def test_squeue_does_not_answer(said: bytes | Exception, why: str) -> None:
    (one,) = check(squeue="/usr/bin/squeue", run=answers(said))
    assert why in one.why
    assert one.change


def test_doctor_says_it(tmp_path: Path) -> None:
    words = ["--source", "sim", "--json"]
    plain = CliRunner().invoke(doctor, words)
    where = str(tmp_path / "none")
    told = CliRunner().invoke(doctor, words, env={"FLOPMETER_AGENT_SLURM_JOB_MAPPING_DIR": where})
    findings = json.loads(told.output)["findings"]
    assert [f["why"] for f in findings if "job mapping" in f["why"]] == [
        f"job mapping: {where} is not there: no prolog has written to it since the node started"
    ]
    assert told.exit_code == 1
    (tmp_path / "none").mkdir()
    assert CliRunner().invoke(doctor, [*words, "--slurm-job-mapping-dir", where]).exit_code == plain.exit_code
