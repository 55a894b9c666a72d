"""The harness itself: whatever happens within, nothing of a cluster is left."""

import re
from pathlib import Path

import pytest
from processes import wait_for
from slurm.cluster import Cluster, missing

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.e2e,
]


def left_of(folder: Path, cluster: Cluster) -> list[str]:
    """Processes that name the folder or sit in its nodes' cgroups, and those cgroups."""
    found = [
        str(p) for name in cluster.nodes.values() for p in Path("/sys/fs/cgroup").glob(f"*/slurm_{name}")
    ]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            cgroup = (entry / "cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(folder).encode() in said or any(
            f"/slurm_{name}/" in cgroup for name in cluster.nodes.values()
        ):
            found.append(said.decode(errors="replace"))
    return found


def test_nothing_is_left_when_a_test_fails_while_jobs_run(folder: Path) -> None:
    cluster = Cluster(folder, {"x": 2})
    with pytest.raises(RuntimeError, match="the test failed"), cluster:
        cluster.sbatch("trap '' TERM; setsid sleep 1000 & sleep 1000", "--gres=gpu:1")
        wait_for("the job left its shell", lambda: sum("sleep" in p for p in left_of(folder, cluster)) > 1)
        assert [what for what in left_of(folder, cluster) if "slurmctld" in what], "it looks at nothing"
        raise RuntimeError("the test failed")
    assert left_of(folder, cluster) == []


def test_without_cgroups(folder: Path) -> None:
    with Cluster(folder, {"x": 1}, cgroups=False) as cluster:
        job = cluster.sbatch("cat /proc/self/cgroup", "--gres=gpu:1")
        cluster.wait_until(job, "COMPLETED")
        said = (folder / f"job-{job}.out").read_text()
        assert said
        assert not re.search(r"/job_\d", said)
        assert set(cluster.node_states().values()) <= {"idle", "completing"}
    assert left_of(folder, cluster) == []
