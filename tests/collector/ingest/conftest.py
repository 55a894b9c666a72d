"""A collector on loopback, and an agent's chain."""

import pytest
from builders import Chain
from serving import NOW, settings_for

from flopmeter.collector.running import run_collector


@pytest.fixture
def running(tmp_path):
    with run_collector(settings_for(tmp_path), lambda: NOW) as running:
        yield running


@pytest.fixture
def chain():
    return Chain("gpu-001")
