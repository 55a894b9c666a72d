"""`fsck.json`: what the last fsck came to, beside the store where it may be written, and read as what anybody may have written."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from api_books import asked
from builders import Chain
from click.testing import CliRunner
from duty_books import busy_minute, opened, regime

from flopmeter.collector.check.cli import fsck
from flopmeter.collector.check.outcome import NAME, read_outcome, write_outcome


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "books.sqlite"
    with opened(path, regime()) as desk:
        chain = Chain("gpu-1")
        busy_minute(desk, chain)
        busy_minute(desk, chain)
    return path


def run(path: Path):
    return CliRunner().invoke(fsck, ["--store", str(path)])


def test_a_good_store_leaves_its_outcome_and_the_api_shows_it(store):
    assert asked(store).get("evidence")["fsck"] is None
    assert run(store).exit_code == 0
    found = read_outcome(store)
    assert (found["outcome"], found["position"], found["difference"]) == ("ok", "2", None)
    assert asked(store).get("evidence")["fsck"] == found
    assert sorted(p.name for p in store.parent.iterdir() if p.suffix == ".new") == []
    assert (store.parent / NAME).stat().st_mode & 0o007 == 0


def test_a_difference_is_said_and_replaces_what_was_good(store):
    run(store)
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("UPDATE totals SET hmma_cycles = '1'")
    assert run(store).exit_code == 1
    found = asked(store).get("evidence")["fsck"]
    assert found["outcome"] == "differs"
    assert "totals" in found["difference"]
    assert "hmma_cycles" in found["difference"]


def test_where_it_may_not_be_written_fsck_is_as_good(store, monkeypatch):
    (store.parent / NAME).mkdir()  # whoever it is, a folder is replaced by no file
    assert run(store).exit_code == 0
    assert read_outcome(store) is None
    assert not list(store.parent.glob("*.new"))
    monkeypatch.setattr(os, "open", _denied)
    assert write_outcome(store, {}) is False


def _denied(*_: object) -> int:
    raise PermissionError("no")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 9_000,
        b"\xff\xfe",
        b'{"outcome": "ok"}',
        b'{"outcome": "fine", "time": "t", "position": "1", "version": "1"}',
        b'{"outcome": "ok", "time": 7, "position": "1", "version": "1"}',
        b'{"outcome": "ok", "time": "t", "position": "1", "version": "1", "pad": "' + b"x" * 20_000 + b'"}',
    ],
)
def test_what_somebody_else_left_there_is_no_outcome(store, raw):
    (store.parent / NAME).write_bytes(raw)
    assert asked(store).get("evidence")["fsck"] is None


def test_a_link_and_a_pipe_are_not_followed(store):
    file = store.parent / NAME
    real = store.parent / "real"
    real.write_text(json.dumps({"outcome": "ok", "time": "t", "position": "1", "version": "1"}))
    file.symlink_to(real)
    assert read_outcome(store) is None
    file.unlink()
    os.mkfifo(file)
    assert read_outcome(store) is None  # and does not wait for a writer
    file.unlink()
    file.write_bytes(real.read_bytes())
    assert read_outcome(store)["outcome"] == "ok"
