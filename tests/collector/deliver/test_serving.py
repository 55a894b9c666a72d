"""`collector serve --sinks` as a process: sinks beside each other, one that hangs, kill -9, metrics."""

import contextlib
import json
import re
import signal
import sqlite3
import time
import urllib.request
from collections import Counter
from contextlib import closing

import pytest
from builders import Chain
from processes import gone, start, wait_for
from receivers import Receiver, Reply, raw_server
from sinks import answer, outbox_rows, store_with_events
from wire_client import WireClient

from flopmeter.collector.duty.answers import State

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text(SECRET + "\n")
    return tmp_path


def sink_file(folder, *sinks):
    path = folder / "sinks.toml"
    path.write_text(
        "".join("[[sinks]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in s.items()) for s in sinks)
    )
    return path


def hook(folder, name, url, **more):
    return {"name": name, "type": "webhook", "url": url, "secret_file": str(folder / "secret"), **more}


def lines_sink(folder):
    return {"name": "file", "type": "jsonl", "path": str(folder / "events.jsonl")}


class Serving:
    """The process; `stop` ends it by a signal and gives its exit code."""

    def __init__(self, folder, store, *args):
        self.log = folder / "collector.log"
        self.log.write_text("")
        self.process = start(
            "collector", "serve", "--store", store, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admit-new", *args,
            log=self.log,
        )  # fmt: skip
        wait_for(
            "it serves", lambda: self.process.poll() is not None or "health and metrics" in self.text, 60
        )
        assert self.process.poll() is None, self.text
        self.address = re.search(r"listening on ([\d.:]+)", self.text)[1]
        self.http = re.search(r"metrics on (\S+)", self.text)[1]

    @property
    def text(self):
        return self.log.read_text()

    def metrics(self, sink):
        with urllib.request.urlopen(self.http + "/metrics", timeout=60) as response:
            found = re.findall(r"flopmeter_collector_sink_(\w+)\{(.*?)\} (\S+)", response.read().decode())
        return {
            name + (f"/{m[1]}" if (m := re.search(r'outcome="(\w+)"', labels)) else ""): float(value)
            for name, labels, value in found
            if f'sink="{sink}"' in labels
        }

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)


def test_one_sink_hangs_and_nobody_waits(folder):
    """The others deliver, a new event is committed and acknowledged, and the stop is in time."""

    def hang(connection, over):
        over.wait(60)

    store = store_with_events(folder / "b.sqlite", ["n1", "n2"], ("stuck", "good", "file"))
    with raw_server(hang) as port, Receiver() as receiver:
        path = sink_file(
            folder,
            hook(folder, "stuck", f"http://127.0.0.1:{port}/", timeout_s=300),
            hook(folder, "good", receiver.url),
            lines_sink(folder),
        )
        with Serving(folder, store, "--sinks", path) as serving:
            wait_for("both are told of both", lambda: len(receiver.requests) == 2 and lines(folder) == 2)
            with losing(serving, "n3"):
                wait_for(
                    "all are told of the third", lambda: len(receiver.requests) == 3 and lines(folder) == 3
                )
            wait_for("metrics", lambda: serving.metrics("good")["attempts_total/delivered"] == 3)
            wait_for("what waits is told", lambda: serving.metrics("stuck")["waiting"] >= 2)
            assert serving.metrics("stuck")["oldest_waiting_seconds"] > 0
            assert serving.metrics("good")["oldest_waiting_seconds"] == 0
            began = time.monotonic()
            assert serving.stop() == 0
            assert time.monotonic() - began < 30  # not the sink's 300
    assert SECRET not in serving.text
    ids = Counter(json.loads(r.body)["id"] for r in receiver.requests)
    assert set(ids.values()) == {1}


def test_a_stop_ends_a_command_that_hangs(folder):
    """It was killed by nobody, and ran beside the one that the next start began with the same event."""
    store = store_with_events(folder / "b.sqlite", ["n1"], ("stuck",))
    script = 'echo $$ > "$1"; sleep 600 & wait'
    path = sink_file(
        folder,
        {
            "name": "stuck",
            "type": "command",
            "command": ["/bin/sh", "-c", script, "sh", str(folder / "pid")],
            "timeout_s": 300,
        },
    )
    with Serving(folder, store, "--sinks", path) as serving:
        pid = folder / "pid"
        wait_for("it runs", lambda: pid.exists() and pid.read_text().endswith("\n"))
        assert serving.stop() == 0
    wait_for("it is gone", lambda: gone(int(pid.read_text())))


@contextlib.contextmanager
def losing(serving, node):
    """An agent that no longer has its first four records: an event."""
    chain = Chain(node)
    with WireClient(serving.address, chain) as client:
        client.hello(body=chain.hello_body(oldest_seq=5, newest_seq=5))
        yield


def lines(folder):
    path = folder / "events.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_kill_9_between_delivery_and_note_repeats_with_the_same_id(folder):
    """The receiver has it, and holds its answer back: the collector dies not knowing."""
    store = store_with_events(folder / "b.sqlite", ["n1"], ("hook",))
    got = []

    def take_and_wait(connection, over):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65_536)
        got.append(re.search(rb"webhook-id: (\S+)", data)[1].decode())
        over.wait(60)

    with raw_server(take_and_wait) as port:
        path = sink_file(folder, hook(folder, "hook", f"http://127.0.0.1:{port}/", timeout_s=300))
        with Serving(folder, store, "--sinks", path) as serving:
            wait_for("it was delivered", lambda: got)
            serving.stop(signal.SIGKILL)
    assert outbox_rows(store, "attempts, delivered_unix_ns") == [(0, None)]
    with Receiver() as receiver:
        path = sink_file(folder, hook(folder, "hook", receiver.url))
        with Serving(folder, store, "--sinks", path):
            wait_for("it is delivered again", lambda: receiver.requests)
            wait_for("and noted", lambda: outbox_rows(store, "delivered_unix_ns IS NOT NULL") == [(1,)])
    assert [json.loads(r.body)["id"] for r in receiver.requests] == got


def test_only_whoever_wants_an_event_gets_it(folder):
    """Decided in the commit that raises it: no row is made for the others."""
    path = folder / "b.sqlite"
    with Receiver() as receiver:
        sinks = sink_file(
            folder,
            hook(folder, "law", receiver.url, types=["threshold"]),
            hook(folder, "grave", receiver.url, severities=["critical"]),
            lines_sink(folder),
        )
        with (
            Serving(folder, path, "--sinks", sinks) as serving,
            losing(serving, "n1"),
        ):
            wait_for("the file has it", lambda: lines(folder) == 1)
    assert outbox_rows(path, "sink") == [("file",)]
    assert receiver.requests == []


def test_an_answer_reaches_whoever_asked_while_the_collector_runs(folder):
    store = store_with_events(folder / "b.sqlite", ["n1"], ("hook", "old"))
    with closing(sqlite3.connect(store)) as db, db:
        db.execute(
            "INSERT INTO sinks VALUES ('old', 'jsonl', 1, 0)"
        )  # served once, and taken out of the file
    with Receiver() as receiver:
        path = sink_file(folder, hook(folder, "hook", receiver.url, states=True, redact=["identities"]))
        with Serving(folder, store, "--sinks", path) as serving:
            wait_for("the event", lambda: len(receiver.requests) == 1)
            answer(store, 1, State.ACKNOWLEDGED, who="alice", why="on it")
            wait_for("the answer", lambda: len(receiver.requests) == 2)
            wait_for("what is said", lambda: "sink old is configured no more; kept for it: 1" in serving.text)
    assert json.loads(receiver.requests[1].body)["type"] == "coverage.lost.acknowledged"
    assert b"alice" not in receiver.requests[1].body


def test_a_receiver_that_is_gone_stops_its_sink_and_says_so(folder):
    store = store_with_events(folder / "b.sqlite", ["n1", "n2"], ("hook",))
    with Receiver(otherwise=Reply(410)) as receiver:
        path = sink_file(folder, hook(folder, "hook", receiver.url))
        with Serving(folder, store, "--sinks", path) as serving:
            wait_for("it is gone", lambda: serving.metrics("hook")["gone"] == 1)
            assert serving.metrics("hook")["waiting"] == 2
            assert "it wants no more" in serving.text
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("sink", "code", "said"),
    [
        (
            {"name": "a", "type": "webhook", "url": "https://e.org/", "secret_file": "/no/such"},
            3,
            "cannot read",
        ),
        ({"name": "a", "type": "jsonl", "path": "/no/such/events"}, 3, "No such file"),
        ({"name": "a", "type": "jsonl", "path": "x", "regimes": ["no-such"]}, 2, "expected ids of regimes"),
        ({"name": "a", "type": "command", "command": ["/no/such"]}, 3, "expected a program"),
        ({"name": "a", "type": "jsonl", "path": "x", "colour": 1}, 2, "line 5: sink a: key colour"),
    ],
)
def test_a_sink_that_could_not_work_is_refused_at_the_start(folder, sink, code, said):
    log = folder / "log"
    process = start(
        "collector", "serve", "--store", folder / "b.sqlite", "--listen", "127.0.0.1:0", "--http", "",
        "--sinks", sink_file(folder, sink), log=log,
    )  # fmt: skip
    assert process.wait(60) == code
    assert said in log.read_text()
