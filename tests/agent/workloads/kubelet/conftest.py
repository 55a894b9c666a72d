"""A kubelet source without and with an API server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_api_server import FakeApiServer
from kubelet_rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeApiServer]:
    folder = tmp_path / "account"
    folder.mkdir()
    fake = FakeApiServer(folder)
    yield fake
    fake.close()
