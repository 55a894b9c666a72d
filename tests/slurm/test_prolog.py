"""deploy/slurm's prolog and epilog, run by a real slurmd."""

from contextlib import suppress
from pathlib import Path

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER
from processes import wait_for
from slurm.books import held, hmma_by_job
from slurm.cluster import Cluster, missing
from slurm.metered import SECOND, uuid_of
from slurm.site import GPUS, Site, cluster_with_prolog, mapping, write_conf

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER),
    pytest.mark.e2e,
]


def said(directory: Path, name: str = "GPU-*") -> dict[str, str]:
    """File -> content, of those that name a GPU by its UUID; by index: `[0-9]*`."""
    found = {}
    for file in directory.glob(name):
        with suppress(FileNotFoundError):  # the epilog was quicker
            found[file.name] = file.read_text()
    return found


def test_where_the_driver_shows_the_gpus(slurm: Cluster, tmp_path: Path) -> None:
    """One job on all of node b, whose prolog finds the UUIDs itself, and writes dcgm-exporter's names, too."""
    name = slurm.nodes["b"]
    directory = mapping(slurm.folder, name)
    job = slurm.sbatch("sleep 600", f"--nodelist={name}", "--gres=gpu:2", f"--output={tmp_path}/out")
    want = {uuid_of(name, gpu): f"{job}\n" for gpu in range(2)}
    wait_for("the prolog wrote it down", lambda: said(directory) == want)
    wait_for("and by index", lambda: said(directory, "[0-9]*") == {"0": f"{job}\n", "1": f"{job}\n"})
    slurm.cancel(job)
    wait_for("the epilog took it away", lambda: said(directory) == said(directory, "[0-9]*") == {})


def test_files_name_the_job_of_each_gpu_while_it_has_it(site: Site) -> None:
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    directory = mapping(slurm.folder, node.name)
    one = slurm.sbatch(str(jobs.train), f"--nodelist={node.name}", "--gres=gpu:1")
    (first,) = jobs.wait(1)
    two = slurm.sbatch(str(jobs.train), f"--nodelist={node.name}", "--gres=gpu:2")
    second = next(life for life in jobs.wait(2) if life.job == two)
    want = {node.uuid(gpu): f"{life.job}\n" for life in (first, second) for gpu in life.gpus}
    assert len(want) == 3
    assert said(directory) == want
    first.end()
    slurm.wait_until(one, "COMPLETED")
    wait_for("the epilog took the first away", lambda: len(said(directory)) == 2)
    assert set(said(directory).values()) == {f"{two}\n"}
    second.end()
    slurm.wait_until(two, "COMPLETED")
    wait_for("the epilog took the second away", lambda: said(directory) == {})


def test_an_allocated_gpu_that_idles_belongs_to_the_job(site: Site) -> None:
    """Two GPUs, one of which no process ever opens."""
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    job = slurm.sbatch(str(jobs.train), f"--nodelist={node.name}", "--gres=gpu:2")
    (life,) = jobs.wait(1)
    busy, spare = life.gpus
    for gpu in life.gpus:
        node.wait_held(gpu, "slurm", str(job))
    node.hold_by(life.pid, busy)
    done = node.work(busy, 3, 50)
    node.wait_read(node.ended_ns)
    site.finish([life])
    slurm.wait_until(job, "COMPLETED")
    store = site.close_the_books()
    assert hmma_by_job(store) == {str(job): done}
    assert held(store, node.uuid(spare))[f"slurm {job}"] >= 3 * SECOND
    assert held(store, node.uuid(spare))["idle"] > 0, "before and after it was nobody's"
    free = next(gpu for gpu in range(node.gpus) if gpu not in life.gpus)
    assert held(store, node.uuid(free)).keys() == {"idle"}


def test_where_no_cgroup_names_a_job_the_prolog_does(folder: Path) -> None:
    """proctrack/linuxproc: the process is of no scheduler, and the GPU was given to the job."""
    with (
        cluster_with_prolog(folder, {"a": 1}, cgroups=False) as slurm,
        Site(slurm, folder / "site", "a", told=True) as site,
    ):
        job = slurm.sbatch(str(site.jobs.train), "--gres=gpu:1")
        (life,) = site.jobs.wait(1)
        done = site.work({life: (1, 50)})[life]
        site.finish([life])
        slurm.wait_until(job, "COMPLETED")
        store = site.close_the_books()
    assert hmma_by_job(store) == {str(job): done}


def test_a_prolog_that_can_do_nothing_neither_drains_the_node_nor_hinders_the_job(slurm: Cluster) -> None:
    in_the_way = slurm.folder / "in-the-way"
    in_the_way.write_text("a file")
    try:
        write_conf(slurm, GPUS, f"{in_the_way}/mapping")
        job = slurm.sbatch("sleep 0", "--gres=gpu:1")
        slurm.wait_until(job, "COMPLETED")
        wait_for("no node is completing", lambda: set(slurm.node_states().values()) == {"idle"}, 60)
    finally:
        write_conf(slurm, GPUS)


def test_what_a_failing_prolog_would_do(folder: Path) -> None:
    """So that the test above shows something: this Slurm does drain the node of a prolog that fails."""
    prolog = folder / "fails.sh"
    prolog.write_text("#!/bin/sh\nexit 1\n")
    prolog.chmod(0o755)
    with Cluster(folder, {"x": 1}, prolog=prolog) as cluster:
        cluster.sbatch("sleep 0", "--gres=gpu:1")
        wait_for("the node is drained", lambda: "drained" in cluster.node_states().values(), 60)
