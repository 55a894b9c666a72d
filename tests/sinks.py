"""Sinks for tests: workers on a store, driven turn by turn with a clock that moves only when told."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builders import Chain
from desk import Desk

from flopmeter.collector.deliver.answer import Answer, delivered
from flopmeter.collector.deliver.file import FileSender
from flopmeter.collector.deliver.message import Message
from flopmeter.collector.deliver.settings import EVENT_LOG, Jsonl, SinkSettings
from flopmeter.collector.deliver.worker import Worker
from flopmeter.collector.duty.answers import EVENT, State, answer_row
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.store.answers import SqliteAnswers


def file_worker(
    store: Path, path: Path, name: str = EVENT_LOG, append: Any = None, **settings: Any
) -> Worker:
    """The JSON Lines sink of `name`; `append` stands in for the disk."""
    return Worker(store, SinkSettings(name, Jsonl(path)), FileSender(path, append), **settings)


@dataclass
class FakeClock:
    """Nanoseconds that move only when told."""

    now_ns: int = 1_790_000_000_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1_000_000_000)


@dataclass
class FakeSender:
    """Answers as `script` says for each message, in turn; delivers when there is nothing left of it."""

    limit: int = 1
    script: list[Any] = field(default_factory=list)
    got: list[Message] = field(default_factory=list)  # all that it was handed, delivered or not

    def check(self) -> None: ...

    def send(self, messages: Sequence[Message]) -> list[Answer]:
        answers = []
        for message in messages:
            self.got.append(message)
            step = self.script.pop(0) if self.script else delivered()
            found = step(message) if callable(step) else step
            if isinstance(found, BaseException):
                raise found
            answers.append(found)
        return answers


def worker_of(store: Path, sender: Any, clock: Any, target: Any = None, **settings: Any) -> Worker:
    """A worker of sink "pager", whose retries wait as long as they may."""
    sink = SinkSettings("pager", target or Jsonl(Path("unused")), **settings)
    return Worker(store, sink, sender, unix_ns=clock, pick=lambda n: n - 1)


def store_with_events(
    path: Path, nodes: Sequence[str] = ("n1", "n2", "n3"), sinks: tuple[str, ...] = ("pager",)
) -> Path:
    """A store with one lost stretch of each node's records."""
    with Desk(path, shipped(), sinks=sinks) as desk:
        for node in nodes:
            desk.agent(Chain(node), oldest_seq=5)
        desk.commit()
    return path


def outbox_rows(
    store: Path,
    columns: str = "event_no, answer_no, attempts, delivered_unix_ns IS NOT NULL, dead_unix_ns IS NOT NULL",
) -> list[Any]:
    with closing(sqlite3.connect(store)) as db:
        return db.execute(f"SELECT {columns} FROM outbox ORDER BY event_no, sink, answer_no").fetchall()


def answer(
    store: Path,
    event_no: int,
    state: State,
    *,
    who: str = "alice",
    why: str = "seen",
    unix_ns: int = 1_790_000_100_000_000_000,
    about: str = EVENT,
) -> None:
    """A person answers an event, while a collector may be running."""
    with SqliteAnswers(store) as answers:
        answers.append(
            lambda _, last: answer_row(last, about, event_no, state, who=who, why=why, unix_ns=unix_ns)
        )
