"""A port that many tests of a module share, with a process that says back what it was asked."""

import pytest
from edge_rig import edge


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with edge(tmp_path_factory.mktemp("edge")) as rig:
        yield rig
