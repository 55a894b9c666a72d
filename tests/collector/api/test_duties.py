"""Events and deadlines: lists, filters, and what people answer by token."""

import json
from datetime import datetime

import pytest
from api_books import asked
from builders import Chain
from duty_books import busy_minute, fsck, opened, regime, rule

from flopmeter.collector.api.say_duties import MAX_BODY_BYTES
from flopmeter.collector.api.say_metrics import metrics_of_runs
from flopmeter.collector.duty.reading import Wanted, events_page
from flopmeter.collector.law.regimes import parse
from flopmeter.collector.report.queries import reading


@pytest.fixture
def books(tmp_path):
    path = tmp_path / "books.sqlite"
    law = regime(rule())
    with opened(path, law) as desk:
        busy_minute(desk, Chain("gpu-1"))
    found = asked(path)
    found.law = law
    return found


def first(books, kind="threshold.crossed"):
    return next(e for e in books.get("events", type=kind)["items"])


def test_events_are_those_of_the_cli_newest_first(books):
    found = books.get("events")
    with reading(books.path) as reader:
        page = events_page(reader, Wanted(), 0)
    assert found["total"] == len(found["items"]) == len(page.events) > 0
    assert found["items"] == [
        {**json.loads(json.dumps(e.cloud)), "state": e.state.value, "answer": None} for e in page.events[::-1]
    ]


def test_metrics_date_a_crossing_as_its_event_does(tmp_path):
    path, laws = tmp_path / "books.sqlite", tmp_path / "laws"
    laws.mkdir()
    text = regime(rule()).text.replace('id = "eu-gpai"', 'id = "ours"')
    (laws / "ours.toml").write_text(text)
    with opened(path, parse("ours.toml", text.encode())) as desk:
        busy_minute(desk, Chain("gpu-1"))
    books = asked(path, regimes=laws)
    event = first(books)
    samples = json.loads(metrics_of_runs(books.books))["samples"]
    found = next(s for s in samples["flopmeter_run_crossed_timestamp_seconds"] if s[0] == event["subject"])
    assert found[1] == event["data"]["regime"] == "ours"
    assert found[2] == pytest.approx(datetime.fromisoformat(event["time"]).timestamp(), abs=0.001)
    assert [*found[:2], "crossed", 1] in samples["flopmeter_run_verdict_info"]


def test_filters_leave_out_and_count(books):
    every = books.get("events")["items"]
    for name, key in (("type", "type"), ("run", "subject")):
        value = every[0][key]
        found = books.get("events", **{name: value})
        assert found["items"] == [e for e in every if e[key] == value]
        assert found["total"] == len(found["items"])
    assert books.get("events", severity="critical")["items"] == [
        e for e in every if e["severity"] == "critical"
    ]
    assert books.get("events", state="resolved")["items"] == []
    assert books.get("events", type="thresh")["items"] == []  # a part of a word is no type
    assert books.get("events", run="' OR 1=1 --")["items"] == []


def test_an_answer_is_appended_as_the_tokens_and_everybody_sees_it(books):
    event = first(books)
    said = books.post(
        "events",
        event["id"],
        "answers",
        document={"state": "acknowledged", "why": "counsel drafts it"},
        who="ada",
    )
    assert said.status == 201
    document = json.loads(said.body)
    assert (document["was"], document["answer"]["who"]) == ("open", "token:ada")
    assert said.etag == ""
    (again,) = [e for e in books.get("events")["items"] if e["id"] == event["id"]]
    assert (again["state"], again["answer"]["why"]) == ("acknowledged", "counsel drafts it")
    found = books.get("events", event["id"])
    assert [a["who"] for a in found["answers"]] == ["token:ada"]
    assert books.get("overview")["events"]["open"] == len(books.get("events", state="open")["items"]) + 1
    resolved = books.post("events", event["id"], "answers", document={"state": "resolved", "why": "filed"})
    assert resolved.status == 201
    assert books.get("overview")["events"]["open"] == len(books.get("events", state="open")["items"])
    assert fsck(books.path, [books.law]).difference is None


def test_a_step_that_cannot_follow_is_a_conflict(books):
    event = first(books)
    found = books.post("events", event["id"], "answers", document={"state": "open", "why": "x"})
    assert found.status == 409
    assert "expected it to be acknowledged or resolved, it is open" in json.loads(found.body)["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"{" * 5_000,
        b'{"state": "acknowledged"}',
        b'{"state": "acknowledged", "why": ""}',
        b'{"state": "acknowledged", "why": 7}',
        b'{"state": "acknowledged", "why": "a\\nb"}',
        b'{"state": "acknowledged", "why": "a\\u0000b"}',
        b'{"state": "acknowledged", "why": "' + b"x" * 2_001 + b'"}',
        b'{"state": "gone", "why": "x"}',
        b'{"state": "resolved", "why": "x", "outcome": "done"}',
        b'{"state": "acknowledged", "why": "x", "who": "somebody else"}',
    ],
)
def test_an_answer_that_is_none_is_refused_and_nothing_is_said(books, body):
    event = first(books)
    assert books.ask("events", event["id"], "answers", method="POST", body=body).status == 400
    assert books.get("events", event["id"])["answers"] == []


def test_a_long_body_is_too_large(books):
    event = first(books)
    body = b" " * (MAX_BODY_BYTES + 1)
    assert books.ask("events", event["id"], "answers", method="POST", body=body).status == 413


@pytest.mark.parametrize("name", ["69ec", "0" * 32, "Z" * 32, "' OR 1=1", "0" * 33])
def test_an_id_is_whole_or_not_there(books, name):
    for path in (("events", name), ("deadlines", name)):
        assert books.ask(*path).status == 404
        document = {"state": "acknowledged", "why": "x"}
        assert books.post(*path, "answers", document=document).status == 404


def test_only_operators_answer(books):
    event = first(books)
    document = {"state": "acknowledged", "why": "x"}
    for role, status in (("viewer", 403), ("auditor", 403), ("", 403), ("root", 403), ("operator", 201)):
        assert books.post("events", event["id"], "answers", document=document, role=role).status == status


def test_deadlines_stand_by_due_time_and_are_answered_with_an_outcome(books):
    found = books.get("deadlines")
    (deadline,) = found["items"]
    assert deadline["run"] == "r1"
    assert books.get("overview")["next_deadline"]["id"] == deadline["id"]
    path = ("deadlines", deadline["id"])
    whole = books.get(*path)
    assert whole["trigger_event"]["subject"] == "r1"
    assert [d["id"] for d in books.get("events", whole["trigger_event"]["id"])["deadlines"]] == [
        deadline["id"]
    ]
    for wrong in (
        {"state": "resolved", "why": "x"},
        {"state": "acknowledged", "why": "x", "outcome": "done"},
    ):
        assert books.post(*path, "answers", document=wrong).status == 400
    done = {"state": "resolved", "why": "filed, receipt 7", "outcome": "done"}
    assert books.post(*path, "answers", document=done).status == 201
    assert books.get(*path)["deadline"]["outcome"] == "done"
    assert books.get("overview")["next_deadline"] is None
    assert books.get("deadlines", state="open")["items"] == []
    assert books.get("deadlines", regime="another")["total"] == 0
    assert fsck(books.path, [books.law]).difference is None


def test_what_is_overdue_is_by_the_clock_of_whoever_asks(books):
    assert books.get("deadlines", overdue="true")["items"] == []
    assert len(books.get("deadlines", overdue="false")["items"]) == 1
    books.clock.now += 400 * 86_400 * 10**9
    (late,) = books.get("deadlines", overdue="true")["items"]
    assert late["overdue"]
    assert books.get("overview")["deadlines"]["overdue"] == 1
