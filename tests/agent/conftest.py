"""A scripted collector on loopback, for whatever of the agent ships."""

from collections.abc import Iterator

import pytest

from fakes import FakeCollector


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    fake = FakeCollector()
    yield fake
    fake.stop()
