"""deploy/slurm/summaries.sh on a real Slurm without slurmdbd: scontrol says what jobs that run have computed.

With slurmdbd (sacctmgr, ended jobs) it was tried by hand: tests/slurm/README.md.
"""

import os
import subprocess
from pathlib import Path

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER
from processes import flopmeter, wait_for
from slurm.cluster import missing
from slurm.site import DEPLOYED, Site

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER),
    pytest.mark.xdist_group("slurm"),
    pytest.mark.e2e,
]


def comments(site: Site) -> dict[int, str]:
    return {job["job_id"]: job["admin_comment"] for job in site.slurm.queue()}


def line(site: Site, job: str) -> str:
    done = flopmeter("runs", "summary", job, "--store", site.collector.store)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_tasks_of_an_array_have_their_own_lines_and_others_comments_stay(site: Site, tmp_path: Path) -> None:
    slurm, jobs, node = site.slurm, site.jobs, site.node()
    on = (f"--nodelist={node.name}", "--gres=gpu:1")
    array = slurm.sbatch(str(jobs.train), *on, "--array=0-1", "-J", "sweep")
    noted = slurm.sbatch(str(jobs.train), *on, "-J", "noted")
    lives = jobs.wait(3)
    slurm._command("scontrol", "update", f"JobId={noted}", "AdminComment=JS1:none")
    site.work({lives[0]: (1, 30), lives[1]: (2, 60), lives[2]: (1, 10)})
    numbers = [life.job for life in lives]
    wait_for(
        "the books have all three",
        lambda: all("flop=0 " not in line(site, str(n)) for n in numbers if n != noted),
        60,
    )
    conf = tmp_path / "summaries.conf"
    conf.write_text(f'CLUSTER={slurm.name}\nENDED=no RUNNING=yes RECENT=1h\nPATH="{os.environ["PATH"]}"\n')
    store = {"FLOPMETER_STORE": str(site.collector.store)}
    for _ in range(2):  # again it says the same
        done = subprocess.run(
            [DEPLOYED / "summaries.sh", conf],
            env={**slurm.environ, **store}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = comments(site)
    tasks = [n for n in numbers if n != noted]
    assert array in tasks
    assert all(found[n].startswith(f"flopmeter/1 job={n} flop=") for n in tasks), found
    assert found[noted] == "JS1:none"
    assert slurm.states(array) == ["RUNNING", "RUNNING"]
    site.finish(lives)
    slurm.wait_until(array, "COMPLETED")
    slurm.wait_until(noted, "COMPLETED")
