"""deploy/examples/hold-slurm-job.sh on a real Slurm: jobs that wait are held, and a job that runs goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
from slurm.cluster import Cluster, missing

from flopmeter.collector.deliver.answer import Kind
from flopmeter.collector.deliver.command import CommandSender
from flopmeter.collector.deliver.message import test_message as a_test_message
from flopmeter.collector.deliver.settings import Command, SinkSettings

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.e2e,
]
SCRIPT = Path(__file__).parents[2] / "deploy/examples/hold-slurm-job.sh"


def crossed(run: str):
    test = a_test_message("hold", 1_790_000_000_000_000_000, "")
    return replace(
        test, document={**test.document, "type": "threshold.crossed", "data": {"message": "m", "run": run}}
    )


def test_the_jobs_that_were_written_down_are_held_and_no_other(slurm: Cluster, tmp_path: Path) -> None:
    later = "--begin=now+1hour"
    first, second, named, other = (
        slurm.sbatch("sleep 600", later, "-J", name) for name in ("a", "b", "pretrain-8", "other")
    )
    running = slurm.sbatch("sleep 600", "-J", "running")
    try:
        slurm.wait_until(running, "RUNNING")
        runs = tmp_path / "held-runs"
        runs.write_text(f"llm-7  {first},{second},{running}\nllm-8  jobname=pretrain-8\n")
        target = Command((str(SCRIPT), str(runs)), ("SLURM_CONF",))
        sender = CommandSender(SinkSettings("hold", target), target, slurm.environ)
        for _ in range(2):  # at least once: doing it again changes nothing
            answers = sender.send([crossed("llm-7"), crossed("llm-8"), crossed("another")])
            assert [a.kind for a in answers] == [Kind.DELIVERED] * 3, answers
        held = {
            job["job_id"] for job in slurm.queue() if job["priority"] == 0 and job["job_state"] == "PENDING"
        }
        assert held == {first, second, named}
        assert slurm.states(running) == ["RUNNING"]
        assert slurm.job(other)["priority"] > 0
    finally:
        slurm.clear()
