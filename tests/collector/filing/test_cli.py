"""`flopmeter drafts list | make`."""

import json
import stat
import sys

import pytest
from filing_ledger import POINT, RUN, fill

from flopmeter.cli.main import main
from flopmeter.collector.filing import cli
from flopmeter.collector.filing.called_for import listing
from flopmeter.collector.filing.eu_documentation import Recipient
from flopmeter.collector.filing.kinds import KINDS
from flopmeter.collector.law.regimes import shipped


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    path = fill(tmp_path / "books.sqlite")
    monkeypatch.setenv("FLOPMETER_STORE", str(path))
    monkeypatch.delenv("FLOPMETER_EXPECT", raising=False)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["flopmeter", "drafts", *words])
        with pytest.raises(SystemExit) as e:
            main()
            sys.exit(0)
        out = capsys.readouterr()
        return e.value.code or 0, out.out, out.err

    return call


def test_the_words_of_the_command_line_are_those_of_the_room():
    """cli.py names them itself, so that --help loads nothing of the room."""
    assert set(KINDS) == set(cli.KIND_IDS)
    assert {r.value for r in Recipient} == set(cli.RECIPIENT_IDS)


def test_list(run):
    code, out, _ = run("list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert all(kind in out for kind in KINDS)
    assert "No event calls for one yet" in out
    assert json.loads(run("list", "--json")[1])["called_for"] == []


def test_list_names_the_runs_that_an_event_calls_for():
    event = {"id": "1", "type": "threshold.crossed", "time": "2026-11-22T00:00:00Z", "subject": RUN}
    events = [
        {**event, "data": {"run": RUN, "regime": "eu-systemic-risk"}},
        {**event, "id": "2", "data": {"run": RUN, "regime": "eu-systemic-risk"}},
        {**event, "data": {"run": RUN, "regime": "us-ca-sb53"}},
        {**event, "data": {"run": RUN, "regime": "gone", "act": "submission", "replaces": "korea"}},
        {**event, "type": "coverage.lost", "data": {"agent": "x"}},
        {**event, "data": {"run": RUN, "regime": "of no act here"}},
    ]
    found = listing(events, shipped())["called_for"]
    assert [(c["kind"], c["regime"], c["event"]) for c in found] == [
        ("eu-notification", "eu-systemic-risk", "1"),
        ("coverage-notice", "us-ca-sb53", "1"),
        ("korea-submission", "gone", "1"),
    ]


@pytest.mark.parametrize("regime", ["board-notice", "us-bis-702-7"])
def test_what_another_law_or_a_house_rule_asks_for_is_no_notification_to_the_commission(regime):
    data = {"run": RUN, "regime": regime, "act": "notification"}
    event = {"id": "1", "type": "threshold.crossed", "time": "2026-11-22T00:00:00Z", "data": data}
    assert listing([event], shipped())["called_for"] == []


@pytest.mark.parametrize("kind", cli.KIND_IDS)
@pytest.mark.parametrize("shape", cli.FORMATS)
def test_make_each_kind_in_each_format(run, kind, shape):
    code, out, _ = run("make", kind, RUN, "--format", shape)
    assert code == 0
    assert str(POINT) in out
    assert "DRAFT" in out


def test_json_is_a_format_too(run):
    document = json.loads(run("make", "eu-notification", RUN, "--json")[1])
    assert (document["schema"], document["kind"]) == ("flopmeter-draft/1", "eu-notification")


def test_a_draft_is_written_for_its_owner_alone_and_never_over_a_file(run, tmp_path):
    out = tmp_path / "notice.html"
    code, shown, err = run("make", "eu-notification", RUN, "--format", "html", "--out", str(out))
    assert (code, shown) == (0, "")
    assert "fields are for a person to fill in" in err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_text().startswith("<!DOCTYPE html>")
    out.write_text("what a person wrote")
    code, _, err = run("make", "eu-notification", RUN, "--out", str(out))
    assert code == 2
    assert "expected a name that is free" in err
    assert out.read_text() == "what a person wrote"
    assert run("make", "eu-notification", RUN, "--out", str(tmp_path / "no" / "where"))[0] == 2


def test_a_full_disk_leaves_no_half_draft(monkeypatch, tmp_path):
    from flopmeter.collector.errors import FilingError
    from flopmeter.collector.paper.write import write_whole

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FilingError, match="No space left"):
        write_whole(tmp_path / "draft.md", "text")
    assert not (tmp_path / "draft.md").exists()


def test_what_is_asked_for_must_be_there(run):
    code, _, err = run("make", "eu-notification", "llm-8")
    assert code == 3
    assert "did you mean llm-7" in err
    assert run("make", "no-such-kind", RUN)[0] == 2
    assert run("make", "eu-notification", RUN, "--for", "downstream")[0] == 2
    assert run("make", "eu-notification", RUN, "--regime", "korea")[0] == 2


def test_each_recipient(run):
    for recipient in cli.RECIPIENT_IDS:
        code, out, _ = run("make", "eu-documentation", RUN, "--for", recipient)
        assert code == 0
        assert (str(POINT) in out) is (recipient == "ai-office")
