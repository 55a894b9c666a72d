"""An empty store, and a key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flopmeter.collector.keys import LogKey
from flopmeter.collector.store.sqlite import SqliteStore


@pytest.fixture(scope="session")
def key() -> LogKey:
    return LogKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "books.sqlite"
    SqliteStore(path).close()
    return path
