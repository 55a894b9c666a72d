"""The real Slurm, the real agent, the real collector; only the driver's library is scripted.

Each job's SM-cycles in the books are those of the script, and every device is in the books once, to the last cycle.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER
from rig import CollectorProcess
from slurm.books import check_conservation, hmma_by_job, runs, runs_of_job
from slurm.cluster import Cluster, missing
from slurm.metered import Jobs, Life, Node, nodes_of

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER),
    pytest.mark.xdist_group("slurm"),
    pytest.mark.e2e,
]

GPUS = {"a": 4, "b": 2}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm"), GPUS) as cluster:
        yield cluster


class Site:
    """Slurm's nodes with their agents, and a collector."""

    def __init__(self, slurm: Cluster, folder: Path, shorts: str) -> None:
        self.slurm = slurm
        self.jobs = Jobs(folder / "jobs")
        self.collector = CollectorProcess(folder / "books.sqlite")
        gpus = {short: GPUS[short] for short in shorts}
        self.nodes = nodes_of(slurm, folder, self.collector.address, gpus)

    def node(self, short: str = "a") -> Node:
        return self.nodes[self.slurm.nodes[short]]

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self.collector)
            for node in self.nodes.values():
                undo.callback(node.kill)
                node.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *of: object) -> None:
        self._undo.__exit__(*of)  # type: ignore[arg-type]

    def work_of(self, life: Life, seconds: int, hmma_percent: int) -> int:
        """The job opens its GPUs, and its first one works: the SM-cycles, metered."""
        node = self.nodes[life.node]
        node.hold(life)
        node.wait_held(life.gpus[0], "slurm", str(life.job))
        done = node.work(life.gpus[0], seconds, hmma_percent)
        node.wait_read(node.ended_ns)
        return done

    def finish(self, lives: Sequence[Life]) -> None:
        """Jobs close their GPUs, which was seen before they end."""
        for life in lives:
            node = self.nodes[life.node]
            node.let_go(life.pid)
            for gpu in life.gpus:
                node.wait_held(gpu, "idle")
            life.end()

    def close_the_books(self) -> Path:
        """All nodes idle, agents and collector at their end: conservation holds. The store."""
        ran = {}
        for node in self.nodes.values():
            elapsed = node.stop()
            ran.update({node.uuid(gpu): elapsed for gpu in range(node.gpus)})
        self.collector.stop()
        check_conservation(self.collector.store, ran)
        return self.collector.store


@pytest.fixture
def site(slurm: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    with Site(slurm, tmp_path, getattr(request, "param", "a")) as site:
        yield site


def test_three_jobs_at_once_and_somebody_outside_slurm(site: Site) -> None:
    """Two of sbatch, one of srun, each with other work; and a process that Slurm knows nothing of."""
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    on = f"--nodelist={node.name}"
    first = slurm.sbatch(jobs.script(), on, "--gres=gpu:1", "-J", "first")
    second = slurm.sbatch(jobs.script(), on, "--gres=gpu:1", "-J", "second")
    step = slurm.srun(on, "--gres=gpu:1", "-J", "third", "sh", "-c", jobs.script())
    lives = jobs.wait(3)
    third = next(life.job for life in lives if life.job not in (first, second))
    gpu = {life.job: life.gpus[0] for life in lives}
    outside = next(n for n in range(node.gpus) if n not in gpu.values())
    with subprocess.Popen(["sleep", "600"]) as stray:
        for life in lives:
            node.hold(life)
        node.hold_by(stray.pid, outside)
        for life in lives:
            node.wait_held(gpu[life.job], "slurm", str(life.job))
        want = {
            str(first): node.work(gpu[first], 2, 50),
            str(second): node.work(gpu[second], 3, 20),
            str(third): node.work(gpu[third], 1, 80),
            "process": node.work(outside, 2, 30),
        }
        node.wait_read(node.ended_ns)
        node.let_go(stray.pid)
        stray.kill()
    node.wait_held(outside, "idle")
    site.finish(lives)
    slurm.wait_until(first, "COMPLETED")
    slurm.wait_until(second, "COMPLETED")
    assert step.wait(60) == 0
    store = site.close_the_books()
    assert hmma_by_job(store) == want
    assert len({run for job in (first, second, third) for run in runs_of_job(store, job)}) == 3
    assert len(runs(store)) == 4


def test_an_array_of_two(site: Site) -> None:
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    array = slurm.sbatch(
        jobs.script(), f"--nodelist={node.name}", "--gres=gpu:1", "--array=0-1", "-J", "sweep"
    )
    lives = jobs.wait(2)
    assert len({life.job for life in lives}) == 2, "each task has a number of its own"
    want = {
        str(life.job): site.work_of(life, 2, percent) for life, percent in zip(lives, (30, 60), strict=True)
    }
    site.finish(lives)
    slurm.wait_until(array, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == want


def test_a_requeued_job_is_one_run(site: Site) -> None:
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    job = slurm.sbatch(jobs.script(), f"--nodelist={node.name}", "--gres=gpu:1", "--requeue", "-J", "long")
    (before,) = jobs.wait(1)
    cycles = site.work_of(before, 2, 40)
    submitted = slurm.job(job)["submit_time"]
    slurm.requeue(job)
    before, after = jobs.wait(2)
    assert (before.restart, after.restart, after.job) == (0, 1, job)
    assert slurm.job(job)["submit_time"] > submitted, "Slurm says that it is a later submission"
    node.let_go(before.pid)
    cycles += site.work_of(after, 3, 70)
    site.finish([after])
    slurm.wait_until(job, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(job): cycles}
    assert len(runs(store)) == 1


@pytest.mark.parametrize("site", ["ab"], indirect=True)
def test_a_job_on_two_nodes_is_one_run(site: Site) -> None:
    """Two slurmd, two agents, two chains."""
    slurm, jobs = site.slurm, site.jobs
    job = slurm.sbatch(
        f"srun sh -c '{jobs.script()}'", "--nodes=2", "--ntasks-per-node=1", "--gres=gpu:1", "-J", "big"
    )
    lives = jobs.wait(2)
    assert {life.node for life in lives} == set(slurm.nodes.values())
    cycles = [site.work_of(life, 2, percent) for life, percent in zip(lives, (50, 20), strict=True)]
    site.finish(lives)
    slurm.wait_until(job, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(job): sum(cycles)}
    assert len(runs(store)) == 1
