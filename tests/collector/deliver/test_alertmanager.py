"""The Alertmanager sink: what an alert says, and a real Alertmanager that is told of it."""

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest
from processes import wait_for
from receivers import Receiver, Reply
from sinks import FakeClock, answer, store_with_events

from flopmeter.collector.deliver.alertmanager import (
    MAX_LABEL_CHARS,
    TELLINGS,
    AlertmanagerSender,
    alert,
    alert_name,
)
from flopmeter.collector.deliver.answer import Kind
from flopmeter.collector.deliver.message import event_message
from flopmeter.collector.deliver.message import test_message as a_test_message
from flopmeter.collector.deliver.redact import Redaction
from flopmeter.collector.deliver.settings import Alertmanager, Endpoint, Secret, SinkSettings
from flopmeter.collector.deliver.worker import Worker
from flopmeter.collector.duty.answers import State

NOW = 1_790_000_000_000_000_000
ROW = {
    "event_no": 1,
    "id": "0123456789abcdef0123456789abcdef",
    "type": "threshold.crossed",
    "subject": "r1",
    "time_unix_ns": NOW,
    "since_position": 1,
    "position": 1,
    "data": json.dumps(
        {
            "message": "Run r1 …",
            "run": "r1",
            "regime": "eu-gpai",
            "act": "notification",
            "due": "2026-10-05",
            "node": None,
        }
    ),
}


def said(state, at=NOW, who="alice", why="seen"):
    return {"answer_no": 1, "unix_ns": at, "state": state, "who": who, "why": why}


def test_an_open_event_fires_for_a_few_tellings():
    found = alert(event_message(ROW, Redaction()), NOW, 60)
    assert found == {
        "labels": {
            "alertname": "FlopmeterThresholdCrossed",
            "event": ROW["id"],
            "severity": "critical",
            "run": "r1",
            "regime": "eu-gpai",
        },
        "annotations": {"summary": "Run r1 …", "subject": "r1", "act": "notification", "due": "2026-10-05"},
        "startsAt": "2026-09-21T14:13:20.000Z",
        "endsAt": "2026-09-21T14:17:20.000Z",
    }
    assert TELLINGS == 4


def test_an_acknowledged_one_still_fires_and_says_by_whom():
    found = alert(event_message(ROW, Redaction(), said("acknowledged")), NOW, 60)
    assert found["annotations"]["acknowledged"] == "alice: seen"
    assert found["endsAt"] > found["startsAt"]


def test_a_resolved_one_ends_when_it_was_resolved():
    found = alert(event_message(ROW, Redaction(), said("resolved", NOW + 30 * 10**9)), NOW + 60 * 10**9, 60)
    assert found["endsAt"] == "2026-09-21T14:13:50.000Z"


def test_a_person_whose_clock_is_behind_resolves_it_all_the_same():
    """Alertmanager refuses an alert that ends before it starts."""
    found = alert(event_message(ROW, Redaction(), said("resolved", NOW - 10**12)), NOW, 60)
    assert found["startsAt"] == found["endsAt"]


def test_labels_have_a_bound_and_withheld_ones_are_not_there():
    long = ROW | {"data": json.dumps({"message": "m", "run": "x" * 10_000, "regime": "eu-gpai"})}
    assert len(alert(event_message(long, Redaction()), NOW, 60)["labels"]["run"]) == MAX_LABEL_CHARS
    hidden = alert(event_message(long, Redaction(("identities",))), NOW, 60)
    assert "run" not in hidden["labels"]
    assert "xxxx" not in json.dumps(hidden)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("threshold.crossed", "FlopmeterThresholdCrossed"), ("fleet.capacity", "FlopmeterFleetCapacity")],
)
def test_alert_names(kind, name):
    assert alert_name(kind) == name


def sender(url, clock=lambda: NOW, **target):
    found = Alertmanager(Endpoint(url), **target)
    return AlertmanagerSender(SinkSettings("am", found), found, clock)


@pytest.mark.parametrize("given", ["", "/", "/api/v2/alerts"])
def test_the_address_is_found_below_the_url(given):
    with Receiver() as receiver:
        (found,) = sender(f"http://127.0.0.1:{receiver.port}/am{given}").send([a_test_message("am", NOW, "")])
    assert found.delivered
    assert receiver.requests[0].path == "/am/api/v2/alerts"


def test_a_batch_that_is_refused_is_sent_one_by_one(monkeypatch):
    """So that one alert that it does not like keeps back no other."""
    messages = [a_test_message("am", NOW, str(i)) for i in range(3)]
    with Receiver(Reply(400), Reply(200), Reply(400, b"bad label"), Reply(200)) as receiver:
        kinds = [a.kind for a in sender(f"http://127.0.0.1:{receiver.port}").send(messages)]
    assert kinds == [Kind.DELIVERED, Kind.REFUSED, Kind.DELIVERED]
    assert [len(json.loads(r.body)) for r in receiver.requests] == [3, 1, 1, 1]


def test_it_logs_in_by_a_secret_that_is_read_each_time(tmp_path):
    path = tmp_path / "secret"
    path.write_text("pa:ss\n")
    with Receiver() as receiver:
        url = f"http://127.0.0.1:{receiver.port}"
        sender(url, user="flop", password=Secret(file=path)).send([a_test_message("am", NOW, "")])
        sender(url, bearer=Secret(file=path)).send([a_test_message("am", NOW, "")])
        path.write_text("two\nlines\n")
        (found,) = sender(url, bearer=Secret(file=path)).send([a_test_message("am", NOW, "")])
    basic, bearer = (r.headers["authorization"] for r in receiver.requests)
    assert basic == "Basic " + b64encode(b"flop:pa:ss").decode()
    assert bearer == "Bearer pa:ss"
    assert found.kind is Kind.FAILED
    assert "one printable line" in found.said


# --- the real one ---

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_alertmanager = pytest.mark.skipif(BINARY is None, reason="Alertmanager is not installed")


@pytest.fixture
def alertmanager(tmp_path):
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody, group_wait: 1s}\nreceivers: [{name: nobody}]\n")
    log = (tmp_path / "alertmanager.log").open("wb")
    command = [
        str(BINARY), f"--config.file={config}", f"--storage.path={tmp_path / 'data'}", "--cluster.listen-address=",
        "--web.listen-address=127.0.0.1:0",
    ]  # fmt: skip
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            found: list[str] = []
            wait_for("Alertmanager listens", lambda: found.extend(listening(log.name)) or found, 60)
            url = f"http://127.0.0.1:{found[0]}"
            wait_for("Alertmanager is ready", lambda: get(url + "/-/ready") is not None, 60)
            yield url
        finally:
            process.terminate()


def listening(log):
    """The port that it says it got."""
    return re.findall(r"Listening on.*127\.0\.0\.1:(\d+)", Path(log).read_text())


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.read()
    except (urllib.error.URLError, ConnectionError):
        return None


def firing(url):
    """event id -> alert, of those that are not resolved."""
    return {a["labels"]["event"]: a for a in json.loads(get(url + "/api/v2/alerts"))}


@needs_alertmanager
def test_a_real_alertmanager_fires_until_a_person_resolves(alertmanager, tmp_path):
    import time

    store = store_with_events(tmp_path / "books.sqlite", ["n1", "n2"], ("am",))
    target = Alertmanager(Endpoint(alertmanager), repost_s=1)
    clock = FakeClock(time.time_ns())
    settings = SinkSettings("am", target)
    worker = Worker(store, settings, AlertmanagerSender(settings, target, clock), unix_ns=clock)
    assert worker.deliver() == 2
    alerts = firing(alertmanager)
    assert {a["labels"]["alertname"] for a in alerts.values()} == {"FlopmeterCoverageLost"}
    assert {a["labels"]["node"] for a in alerts.values()} == {"n1", "n2"}
    first = {name: a["updatedAt"] for name, a in alerts.items()}

    clock.now_ns = time.time_ns()
    clock.pass_s(2)
    worker.deliver()  # told of again: the same alerts, not further ones
    again = firing(alertmanager)
    assert again.keys() == first.keys()
    assert all(again[name]["updatedAt"] > first[name] for name in first)

    answer(store, 1, State.ACKNOWLEDGED, why="on it", unix_ns=time.time_ns())
    clock.pass_s(2)
    worker.deliver()
    assert [a["annotations"].get("acknowledged") for a in firing(alertmanager).values()].count(
        "alice: on it"
    ) == 1

    answer(store, 1, State.RESOLVED, why="done", unix_ns=time.time_ns())
    clock.now_ns = time.time_ns()
    worker.deliver()
    left = firing(alertmanager)
    assert [a["labels"]["node"] for a in left.values()] == ["n2"]

    answer(store, 1, State.OPEN, why="it was not", unix_ns=time.time_ns())
    clock.now_ns = time.time_ns()
    worker.deliver()
    assert len(firing(alertmanager)) == 2


@needs_alertmanager
def test_a_real_alertmanager_refuses_and_says_why(alertmanager, monkeypatch):
    """What it says reaches whoever looks at the dead letters."""
    monkeypatch.setattr("flopmeter.collector.deliver.alertmanager.alert_name", lambda _: "")
    broken = sender(alertmanager)
    monkeypatch.setattr(
        "flopmeter.collector.deliver.alertmanager.alert", lambda *_: {"labels": {"bad label": "x"}}
    )
    (found,) = broken.send([a_test_message("am", NOW, "")])
    assert found.kind is Kind.REFUSED
    assert "400" in found.said


@needs_alertmanager
def test_a_test_event_fires_and_goes_away_by_itself(alertmanager):
    import time

    (found,) = sender(alertmanager, time.time_ns).send([a_test_message("am", time.time_ns(), "n")])
    assert found.delivered
    (shown,) = firing(alertmanager).values()
    assert shown["labels"]["alertname"] == "FlopmeterSinkTest"


@pytest.mark.parametrize(
    ("login", "sent"),
    [({"bearer": True}, "s3cret-t0ken"), ({"user": "ada", "password": True}, "YWRhOnMzY3JldC10MGtlbg==")],
)
def test_a_server_that_repeats_how_we_log_in_tells_nobody_of_it(tmp_path, login, sent):
    (tmp_path / "s").write_text("s3cret-t0ken\n")
    target = {k: Secret(file=tmp_path / "s") if v is True else v for k, v in login.items()}
    with Receiver(otherwise=Reply(401, f"not allowed: {sent}".encode())) as receiver:
        (found,) = sender(receiver.url, **target).send([a_test_message("am", NOW, "")])
    assert sent in receiver.requests[0].headers["authorization"]
    assert "not allowed: …" in found.said
    assert sent not in found.said
