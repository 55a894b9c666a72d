"""deploy/slurm/summaries.sh on a real Slurm without slurmdbd: scontrol says what jobs that run have computed.

With slurmdbd (sacctmgr, ended jobs) it was tried by hand: tests/slurm/README.md.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER
from processes import flopmeter, wait_for
from slurm.cluster import missing
from slurm.site import DEPLOYED, Site

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER),
    pytest.mark.e2e,
]


def comments(site: Site) -> dict[int, str]:
    return {job["job_id"]: job["admin_comment"] for job in site.slurm.queue()}


def line(site: Site, job: str) -> str:
    """What the command says; "flop=0 " while the books do not hold the job."""
    done = flopmeter("runs", "summary", job, "--store", site.collector.store)
    assert done.returncode == 0 or "found none" in done.stderr, done.stderr
    return done.stdout.strip() or "flop=0 "


def write_summaries(site: Site, folder: Path) -> None:
    """As the timer does."""
    conf = folder / "summaries.conf"
    conf.write_text(
        f'CLUSTER={site.slurm.name}\nENDED=no RUNNING=yes RECENT=1h\nPATH="{Path(sys.executable).parent}:{os.environ["PATH"]}"\n'
    )
    store = {"FLOPMETER_STORE": str(site.collector.store)}
    done = subprocess.run(
        [DEPLOYED / "summaries.sh", conf],
        env={**site.slurm.environ, **store}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def wait_counted(site: Site, jobs: Iterable[int]) -> None:
    wait_for(
        "the books have work of each job", lambda: all("flop=0 " not in line(site, str(n)) for n in jobs), 60
    )


def test_tasks_of_an_array_have_their_own_lines_and_others_comments_stay(site: Site, tmp_path: Path) -> None:
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    on = (f"--nodelist={node.name}", "--gres=gpu:1")
    array = slurm.sbatch(str(jobs.train), *on, "--array=0-1", "-J", "sweep")
    noted = slurm.sbatch(str(jobs.train), *on, "-J", "noted")
    lives = jobs.wait(3)
    slurm._command("scontrol", "update", f"JobId={noted}", "AdminComment=JS1:none")
    site.work({lives[0]: (1, 30), lives[1]: (2, 60), lives[2]: (1, 10)})
    numbers = [life.job for life in lives]
    wait_counted(site, [n for n in numbers if n != noted])
    for _ in range(2):  # again it says the same
        write_summaries(site, tmp_path)
        found = comments(site)
    tasks = [n for n in numbers if n != noted]
    assert array in tasks
    assert all(found[n].startswith(f"flopmeter/1 job={n} flop=") for n in tasks), found
    assert found[noted] == "JS1:none"
    assert slurm.states(array) == ["RUNNING", "RUNNING"]
    site.finish(lives)
    slurm.wait_until(array, "COMPLETED")
    slurm.wait_until(noted, "COMPLETED")


@pytest.mark.parametrize("site", ["ab"], indirect=True)
def test_components_of_a_het_job_and_the_lives_of_a_requeued_one(site: Site, tmp_path: Path) -> None:
    slurm, jobs = site.slurm, site.jobs
    a, b = (f"--nodelist={slurm.nodes[short]}" for short in "ab")
    step = slurm.srun("--gres=gpu:1", a, "-J", "het", ":", "--gres=gpu:1", b, str(jobs.train))
    again = slurm.sbatch(str(jobs.train), a, "--gres=gpu:1", "--requeue", "-J", "long")
    lives = jobs.wait(3)
    site.work(dict.fromkeys(lives, (1, 40)))
    wait_counted(site, [life.job for life in lives])
    write_summaries(site, tmp_path)
    found = comments(site)
    for life in lives:
        assert found[life.job].startswith(f"flopmeter/1 job={life.job} flop="), found
    before = next(life for life in lives if life.job == again)
    site.node().let_go(before.pid)
    slurm.requeue(again)
    (after,) = [life for life in jobs.wait(4) if life.restart == 1]
    assert comments(site)[again] == found[again], "slurmctld keeps it over a requeue"
    site.work({after: (2, 80)})
    wait_for("the books have both lives", lambda: line(site, str(again)) != found[again], 60)
    write_summaries(site, tmp_path)
    assert comments(site)[again] != found[again]
    assert comments(site)[again].startswith(f"flopmeter/1 job={again} flop=")
    site.finish([*(life for life in lives if life.job != again), after])
    assert step.wait(60) == 0
    slurm.wait_until(again, "COMPLETED")
