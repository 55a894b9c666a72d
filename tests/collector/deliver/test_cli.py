"""`flopmeter events sinks | test | dead | redeliver` as people and scripts meet them."""

import json
import socket
import sqlite3
import sys
from contextlib import closing

import pytest
from receivers import Receiver, Reply
from sinks import FakeClock, FakeSender, answer, outbox_rows, store_with_events, worker_of

from flopmeter.cli.main import main
from flopmeter.collector.deliver.answer import refused
from flopmeter.collector.duty.answers import State

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(tmp_path):
    return store_with_events(tmp_path / "books.sqlite")


@pytest.fixture
def events(monkeypatch, capsys, store):
    """`flopmeter events WORDS` in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    monkeypatch.delenv("FLOPMETER_REGIMES", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HOOK_SECRET", SECRET)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["flopmeter", "events", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def sinks(tmp_path):
    def write(url="http://127.0.0.1:1/hook", more=""):
        path = tmp_path / "sinks.toml"
        path.write_text(
            f'[[sinks]]\nname = "pager"\ntype = "webhook"\nurl = "{url}"\nsecret_env = "HOOK_SECRET"\n{more}\n'
        )
        return path

    return write


def dead_one(store, clock):
    """Event 1 is refused until it is put aside; the others arrive."""

    class Picky(FakeSender):
        def send(self, messages):
            self.script = [refused("422 no \x1b[31msuch field")] if messages[0].event_no == 1 else []
            return super().send(messages)

    worker = worker_of(store, Picky(), clock)
    worker.deliver()
    while worker.counters.standing.waiting:
        clock.pass_s(1_000)
        worker.deliver()


def ids(store):
    with closing(sqlite3.connect(store)) as db:
        return [row[0] for row in db.execute("SELECT id FROM events ORDER BY event_no")]


# --- sinks ---


def test_sinks_shows_what_each_gets_and_how_it_stands(events, sinks, store, clock):
    dead_one(store, clock)
    path = sinks(more='types = ["threshold"]\nredact = ["node"]')
    code, out, _ = events("sinks", "--sinks", path)
    assert code == 0
    assert "threshold without node" in out
    assert "events dead" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    code, out, _ = events("sinks", "--sinks", path, "--json")
    (found,) = json.loads(out)["sinks"]
    assert (found["sink"], found["delivered"], found["waiting"], found["dead"]) == ("pager", 2, 0, 1)
    assert found["redact"] == ["node"]


def test_sinks_tells_of_one_that_is_in_no_file_now(events, sinks, store, clock):
    worker_of(store, FakeSender(), clock).deliver()
    path = sinks()
    path.write_text(path.read_text().replace("pager", "other"))
    code, out, _ = events("sinks", "--sinks", path, "--json")
    assert code == 0
    assert [(s["sink"], s["configured"]) for s in json.loads(out)["sinks"]] == [
        ("other", True),
        ("pager", False),
    ]
    assert "in no file now" in events("sinks", "--sinks", path)[1]


def test_sinks_without_a_store_checks_the_file(events, sinks, tmp_path):
    code, out, _ = events("sinks", "--sinks", sinks(), "--store", tmp_path / "none.sqlite")
    assert code == 0
    assert "pager" in out


def test_sinks_refuses_a_faulty_file(events, sinks):
    code, _, err = events("sinks", "--sinks", sinks(more='regimes = ["eu-gapi"]'))
    assert code == 2
    assert "line 6" in err
    assert SECRET not in err


# --- test ---


def test_the_test_button_says_what_the_other_side_answered(events, sinks):
    with Receiver() as receiver:
        code, out, _ = events("test", "pager", "--sinks", sinks(receiver.url))
    assert code == 0
    assert "delivered" in out
    assert "204" in out
    document = json.loads(receiver.requests[0].body)
    assert document["type"] == "sink.test"
    assert document["data"]["test"] is True


@pytest.mark.parametrize(
    ("status", "code", "outcome"), [(403, 1, "refused"), (410, 1, "gone"), (503, 3, "failed")]
)
def test_its_exit_code_tells_no_from_nobody(events, sinks, status, code, outcome):
    with Receiver(Reply(status, b"because")) as receiver:
        found, out, _ = events("test", "pager", "--sinks", sinks(receiver.url), "--json")
    assert found == code
    said = json.loads(out)
    assert said["outcome"] == outcome
    assert str(status) in said["said"]


def test_nobody_there_is_3(events, sinks):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    code, out, err = events("test", "pager", "--sinks", sinks(f"http://127.0.0.1:{port}/"))
    assert code == 3
    assert out == ""
    assert "cannot connect" in err


def test_a_test_needs_a_sink_of_the_file(events, sinks):
    code, _, err = events("test", "nobody", "--sinks", sinks())
    assert code == 2
    assert "pager" in err


def test_a_test_is_in_no_book(events, sinks, store):
    before = ids(store), outbox_rows(store)
    with Receiver() as receiver:
        events("test", "pager", "--sinks", sinks(receiver.url))
    assert (ids(store), outbox_rows(store)) == before


# --- dead letters ---


def test_dead_lists_what_was_put_aside_with_the_reason(events, store, clock):
    assert events("dead") == (0, "Nothing was put aside.\n", "")
    dead_one(store, clock)
    code, out, _ = events("dead")
    assert code == 0
    assert "no [31msuch field" in out
    assert "\x1b" not in out
    (found,) = json.loads(events("dead", "--json")[1])["dead"]
    assert found["event"] == ids(store)[0]
    assert found["attempts"] == 8
    assert len(json.loads(events("dead", "--sink", found["sink"], "--json")[1])["dead"]) == 1
    code, out, err = events("dead", "--sink", "other", "--json")  # a typing error is no empty list
    assert (code, out) == (1, "")
    assert "sink 'other': expected one that a collector has served" in err
    with closing(sqlite3.connect(store)) as db, db:
        db.execute("INSERT INTO sinks VALUES ('other', 'jsonl', 1, 0)")
    assert json.loads(events("dead", "--sink", "other", "--json")[1]) == {"dead": []}


@pytest.mark.parametrize("how", ["id", "beginning", "number", "all", "all of the sink"])
def test_what_was_put_aside_is_delivered_again(events, store, clock, how):
    dead_one(store, clock)
    first = ids(store)[0]
    words = {
        "id": (first, "--sink", "pager"),
        "beginning": (first[:8], "--sink", "pager"),
        "number": ("1", "--sink", "pager"),
        "all": ("--all-dead",),
        "all of the sink": ("--all-dead", "--sink", "pager"),
    }[how]
    assert events("redeliver", *words)[:2] == (0, "1 delivery is due again.\n")
    sender = FakeSender()
    assert worker_of(store, sender, clock).deliver() == 1
    assert sender.got[0].id == first
    assert events("dead")[1] == "Nothing was put aside.\n"


def test_what_was_delivered_can_be_delivered_again_with_its_id(events, store, clock):
    worker_of(store, FakeSender(), clock).deliver()
    second = ids(store)[1]
    assert (
        events("redeliver", second, "--sink", "pager", "--json")[1] == '{"redelivered": 1, "sink": "pager"}\n'
    )
    sender = FakeSender()
    assert worker_of(store, sender, clock).deliver() == 1
    assert [m.id for m in sender.got] == [second]


def test_a_sink_that_was_added_later_gets_older_events_when_asked(events, store, clock):
    late = FakeSender()
    worker = worker_of(store, late, clock)
    worker.settings = type(worker.settings)("late", worker.settings.target)
    assert worker.deliver() == 0
    assert events("redeliver", *ids(store), "--sink", "late")[0] == 0
    assert worker.deliver() == 3
    assert [m.id for m in late.got] == ids(store)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "--all-dead"),
        (("x", "--all-dead"), 2, "--all-dead"),
        (("1",), 2, "--sink"),
        (("1", "--sink", "nobody"), 1, "of: pager"),
        (("--all-dead", "--sink", "nobody"), 1, "of: pager"),
        (("99", "--sink", "pager"), 1, "found none"),
        (("abc", "--sink", "pager"), 1, "found none"),
        (("zzzzzzzzzz", "--sink", "pager"), 1, "found none"),
    ],
)
def test_what_cannot_be_delivered_again(  # noqa: PLR0917 - pytest passes them by name
    events, store, clock, words, code, said
):
    worker_of(store, FakeSender(), clock).deliver()
    before = outbox_rows(store)
    found, _, err = events("redeliver", *words)
    assert found == code
    assert said in err
    assert outbox_rows(store) == before


def test_one_id_that_is_none_changes_nothing(events, store, clock):
    worker_of(store, FakeSender(), clock).deliver()
    before = outbox_rows(store)
    assert events("redeliver", ids(store)[0], "feedfeed", "--sink", "pager")[0] == 1
    assert outbox_rows(store) == before


def test_an_answer_that_was_put_aside_is_listed_as_one(events, store, clock):
    worker_of(store, FakeSender(), clock, states=True).deliver()
    answer(store, 1, State.ACKNOWLEDGED)
    worker = worker_of(store, FakeSender(script=[refused("no")] * 20), clock, states=True)
    worker.deliver()
    while worker.counters.standing.waiting:
        clock.pass_s(1_000)
        worker.deliver()
    assert "(an answer)" in events("dead")[1]
    assert events("redeliver", "--all-dead")[1] == "1 delivery is due again.\n"


@pytest.mark.parametrize("words", [("dead",), ("redeliver", "--all-dead")])
def test_a_store_that_is_not_there_is_3(events, tmp_path, words):
    code, _, err = events(*words, "--store", tmp_path / "none.sqlite")
    assert code == 3
    assert "Hint" in err
    assert not (tmp_path / "none.sqlite").exists()
