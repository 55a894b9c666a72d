"""`flopmeter events …` and `flopmeter deadlines …`, as people and programs meet them."""

import json
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from builders import Chain
from click.testing import CliRunner
from desk import DAY_NS
from duty_books import START, busy_minute, commit_at, fsck, opened, regime, rule
from icalendar import Calendar

from flopmeter.cli.main import flopmeter
from flopmeter.collector.errors import CollectorError
from flopmeter.collector.law.events import event_id

LAW = regime(rule(), rule("incident", "incident", after_days=None, after_hours=72))
CROSSED = event_id("threshold:eu-gpai:r1:crossed:crossed:>10^14")
DEADLINE = event_id("deadline:run:eu-gpai:notify:r1")


@pytest.fixture
def store(tmp_path):
    """A crossing, and the three lead times and the end of its two weeks."""
    with opened(tmp_path / "books.db", LAW) as desk:
        busy_minute(desk, Chain("n"))
        for day in (7, 12, 13, 14):
            commit_at(desk, START + day * DAY_NS)
    return tmp_path / "books.db"


@pytest.fixture
def run(store):
    def asked(*words, code=0):
        result = CliRunner().invoke(flopmeter, [*words, "--store", str(store)], catch_exceptions=True)
        error = result.exception
        if isinstance(error, CollectorError):
            assert error.exit_code == code, error
            return str(error)
        if error is not None and not isinstance(error, SystemExit):
            raise error
        assert result.exit_code == code, result.output
        return result.output

    return asked


def listed(run, *words):
    return json.loads(run("events", "list", *words, "--json"))


def types(document):
    return [e["type"].removeprefix("deadline.") for e in document["events"]]


def test_events_are_listed_oldest_first_with_where_they_stand(run):
    text = run("events", "list")
    assert text.index("threshold.crossed") < text.index("deadline.near") < text.index("deadline.overdue")
    assert max(map(len, text.splitlines())) <= 80
    document = listed(run)
    assert types(document) == ["threshold.crossed", "near", "near", "near", "overdue"]
    assert {e["state"] for e in document["events"]} == {"open"}
    assert (document["more"], document["before"]) == (False, None)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--type", "deadline"), 4),
        (("--type", "deadline.near"), 3),
        (("--severity", "critical"), 2),
        (("--severity", "warning"), 5),
        (("--state", "open"), 5),
        (("--state", "resolved"), 0),
        (("--run", "r1"), 5),
        (("--subject", "r1"), 5),
        (("--subject", "r2"), 0),
        (("--regime", "eu-gpai"), 5),
        (("--regime", "korea"), 0),
        (("--since", "2026-10-03"), 3),
        (("--until", "2026-10-03"), 3),
        (("--since", "2026-09-29", "--until", "2026-10-05", "--type", "deadline"), 3),
        (("--limit", "2"), 2),
        (("--limit", "0"), 5),
    ],
)
def test_filters(run, words, found):
    document = listed(run, *words)
    assert len(document["events"]) == found
    assert document["more"] == (words == ("--limit", "2"))
    if not found:
        assert "no event matches" in run("events", "list", *words)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--type", "threshold.crosed"), 2),
        (("--severity", "grave"), 2),
        (("--state", "closed"), 2),
        (("--since", "yesterday"), 2),
        (("--limit", "-1"), 2),
        (("--before", "zzzz"), 2),
        (("--before", "0000"), 1),
    ],
)
def test_filters_that_make_no_sense(run, words, code):
    run("events", "list", *words, code=code)


def test_a_page_is_gone_through_to_its_beginning(run):
    seen, before = [], []
    while True:
        document = listed(run, "--limit", "2", *before)
        seen = [e["id"] for e in document["events"]] + seen
        if not document["more"]:
            break
        before = ["--before", document["before"][:8]]
    assert seen == [e["id"] for e in listed(run)["events"]]
    assert "--before" in run("events", "list", "--limit", "2")


def test_a_hundred_thousand_events_are_a_page(store, run):
    """Filled in by SQL: what is read is a page, and all that is counted is whether there is more."""
    db = sqlite3.connect(store)
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 6 UNION ALL SELECT i + 1 FROM n WHERE i < 100005) "
        "INSERT INTO events SELECT i, printf('%032x', i), 'loss:' || i, 'coverage.lost', 'agent/' || (i % 7), "
        '1790000000000000000 + i * 1000000000, 1, 1, \'{"message":"lost"}\' FROM n'
    )
    db.commit()
    db.close()
    page = listed(run)
    assert (len(page["events"]), page["more"]) == (1_000, True)
    assert page["events"][-1]["id"] == f"{100_005:032x}"
    older = listed(run, "--before", page["before"])
    assert older["events"][-1]["id"] == f"{99_005:032x}"
    assert run("events", "list").count("coverage.lost") == 50
    few = listed(run, "--severity", "critical")
    assert len(few["events"]) == 2
    run("events", "ack", f"{77_777:032x}", "--why", "known")
    assert [e["id"] for e in listed(run, "--state", "acknowledged")["events"]] == [f"{77_777:032x}"]


def test_an_event_is_answered_and_shown(run, store):
    assert "is acknowledged, was open" in run("events", "ack", CROSSED[:8], "--why", "on it", "--who", "ada")
    shown = run("events", "show", CROSSED[:8])
    assert "acknowledged by ada: on it" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    run("events", "resolve", CROSSED, "--why", "notified", "--who", "bob")
    document = json.loads(run("events", "show", CROSSED, "--json"))
    assert document["event"]["state"] == "resolved"
    assert [(a["state"], a["who"], a["why"]) for a in document["answers"]] == [
        ("acknowledged", "ada", "on it"),
        ("resolved", "bob", "notified"),
    ]
    assert [d["id"] for d in document["deadlines"]] == [DEADLINE]
    run("events", "reopen", CROSSED, "--why", "came back")
    assert json.loads(run("events", "show", CROSSED, "--json"))["event"]["state"] == "open"
    assert fsck(store, [LAW]).difference is None


def test_several_are_answered_at_once_up_to_the_first_that_cannot_be(run):
    ids = [e["id"] for e in listed(run, "--type", "deadline")["events"]]
    said = json.loads(run("events", "ack", *ids, "--why", "all of them", "--json"))
    assert [(e["id"], e["was"]) for e in said["events"]] == [(i, "open") for i in ids]
    run("events", "resolve", ids[0], "--why", "x")
    run("events", "resolve", ids[1], ids[0], ids[2], "--why", "y", code=1)
    assert [e["state"] for e in listed(run, "--type", "deadline")["events"]] == [
        "resolved",
        "resolved",
        "acknowledged",
        "acknowledged",
    ]


def test_who_is_the_login_and_why_is_asked_for(run, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ada")
    said = json.loads(run("events", "ack", CROSSED, "--why", "x", "--json"))
    assert said["events"][0]["answer"]["who"].startswith("ada@")
    run("events", "ack", CROSSED, code=2)
    run("events", "ack", "--why", "x", code=2)


def test_a_dry_run_shows_and_says_nothing(run):
    assert "dry run" in run("events", "resolve", CROSSED, "--why", "x", "--dry-run")
    assert "dry run" in run("deadlines", "resolve", DEADLINE, "--outcome", "done", "--why", "x", "--dry-run")
    assert listed(run, "--state", "resolved")["events"] == []


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "x" * 10_000])
def test_hostile_words_are_refused(run, text):
    said = run("events", "ack", CROSSED, "--why", text, code=2)
    assert said.isprintable()
    assert len(said) < 300


# ---- deadlines ---------------------------------------------------------------------------------------------


def deadlines(run, *words):
    return json.loads(run("deadlines", "list", *words, "--json"))["deadlines"]


def test_requirement_11_overdue_is_visible_and_is_acknowledged(run, store):
    """After a restart, from the store alone: trigger, due time, recipient, state, who took it."""
    (d,) = deadlines(run)
    assert d["id"] == DEADLINE
    assert (d["state"], d["overdue"], d["recipient"]) == ("open", True, "the authority")
    assert datetime.fromisoformat(d["due"]) - datetime.fromisoformat(d["trigger"]) == 14 * (
        datetime(2026, 1, 2, tzinfo=UTC) - datetime(2026, 1, 1, tzinfo=UTC)
    )
    assert d["due_local"] == "2026-10-05 16:43 CEST (Europe/Brussels)"
    text = run("deadlines", "list")
    assert "overdue by" in text
    assert max(map(len, text.splitlines())) <= 80
    run("deadlines", "ack", DEADLINE[:6], "--why", "drafting")
    assert deadlines(run)[0]["state"] == "acknowledged"
    run("deadlines", "resolve", DEADLINE[:6], "--outcome", "done", "--why", "sent")
    (d,) = deadlines(run)
    assert (d["state"], d["outcome"], d["overdue"]) == ("resolved", "done", False)
    shown = json.loads(run("deadlines", "show", DEADLINE, "--json"))
    assert [a["state"] for a in shown["answers"]] == ["acknowledged", "resolved"]
    assert shown["trigger_event"]["id"] == CROSSED
    assert "resolved (done)" in run("deadlines", "show", DEADLINE)
    assert fsck(store, [LAW]).difference is None


def test_deadlines_are_filtered(run):
    run("deadlines", "open", "us-ca-sb53", "incident", "--at", "2026-10-01T10:00Z", "--why", "leak")
    assert [d["rule"] for d in deadlines(run)] == ["notify", "incident"]
    assert [d["rule"] for d in deadlines(run, "--regime", "us-ca-sb53")] == ["incident"]
    assert [d["rule"] for d in deadlines(run, "--run", "r1")] == ["notify"]
    run("deadlines", "resolve", DEADLINE, "--outcome", "not-applicable", "--why", "no model")
    assert [d["rule"] for d in deadlines(run)] == ["incident", "notify"]
    assert [d["rule"] for d in deadlines(run, "--state", "resolved")] == ["notify"]
    assert [d["rule"] for d in deadlines(run, "--overdue")] == ["incident"]
    assert "no deadline matches" in run("deadlines", "list", "--run", "r9")


def test_requirement_20_a_coverage_deadline_is_worded_apart(run):
    words = ("deadlines", "open", "us-ca-sb53", "incident", "--at", "2026-10-01", "--why", "leak", "--json")
    made = json.loads(run(*words))["deadline"]
    shown = run("deadlines", "show", made["id"])
    assert "asks for no report of the figure itself" in " ".join(shown.split())
    assert "asks for no report" not in run("deadlines", "show", DEADLINE)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("no-such-regime", "incident", "--at", "2026-10-01"), 1),
        (("us-ca-sb53", "no-such-rule", "--at", "2026-10-01"), 1),
        (("eu-systemic-risk", "notify", "--at", "2026-10-01"), 1),
        (("us-ca-sb53", "incident", "--at", "2262-01-01"), 2),
        (("us-ca-sb53", "incident", "--at", "last week"), 2),
        (("us-ca-sb53", "incident"), 2),
        (("us-ca-sb53", "incident", "--at", "2026-10-01", "--run", "a\nb"), 2),
    ],
)
def test_what_cannot_be_opened_is_refused_with_what_to_do(run, words, code):
    run("deadlines", "open", *words, "--why", "x", code=code)
    assert len(deadlines(run)) == 1


def test_an_incident_under_a_law_that_does_not_bind_yet_is_opened_with_a_word(run, store, monkeypatch):
    words = [
        "deadlines",
        "open",
        "us-ny-raise",
        "incident",
        "--at",
        "2026-10-01",
        "--why",
        "x",
        "--store",
        str(store),
    ]
    monkeypatch.setattr("time.time_ns", lambda: START + 30 * DAY_NS)  # October 2026
    result = CliRunner().invoke(flopmeter, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "does not bind now" in result.stderr
    assert len(deadlines(run)) == 2


def test_resolving_a_deadline_says_with_what_outcome(run):
    run("deadlines", "resolve", DEADLINE, "--why", "x", code=2)
    run("deadlines", "resolve", DEADLINE, "--why", "x", "--outcome", "forgotten", code=2)
    run("deadlines", "resolve", DEADLINE, "--why", "x", "--outcome", "done")
    run("deadlines", "reopen", DEADLINE, "--why", "it came back")
    assert deadlines(run)[0]["state"] == "open"


def test_the_calendar_is_written_whole(run, tmp_path):
    file = tmp_path / "duties.ics"
    run("deadlines", "export", "--ics", str(file))
    (event,) = Calendar.from_ical(file.read_bytes()).walk("VEVENT")
    assert event["UID"] == f"{DEADLINE}@flopmeter"
    run("deadlines", "resolve", DEADLINE, "--why", "x", "--outcome", "done")
    run("deadlines", "export", "--ics", str(file))
    assert Calendar.from_ical(file.read_bytes()).walk("VEVENT") == []
    run("deadlines", "export", "--all", "--ics", str(file))
    (event,) = Calendar.from_ical(file.read_bytes()).walk("VEVENT")
    assert event["SEQUENCE"] == 1
    assert [p.name for p in tmp_path.iterdir() if "ics" in p.name] == ["duties.ics"]
    assert run("deadlines", "export", "--ics", "-").startswith("BEGIN:VCALENDAR")
    run("deadlines", "export", "--ics", str(tmp_path / "none" / "x.ics"), code=3)


def test_a_store_that_is_not_there(tmp_path, run):
    for words in (("events", "list"), ("deadlines", "list"), ("events", "list", "--follow")):
        result = CliRunner().invoke(flopmeter, [*words, "--store", str(tmp_path / "none.db")])
        assert getattr(result.exception, "exit_code", None) == 3


@pytest.mark.parametrize("as_json", [True, False])
def test_following_ends_by_ctrl_c_without_a_word(store, as_json):
    words = [sys.executable, "-m", "flopmeter.cli", "events", "list", "--follow", "--interval", "0.1"]
    words = [sys.executable, "-c", "from flopmeter.cli.main import main; main()", *words[3:]]
    extra = ["--json"] if as_json else []
    process = subprocess.Popen(
        [*words, *extra, "--store", store], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seen = [process.stdout.readline() for _ in range(5)]
    with opened(store, LAW, now=START + 20 * DAY_NS) as desk:
        chain = Chain("m")
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        desk.agent(Chain("other"), oldest_seq=5)  # numbers 1 to 4 are lost
        desk.commit()
    deadline = time.monotonic() + 60
    while "coverage.lost" not in seen[-1] and time.monotonic() < deadline:
        seen.append(process.stdout.readline())
    process.send_signal(2)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    if as_json:
        kinds = [json.loads(line)["type"] for line in seen]
        assert kinds[:5] == ["threshold.crossed", *["deadline.near"] * 3, "deadline.overdue"]
        assert "coverage.lost" in kinds
    assert "Traceback" not in out
