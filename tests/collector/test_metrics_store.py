"""What /metrics says of the store's disk."""

import os
from pathlib import Path

from flopmeter.collector.metrics import Counters
from flopmeter.collector.metrics_page import CollectorMetrics


def shown(store: Path) -> dict[str, float]:
    page = CollectorMetrics(Counters(), lambda: 0, lambda: True, store=store)
    return {m.name: s.value for m in page.collect() for s in m.samples if "_store_" in m.name}


def test_the_books_with_their_write_ahead_log_and_what_is_free(tmp_path: Path) -> None:
    store = tmp_path / "books.sqlite"
    store.write_bytes(b"x" * 3_000)
    (tmp_path / "books.sqlite-wal").write_bytes(b"x" * 500)
    disk = os.statvfs(tmp_path)
    found = shown(store)
    assert found["flopmeter_collector_store_bytes"] == 3_500
    assert 0 < found["flopmeter_collector_store_free_bytes"] <= disk.f_blocks * disk.f_frsize


def test_a_store_without_a_write_ahead_log(tmp_path: Path) -> None:
    store = tmp_path / "books.sqlite"
    store.write_bytes(b"x" * 10)
    assert shown(store)["flopmeter_collector_store_bytes"] == 10


def test_a_disk_that_is_gone_is_no_zero(tmp_path: Path) -> None:
    assert shown(tmp_path / "gone/books.sqlite") == {}
