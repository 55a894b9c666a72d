"""A desk with its own authority, a clock that is moved by hand, and a node that wants to join."""

import pytest
from access_rig import Clock, Node, desk_at
from builders import Chain


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def desk(tmp_path, clock):
    return desk_at(tmp_path, clock)


@pytest.fixture
def node():
    return Node(Chain("gpu-001"))


@pytest.fixture
def store(tmp_path):
    return tmp_path / "b.db"
