"""An event is raised once, and again only where something else became true; what is over is shown as over."""

import json
import sqlite3

import pytest
from attest_books import said
from builders import Chain
from click.testing import CliRunner
from desk import DAY_NS
from duty_books import START, busy_minute, commit_at, fsck, opened, regime, rule
from relog import relog

from flopmeter.cli.main import flopmeter
from flopmeter.collector.law.events import event_id
from flopmeter.collector.law.thresholds import current_key
from flopmeter.collector.registry.cli import COMMANDS as RUNS
from flopmeter.collector.registry.entries import Declare, Purpose, Tag
from flopmeter.collector.report.queries import Reader

FIRST = "threshold:eu-gpai:r1:crossed:crossed:>10^14"
OTHER = "threshold:eu-gpai:r1:crossed:crossed:>10^15"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.db"


def keys(desk):
    return [k for (k,) in desk.rows("SELECT key FROM events WHERE key LIKE 'threshold:%' ORDER BY event_no")]


def test_the_same_line_is_met_once_whatever_happens(path):
    chain = Chain("n")
    for day in range(4):
        with opened(path, now=START + day * DAY_NS) as desk:
            busy_minute(desk, chain)
            busy_minute(desk, chain)
            assert keys(desk) == [FIRST]
    assert fsck(path, [regime()]).difference is None


def test_another_number_of_the_law_is_another_event(path):
    """Raised after it was met: the run meets it again, and people are told; its clock runs since the first time."""
    with opened(path, regime()) as desk:
        busy_minute(desk, Chain("n"))
    higher = regime(flop=10**15)
    with opened(path, higher, now=START + DAY_NS) as desk:
        desk.commit()
        assert keys(desk) == [FIRST, OTHER]
        assert desk.rows("SELECT due_unix_ns FROM deadlines") == [(START + 14 * DAY_NS,)]
    assert fsck(path, [higher]).difference is None


def test_events_of_an_older_flopmeter_are_not_raised_again(path):
    """0.1.0 made keys without the line; what they say tells of which it was."""
    with opened(path) as desk:
        busy_minute(desk, Chain("n"))
    old = FIRST.rsplit(":", 1)[0]
    db = sqlite3.connect(path)
    db.execute("UPDATE events SET key = ?, id = ? WHERE key = ?", (old, event_id(old), FIRST))
    db.commit()
    (data,) = db.execute("SELECT data FROM events WHERE key = ?", (old,)).fetchone()
    db.close()
    relog(path)
    assert current_key(old, data) == FIRST
    assert current_key(FIRST, data) == FIRST
    with opened(path, now=START + DAY_NS) as desk:
        busy_minute(desk, Chain("m"))
        assert keys(desk) == [old]
    assert fsck(path, [regime()]).difference is None
    with opened(path, regime(flop=10**15), now=START + 2 * DAY_NS) as desk:
        desk.commit()
        assert keys(desk) == [old, OTHER]


def shown(path, key, *words):
    asked = ["events", "show", event_id(key), "--json", "--store", str(path), *words]
    result = CliRunner().invoke(flopmeter, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)["event"]


@pytest.fixture
def regimes(tmp_path):
    """A site's regime that is met at once, as a file."""
    law = regime(rule())
    directory = tmp_path / "laws"
    directory.mkdir()
    (directory / "site.toml").write_text(law.text.replace('id = "eu-gpai"', 'id = "site-law"'))
    return directory


def test_what_is_over_is_shown_as_over_and_stays(path, regimes):
    """A person says that the work was an evaluation: the total falls below the line, and the event stays."""
    from flopmeter.collector.law.laws import read_laws

    laws = [r for r in read_laws(regimes).binding if r.id == "site-law"]
    with opened(path, *laws) as desk:
        busy_minute(desk, Chain("n"))
    key = "threshold:site-law:r1:crossed:crossed:>10^14"
    words = ("--regimes", str(regimes))
    before = shown(path, key, *words)
    assert (before["state"], before["over"]) == ("open", None)
    tagged = CliRunner().invoke(
        RUNS["tag"],
        [
            "r1",
            "--purpose",
            "evaluation",
            "--evidence",
            "https://tickets.example/7",
            "--who",
            "ada",
            "--why",
            "only tests",
            "--store",
            str(path),
        ],
    )
    assert tagged.exit_code == 0, tagged.output
    after = shown(path, key, *words)
    assert "by ada: only tests" in after["over"]["because"]
    assert after["over"]["since"] is not None
    assert {k: v for k, v in after.items() if k != "over"} == {k: v for k, v in before.items() if k != "over"}
    listed = CliRunner().invoke(flopmeter, ["events", "list", "--store", str(path), *words])
    assert "no longer so since" in " ".join(listed.output.split())


@pytest.mark.parametrize("before", [0, 1, 7, 40])
@pytest.mark.parametrize("after", [0, 5])
def test_whose_word_ended_it_is_found_in_a_few_passes_over_the_books(path, monkeypatch, before, after):
    """Each pass is all runs' work: a page that makes one an entry would hold up everybody for minutes."""
    with opened(path, regime()) as desk:
        busy_minute(desk, Chain("n"))
    for i in range(before):
        said(path, Declare(f"other-{i}", budget_flop=10**22), START + i)
    number = said(path, Tag("r1", Purpose.EVALUATION, None, None, None, ("t",)), START + 10**9)
    for i in range(after):
        said(path, Declare(f"more-{i}", budget_flop=10**22), START + 2 * 10**9 + i)
    passes = []
    whole = Reader.counting
    monkeypatch.setattr(Reader, "counting", lambda self, *asked: passes.append(asked) or whole(self, *asked))
    over = shown(path, FIRST)["over"]
    assert over["because"] == f"entry {number} of the run registry, by ada@lab: a test"
    assert len(passes) <= 10


def test_who_does_not_name_the_sites_files_is_not_told_that_it_is_over(path, regimes):
    """What the collector judges by counts: it kept the text. When the site takes its file away, it is over."""
    from flopmeter.collector.law.laws import read_laws

    laws = [r for r in read_laws(regimes).binding if r.id == "site-law"]
    with opened(path, *laws) as desk:
        busy_minute(desk, Chain("n"))
    key = "threshold:site-law:r1:crossed:crossed:>10^14"
    assert shown(path, key)["over"] is None
    with opened(path, now=START + DAY_NS) as desk:
        desk.commit()
    assert shown(path, key)["over"]["because"] == "runs are no longer judged by a regime of that name"


def test_a_silence_is_over_when_the_agent_reports_and_another_is_another(path):
    chain = Chain("n")
    with opened(path) as desk:
        busy_minute(desk, chain)
        raised = []
        for hours in (2, 3):
            desk.now = START + hours * DAY_NS // 24
            assert desk.intake.review(desk.now)
            raised += [e for e in desk.commit().events if e.type == "agent.silent"]
        assert len(raised) == 1
        assert shown(path, raised[0].key)["over"] is None
        desk.now = START + 3 * DAY_NS
        busy_minute(desk, chain)
        desk.now = START + 4 * DAY_NS
        assert desk.intake.review(desk.now)
        (again,) = [e for e in desk.commit().events if e.type == "agent.silent"]
        assert again.key != raised[0].key
    over = shown(path, raised[0].key)["over"]
    assert over["because"] == "the agent reported again"
    assert over["since"] is not None


def test_deadlines_are_over_when_they_are_past_or_resolved(path):
    from flopmeter.collector.duty.answers import State
    from flopmeter.collector.duty.saying import Person, answer

    with opened(path) as desk:
        busy_minute(desk, Chain("n"))
        (near,) = commit_at(desk, START + 7 * DAY_NS)
        (overdue,) = commit_at(desk, START + 14 * DAY_NS)
    assert "overdue now" in shown(path, near.key)["over"]["because"]  # by the clock of today, which is later
    assert shown(path, overdue.key)["over"] is None
    answer(
        path,
        "deadline",
        overdue.data["deadline"],
        State.RESOLVED,
        Person("ada", "sent", START),
        outcome="done",
    )
    assert shown(path, overdue.key)["over"]["because"] == "the deadline was resolved by ada: sent"


def test_what_a_clock_that_was_ahead_raised_is_shown_as_such(path):
    """The two weeks began today, by the clock of whoever asks; the collector's was a year ahead for a moment."""
    import time

    now = time.time_ns()
    with opened(path, now=now) as desk:
        busy_minute(desk, Chain("n"))
        (overdue,) = commit_at(desk, now + 365 * DAY_NS)
        assert commit_at(desk, now + DAY_NS) == []
    assert "clock was ahead" in shown(path, overdue.key)["over"]["because"]
