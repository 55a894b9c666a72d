"""One Slurm for all tests of this folder, and for each test agents and a collector of its own."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from slurm.cluster import Cluster
from slurm.site import GPUS, Site, cluster_with_prolog


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    # pytest's own folders are root's alone, and slurmd starts jobs of other users from below this one.
    with TemporaryDirectory(prefix="slurm-") as folder, cluster_with_prolog(Path(folder), GPUS) as cluster:
        yield cluster


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: slurmd's sockets lie in it, and a socket's path has 107 characters."""
    with TemporaryDirectory(prefix="slurm-") as name:
        yield Path(name)


@pytest.fixture
def site(slurm: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Param: the nodes, by their short names, with a "+" behind for agents that are told by prolog and squeue."""
    wanted: str = getattr(request, "param", "a+")
    with Site(slurm, tmp_path, wanted.rstrip("+"), told=wanted.endswith("+")) as site:
        yield site
