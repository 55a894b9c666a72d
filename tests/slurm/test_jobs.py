"""The real Slurm, the real agent, the real collector; only the driver's library is scripted.

Each job's SM-cycles in the books are those of the script, and every device is in the books once, to the last cycle.
"""

import subprocess
from contextlib import ExitStack

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER
from slurm.books import hmma_by_job, rows, runs, runs_of_job
from slurm.cluster import missing
from slurm.site import Site

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER),
    pytest.mark.e2e,
]


@pytest.mark.parametrize("site", ["a"], indirect=True)
def test_three_jobs_at_once_and_somebody_outside_slurm(site: Site) -> None:
    """Two of sbatch, one of another user's, one of srun, each with other work; and a process that Slurm does not know."""
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    on = f"--nodelist={node.name}"
    first = slurm.sbatch(str(jobs.train), on, "--gres=gpu:1", "-J", "first")
    other = ("--uid=nobody", "--gid=nogroup", "--output=/dev/null", "--chdir=/")
    second = slurm.sbatch(str(jobs.train), on, "--gres=gpu:1", "-J", "second", *other)
    step = slurm.srun(on, "--gres=gpu:1", "-J", "third", str(jobs.train))
    lives = jobs.wait(3)
    third = next(life.job for life in lives if life.job not in (first, second))
    outside = next(n for n in range(node.gpus) if (n,) not in [life.gpus for life in lives])
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stray, ExitStack() as at_last:
        at_last.callback(stray.kill)
        node.hold_by(stray.pid, outside)
        node.wait_held(outside, "process")
        want = {"process": node.work(outside, 3, 30)}
        done = site.work({life: (1 + life.gpus[0] % 3, 20 + 10 * life.gpus[0]) for life in lives})
        want |= {str(life.job): n for life, n in done.items()}
        node.let_go(stray.pid)
    site.finish(lives)
    slurm.wait_until(first, "COMPLETED")
    slurm.wait_until(second, "COMPLETED")
    assert step.wait(60) == 0
    store = site.close_the_books()
    assert hmma_by_job(store) == want
    assert len({run for job in (first, second, third) for run in runs_of_job(store, job)}) == 3
    assert len(runs(store)) == 4


def test_two_jobs_on_one_gpu(site: Site) -> None:
    """The second job's process opens a GPU that Slurm gave to the first: a share each, and the device stays exact."""
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    for name in ("first", "second"):
        slurm.sbatch(str(jobs.train), f"--nodelist={node.name}", "--gres=gpu:1", "-J", name)
    first, second = jobs.wait(2)
    gpu = first.gpus[0]
    alone = site.work({first: (1, 50)})[first]
    node.hold_by(second.pid, gpu)
    node.wait_read()
    both = node.work(gpu, 2, 50)
    node.wait_read(node.ended_ns)
    site.finish([first, second])
    store = site.close_the_books()
    booked = hmma_by_job(store)
    assert sum(booked.values()) == alone + both
    assert booked.keys() == {str(first.job), str(second.job)}
    assert alone < booked[str(first.job)]
    assert booked[str(second.job)] > 0


def test_an_array_of_two(site: Site) -> None:
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    array = slurm.sbatch(
        str(jobs.train), f"--nodelist={node.name}", "--gres=gpu:1", "--array=0-1", "-J", "sweep"
    )
    lives = jobs.wait(2)
    assert len({life.job for life in lives}) == 2, "each task has a number of its own"
    done = site.work({lives[0]: (2, 30), lives[1]: (1, 60)})
    site.wait_one_run(lives)
    site.finish(lives)
    slurm.wait_until(array, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(life.job): n for life, n in done.items()}
    assert len(runs(store)) == 1, [(r.job, r.run) for r in rows(store)]


def test_a_requeued_job_is_one_run(site: Site) -> None:
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    job = slurm.sbatch(str(jobs.train), f"--nodelist={node.name}", "--gres=gpu:1", "--requeue", "-J", "long")
    (before,) = jobs.wait(1)
    cycles = site.work({before: (2, 40)})[before]
    submitted = slurm.job(job)["submit_time"]
    slurm.requeue(job)
    before, after = jobs.wait(2)
    assert (before.restart, after.restart, after.job) == (0, 1, job)
    assert slurm.job(job)["submit_time"] > submitted, "Slurm says that it is a later submission"
    node.let_go(before.pid)
    cycles += site.work({after: (3, 70)})[after]
    site.finish([after])
    slurm.wait_until(job, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(job): cycles}
    assert len(runs(store)) == 1, [(r.job, r.run) for r in rows(store)]


@pytest.mark.parametrize("site", ["ab+"], indirect=True)
def test_a_job_on_two_nodes_is_one_run(site: Site) -> None:
    """Two slurmd, two agents, two chains."""
    slurm, jobs = site.slurm, site.jobs
    job = slurm.sbatch(f"srun {jobs.train}", "--nodes=2", "--ntasks-per-node=1", "--gres=gpu:1", "-J", "big")
    lives = jobs.wait(2)
    assert {life.node for life in lives} == set(slurm.nodes.values())
    done = site.work({lives[0]: (2, 50), lives[1]: (1, 20)})
    site.finish(lives)
    slurm.wait_until(job, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(job): sum(done.values())}
    assert len(runs(store)) == 1, [(r.job, r.run) for r in rows(store)]


@pytest.mark.parametrize(("site", "label"), [("ab+", ""), ("ab", "llama-3")], indirect=["site"])
def test_a_het_job_is_one_run(site: Site, label: str) -> None:
    """Two jobs for Slurm, whose processes all bear the first one's number in their environment."""
    slurm, jobs = site.slurm, site.jobs
    a, b = (f"--nodelist={slurm.nodes[short]}" for short in "ab")
    said = f"--export=ALL,FLOPMETER_RUN={label}"
    step = slurm.srun("--gres=gpu:1", a, said, "-J", "het", ":", "--gres=gpu:1", b, said, str(jobs.train))
    lives = jobs.wait(2)
    assert lives[1].job == lives[0].job + 1
    done = site.work({lives[0]: (2, 50), lives[1]: (1, 20)})
    site.wait_one_run(lives)
    site.finish(lives)
    assert step.wait(60) == 0
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(life.job): n for life, n in done.items()}
    assert len(runs(store)) == 1, [(r.job, r.run) for r in rows(store)]
    assert not label or label in runs(store)
