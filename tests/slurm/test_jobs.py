"""The real Slurm, the real agent, the real collector; only the driver's library is scripted.

Each job's SM-cycles in the books are those of the script, and every device is in the books once, to the last cycle.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
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
            undo.callback(self.slurm.clear)
            for node in self.nodes.values():
                undo.callback(node.kill)
                node.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *of: object) -> None:
        self._undo.__exit__(*of)  # type: ignore[arg-type]

    def work(self, spells: Mapping[Life, tuple[int, int]]) -> dict[Life, int]:
        """Jobs open their GPUs, and the first of each works for (seconds, percent): its SM-cycles, all metered."""
        for life in spells:
            self.nodes[life.node].hold(life)
        for life in spells:
            self.nodes[life.node].wait_held(life.gpus[0], "slurm", str(life.job))
        done = {life: self.nodes[life.node].work(life.gpus[0], *spell) for life, spell in spells.items()}
        for node in {life.node: self.nodes[life.node] for life in spells}.values():
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
    first = slurm.sbatch(str(jobs.train), on, "--gres=gpu:1", "-J", "first")
    second = slurm.sbatch(str(jobs.train), on, "--gres=gpu:1", "-J", "second")
    step = slurm.srun(on, "--gres=gpu:1", "-J", "third", str(jobs.train))
    lives = jobs.wait(3)
    third = next(life.job for life in lives if life.job not in (first, second))
    outside = next(n for n in range(node.gpus) if (n,) not in [life.gpus for life in lives])
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stray:
        node.hold_by(stray.pid, outside)
        node.wait_held(outside, "process")
        want = {"process": node.work(outside, 3, 30)}
        done = site.work({life: (1 + life.gpus[0] % 3, 20 + 10 * life.gpus[0]) for life in lives})
        want |= {str(life.job): n for life, n in done.items()}
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
        str(jobs.train), f"--nodelist={node.name}", "--gres=gpu:1", "--array=0-1", "-J", "sweep"
    )
    lives = jobs.wait(2)
    assert len({life.job for life in lives}) == 2, "each task has a number of its own"
    done = site.work({lives[0]: (2, 30), lives[1]: (1, 60)})
    site.finish(lives)
    slurm.wait_until(array, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(life.job): n for life, n in done.items()}


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
    assert len(runs(store)) == 1


@pytest.mark.parametrize("site", ["ab"], indirect=True)
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
    assert len(runs(store)) == 1


@pytest.mark.parametrize("site", ["ab"], indirect=True)
def test_the_components_of_a_het_job(site: Site) -> None:
    """Two jobs for Slurm, whose processes all bear the first one's number in their environment."""
    slurm, jobs = site.slurm, site.jobs
    a, b = (f"--nodelist={slurm.nodes[short]}" for short in "ab")
    step = slurm.srun("--gres=gpu:1", a, "-J", "het", ":", "--gres=gpu:1", b, str(jobs.train))
    lives = jobs.wait(2)
    assert lives[1].job == lives[0].job + 1
    done = site.work({lives[0]: (2, 50), lives[1]: (1, 20)})
    site.finish(lives)
    assert step.wait(60) == 0
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(life.job): n for life, n in done.items()}
