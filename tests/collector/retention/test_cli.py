"""`flopmeter collector retention | hold | delete`, as people type them."""

import json

import pytest
from builders import Chain
from click.testing import CliRunner
from desk import Desk

from flopmeter.cli.main import flopmeter
from flopmeter.collector.cli import collector
from flopmeter.collector.errors import CollectorError
from flopmeter.collector.ingest.decide import TAKEN


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "books.sqlite"
    chain = Chain()
    with Desk(path) as desk:
        assert desk.offer(desk.agent(chain), chain.next()) is TAKEN
        desk.commit()
    return path


@pytest.fixture
def ask(path):
    def ask(*words: str, code: int = 0) -> str:
        """Words, and --store behind the command that takes it."""
        done = CliRunner().invoke(collector, [*words, "--store", str(path)])
        if isinstance(done.exception, CollectorError):
            assert done.exception.exit_code == code, done.exception
            return f"{done.exception} {done.exception.hint}"
        assert done.exit_code == code, done.output
        return done.output

    return ask


def test_the_page_says_what_is_missing_then_when_and_for_which_duty(ask) -> None:
    before = ask("retention")
    assert "must be kept; until when is not known" in before
    assert "nobody has said when its model was placed on the market" in " ".join(before.split())
    ask("retention", "placed", "r1", "2026-10-01", "--why", "the launch", "--who", "ann")
    after = " ".join(ask("retention").split())
    assert "run r1: must be kept; may be deleted from 2036-10-02" in after
    assert max(map(len, before.splitlines())) <= 80


def test_json_has_every_reason_with_its_source(ask) -> None:
    ask("retention", "placed", "r1", "2026-10-01", "--why", "the launch")
    ask("hold", "add", "--everything", "--why", "case 7", "--who", "counsel")
    document = json.loads(ask("retention", "--json"))
    assert document["years"] == 10
    assert document["store"]["deletable_from"] is None
    (run,) = document["runs"]
    by_name = {r["name"]: r for r in run["reasons"]}
    assert by_name["eu-gpai/documentation"]["first_day"] == "2036-10-02"
    assert by_name["us-ca-sb53/unredacted"]["first_day"] == "2031-10-02"
    assert "us-il-aisma/audit" not in by_name  # it came nowhere near 10^26
    assert by_name["hold 2"] == {
        "name": "hold 2",
        "what": by_name["hold 2"]["what"],
        "source": "counsel: case 7",
        "run": "",
        "first_day": None,
        "so_far": "until it is released",
        "stands": True,
    }
    assert [h["number"] for h in document["holds"]] == [2]


def test_holds_are_listed_until_they_are_released(ask) -> None:
    assert ask("hold", "list") == "no hold stands\n"
    ask("hold", "add", "r1", "--why", "case 7")
    assert "hold 1 over run r1" in ask("hold", "list")
    assert [h["run"] for h in json.loads(ask("hold", "list", "--json"))["holds"]] == ["r1"]
    ask("hold", "release", "1", "--why", "settled")
    assert ask("hold", "list") == "no hold stands\n"
    assert "expected a hold that stands" in ask("hold", "release", "1", "--why", "again", code=1)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("hold", "add", "nobody", "--why", "w"), 1),
        (("hold", "add", "r1", "--everything", "--why", "w"), 2),
        (("hold", "add", "--why", "w"), 2),
        (("hold", "add", "r1"), 2),
        (("hold", "add", "x" * 10_000, "--why", "w"), 2),
        (("retention", "placed", "r1", "tomorrow", "--why", "w"), 2),
        (("retention", "placed", "r1", "2999-01-01", "--why", "w"), 2),
        (("retention", "years", "101", "--why", "w"), 2),
        (("retention", "years", "5", "--why", "\x1b[2J"), 2),
        (("delete",), 1),
        (("delete", "--confirm", "other", "--why", "w"), 2),
        (("delete", "--confirm", "books.sqlite"), 2),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_said(ask, path, words, code) -> None:
    ask(*words, code=code)
    assert json.loads(ask("hold", "list", "--json")) == {"holds": []}
    assert path.is_file()


def test_a_declared_run_may_be_held_before_it_begins(ask, path) -> None:
    said = CliRunner().invoke(
        flopmeter, ["runs", "declare", "planned", "--owner", "nlp", "--store", str(path)]
    )
    assert said.exit_code == 0, said.output
    ask("hold", "add", "planned", "--why", "case 8")
    assert "hold 1 over run planned" in ask("hold", "list")


def test_a_store_that_is_not_there_cannot_be_read(tmp_path) -> None:
    for words in (("retention",), ("hold", "list"), ("delete",), ("hold", "add", "r", "--why", "w")):
        asked = CliRunner().invoke(collector, [*words, "--store", str(tmp_path / "none.db")])
        assert isinstance(asked.exception, CollectorError)
        assert asked.exception.exit_code == 3
        assert list(tmp_path.iterdir()) == []


def test_deletion_says_what_it_would_do_and_does_it_only_when_told_twice(ask, path, monkeypatch) -> None:
    ask("retention", "placed", "r1", "2026-10-01", "--why", "the launch")
    said = ask("delete", "--confirm", "books.sqlite", "--why", "tidy", code=1)
    assert "it may be deleted from 2036-10-02" in said
    monkeypatch.setattr("time.time_ns", lambda: 2_200_000_000 * 10**9)  # 2039
    assert "Nothing was deleted" in ask("delete")
    assert path.is_file()
    document = json.loads(ask("delete", "--confirm", "books.sqlite", "--why", "tidy", "--json"))
    assert document["deleted"] is True
    assert not path.exists()
