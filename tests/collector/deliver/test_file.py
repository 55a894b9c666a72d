"""The event log: every event at least once, whole lines, and no harm to anybody when it fails."""

import errno
import json
import os
import sqlite3
import threading
import time

import pytest
from builders import Chain
from desk import Desk
from sinks import file_worker

from flopmeter.collector.deliver.answer import LAST_RETRY_NS
from flopmeter.collector.deliver.file import append_durably
from flopmeter.collector.errors import SinkError
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings

SINK = "event-log"


@pytest.fixture
def store(tmp_path):
    """A store with events: losses of two agents."""
    path = tmp_path / "books.sqlite"
    with Desk(path, shipped(), sinks=(SINK,)) as desk:
        for node in ("n1", "n2", "n3"):
            desk.agent(Chain(node), oldest_seq=5)
        desk.commit()
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def outbox(store):
    with sqlite3.connect(store) as db:
        found = db.execute("SELECT attempts, delivered_unix_ns IS NOT NULL FROM outbox").fetchall()
    db.close()
    return found


def test_every_event_is_a_cloudevent_line_once(store, tmp_path):
    log = file_worker(store, tmp_path / "events.jsonl")
    assert log.deliver() == 3
    assert log.deliver() == 0
    events = lines(tmp_path / "events.jsonl")
    assert [e["type"] for e in events] == ["coverage.lost"] * 3
    assert len({e["id"] for e in events}) == 3
    assert all(e["specversion"] == "1.0" for e in events)
    assert outbox(store) == [(1, 1)] * 3


def test_a_crash_before_the_note_repeats_the_line_with_its_id(store, tmp_path):
    path = tmp_path / "events.jsonl"

    def crash_after(where, data):
        append_durably(where, data)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file_worker(store, path, append=crash_after).deliver()
    assert file_worker(store, path).deliver() == 3
    ids = [e["id"] for e in lines(path)]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("torn", [b'{"specversion":"1.0","id":"abc', b'{"sp'])
def test_a_torn_line_is_cut_and_comes_again_whole(store, tmp_path, torn):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"specversion":"1.0","id":"before"}\n' + torn)
    file_worker(store, path).deliver()
    assert lines(path)[0]["id"] == "before"
    assert len(lines(path)) == 4


def test_what_is_not_ours_in_the_file_is_left(store, tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"a note by the admin")
    file_worker(store, path).deliver()
    first, *rest = path.read_text().splitlines()
    assert first == "a note by the admin"
    assert len([json.loads(line) for line in rest]) == 3


def test_a_full_disk_keeps_the_events_and_leaves_no_half_line(store, tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    real = os.write

    def half_then_full(handle, data):
        if len(data) > 10:
            return real(handle, bytes(data[:10]))
        raise OSError(errno.ENOSPC, "No space left on device")

    chunks = iter([half_then_full, None])

    def full(handle, data):
        step = next(chunks)
        if step is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return step(handle, data)

    monkeypatch.setattr("flopmeter.collector.deliver.file.os.write", full)
    now = [10**18]
    worker = file_worker(store, path, unix_ns=lambda: now[0])
    assert worker.deliver() == 0
    monkeypatch.undo()
    assert path.read_bytes() == b""
    assert outbox(store) == [(1, 0)] * 3
    assert worker.deliver() == 0  # not due yet
    now[0] += LAST_RETRY_NS
    assert worker.deliver() == 3
    assert len(lines(path)) == 3
    assert outbox(store) == [(2, 1)] * 3


def test_a_sink_that_hangs_delays_neither_commits_nor_the_stop_of_others(tmp_path):
    path = tmp_path / "books.sqlite"
    entered, release = threading.Event(), threading.Event()

    def hang(_where, _data):
        entered.set()
        release.wait(30)

    with Desk(path, shipped(), sinks=(SINK,)) as desk:
        desk.agent(Chain("n1"), oldest_seq=5)
        desk.commit()
        log = file_worker(path, tmp_path / "events.jsonl", append=hang)
        log.start()
        assert entered.wait(60)
        desk.agent(Chain("n2"), oldest_seq=5)
        assert len(desk.commit().events) == 1  # no lock is held while the file hangs
        release.set()
        log.ask_to_stop()
        log.join(60)


def test_the_thread_delivers_when_woken_and_after_a_restart(store, tmp_path):
    path = tmp_path / "events.jsonl"
    log = file_worker(store, path)
    log.start()
    log.wake()
    deadline = time.monotonic() + 60
    while not path.exists() or len(lines(path)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log.ask_to_stop()
    log.join(60)
    again = file_worker(store, path)
    again.start()
    again.ask_to_stop()
    again.join(60)
    assert len(lines(path)) == 3


def test_other_sinks_are_not_touched(store, tmp_path):
    assert file_worker(store, tmp_path / "x.jsonl", "another").deliver() == 0
    assert outbox(store) == [(0, 0)] * 3


def test_a_store_that_is_gone_is_an_error_with_a_hint(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(SinkError, match="outbox") as e:
        file_worker(tmp_path / "empty", tmp_path / "x.jsonl").deliver()
    assert e.value.hint


def test_a_running_collector_writes_its_events(tmp_path):
    """From a commit to the file, through the collector's own settings; what was left over comes first."""
    path = tmp_path / "books.sqlite"
    with Desk(path, shipped(), sinks=(SINK,)) as desk:
        desk.agent(Chain("n1"), oldest_seq=5)
        desk.commit()
    settings = CollectorSettings(path, listen="127.0.0.1:0", http="", event_log=tmp_path / "events.jsonl")
    with run_collector(settings):
        pass
    (event,) = lines(tmp_path / "events.jsonl")
    assert event["type"] == "coverage.lost"
    assert outbox(path) == [(1, 1)]
