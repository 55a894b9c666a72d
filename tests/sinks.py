"""Sinks for tests: workers on a store, driven turn by turn with a clock that moves only when told."""

from pathlib import Path
from typing import Any

from flopmeter.collector.deliver.file import FileSender
from flopmeter.collector.deliver.settings import EVENT_LOG, Jsonl, SinkSettings
from flopmeter.collector.deliver.worker import Worker


def file_worker(store: Path, path: Path, name: str = EVENT_LOG, append: Any = None, **settings: Any) -> Worker:
    """The JSON Lines sink of `name`; `append` stands in for the disk."""
    return Worker(store, SinkSettings(name, Jsonl(path)), FileSender(path, append), **settings)
