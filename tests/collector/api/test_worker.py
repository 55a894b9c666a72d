"""The process that answers, as the HTTP port speaks with it: frames in, frames out, in turn, and an end with the pipe."""

import json
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from api_books import api_store, asked
from processes import wait_for

from flopmeter.collector.api import worker
from flopmeter.collector.api.question import Question, answer_of, question_bytes, read_frame
from flopmeter.collector.api.worker import (
    ASKED_PART,
    IDLE_AFTER_S,
    IDLE_PART,
    IDLE_S,
    LOOK_S,
    Pace,
    keep_fresh,
)

COMMAND = (sys.executable, "-P", "-m", "flopmeter.collector.api.worker")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("worker") / "books.sqlite"
    api_store(path)
    return path


@pytest.fixture
def child(path):
    process = subprocess.Popen([*COMMAND, f"--store={path}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    process.stdin.close()
    assert process.wait(60) in (0, 1)
    process.stdout.close()


def ask(process, *segments, **more):
    process.stdin.write(question_bytes(Question("GET", segments, role="admin", who="ada", **more)))
    process.stdin.flush()
    frame = read_frame(process.stdout)
    assert frame is not None
    return answer_of(*frame)


def test_a_history_that_is_played_is_answered_by_its_own_clock(child):
    day_ns = 24 * 3_600_000_000_000
    as_of = json.loads(ask(child, "overview", behind_ns=40 * day_ns).body)["as_of"]
    assert timedelta(days=40) <= datetime.now(UTC) - datetime.fromisoformat(as_of) < timedelta(days=41)


def test_answers_are_those_of_the_same_books_without_a_process(child, path):
    here = asked(path)
    for segments in (("runs", "mine", "curve"), ("events",), ("regimes",)):
        found = json.loads(ask(child, *segments).body)
        expected = here.get(*segments)
        for key in ("cumulative", "times", "items"):
            assert found.get(key) == expected.get(key)
    assert [i["run"] for i in json.loads(ask(child, "runs").body)["items"]]
    assert ask(child, "nope").status == 404
    assert ask(child, "runs", parameters={"limit": "0"}).status == 400


def test_many_questions_at_once_are_answered_in_turn(child):
    for i in range(20):
        child.stdin.write(question_bytes(Question("GET", ("runs",), {"limit": str(i + 1)}, role="viewer")))
    child.stdin.flush()
    for i in range(20):
        body = json.loads(answer_of(*read_frame(child.stdout)).body)
        assert len(body["items"]) == min(i + 1, body["total"])


def test_half_a_frame_ends_it(path):
    done = subprocess.run(
        [*COMMAND, f"--store={path}"], input=b"\0\0\0\x20{", capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stdout == b""
    assert b"Traceback" not in done.stderr


def test_lines_are_made_again_in_the_background(path):
    """A view that is there is answered from, whatever its age; beside it the next one is made."""
    books = asked(path, fresh=False)
    books.get("runs")
    assert books.books.refreshes == 1
    books.clock.now += 60_000_000_000
    books.get("runs")
    assert books.books.refreshes == 1
    stop, pace = threading.Event(), Pace()
    ticks = iter(range(0, 10**6, 1_000))
    thread = threading.Thread(target=keep_fresh, args=(books.books, pace, stop, lambda: float(next(ticks))))
    thread.start()
    try:
        wait_for("a second view", lambda: books.books.refreshes > 1)
    finally:
        stop.set()
        thread.join(60)
    assert books.get("runs")["items"][0]["spark"] is not None


def test_a_store_that_goes_away_ends_no_background(monkeypatch, caplog):
    monkeypatch.setattr(worker, "LOOK_S", 0.001)

    class Broken:
        tries = 0

        def refresh(self):
            self.tries += 1
            raise OSError("gone")

    stop, broken = threading.Event(), Broken()
    ticks = iter(range(0, 10**6, 1_000))
    thread = threading.Thread(target=keep_fresh, args=(broken, Pace(), stop, lambda: float(next(ticks))))
    thread.start()
    wait_for("another try", lambda: broken.tries > 1)
    stop.set()
    thread.join(60)
    assert sum("stay as they are" in m for m in caplog.messages) == 1


def test_what_costs_more_is_made_less_often():
    pace = Pace()
    pace.asked(100.0)
    assert pace.due(100.0)
    pace.made(100.0, 2.0)
    assert not pace.due(100.0 + ASKED_PART * 2.0 - 0.1)
    assert pace.due(100.0 + ASKED_PART * 2.0)
    pace.made(112.0, 0.001)
    assert not pace.due(112.0 + LOOK_S / 2)
    assert pace.due(112.0 + LOOK_S)
    pace.made(200.0, 2.0)
    later = 200.0 + IDLE_AFTER_S
    assert not pace.due(later)
    assert pace.due(200.0 + IDLE_PART * 2.0)
    pace.made(300.0, 0.001)
    assert not pace.due(300.0 + IDLE_S - 1)
