"""Runs that are only planned: they are listed with their plan, and are in no total, no order and no status."""

import json

import pytest
from api_books import LAB, RIVAL, api_store, asked

from flopmeter.cli.main import main
from flopmeter.collector.api import say_runs
from flopmeter.collector.registry.entries import Declare, Purpose
from flopmeter.collector.registry.planned import planned_runs
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import reading

PLAN = 16 * 10**24 + 1


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("planned") / "books.sqlite"
    api_store(path)
    for statement in (
        Declare(
            "giant", "physics", PLAN, "4096 x B200", 1_800_000_000_000_000_000, "fp8", Purpose.PRETRAINING
        ),
        Declare("unsized", "elsewhere"),
        Declare("mine", budget_flop=10**30),  # has begun: its plan is no other run
    ):
        say(path, lambda _, s=statement: s, "ada@lab", "a good reason", lambda: 1_790_045_000_000_000_000)
    return path


@pytest.fixture(scope="module")
def books(path):
    return asked(path)


def test_they_are_listed_apart_with_what_was_declared(books):
    found = books.get("runs")
    assert [p["run"] for p in found["planned"]] == ["giant", "unsized"]  # the largest budget first
    assert found["planned_total"] == 2
    giant = found["planned"][0]
    assert giant["status"] == "not begun"
    assert giant["declared"]["budget_flop"] == str(PLAN)
    assert giant["declared"]["hardware"] == "4096 x B200"
    assert giant.keys() == {"run", "status", "declared"}  # and no figure of usage
    assert not {"giant", "unsized"} & {i["run"] for i in found["items"]}
    assert found["total"] == len(found["items"]) == books.get("overview")["runs"]["total"]


def test_a_name_finds_them_and_a_status_does_not(books):
    assert [p["run"] for p in books.get("runs", q="GIA")["planned"]] == ["giant"]
    for status in ("running", "silent", "stopped"):
        assert books.get("runs", status=status)["planned_total"] == 0


def test_a_tenant_sees_its_own(books):
    assert [p["run"] for p in books.get("runs", tenant="owner:physics")["planned"]] == ["giant"]
    for tenant in (LAB, RIVAL):
        assert books.get("runs", tenant=tenant)["planned"] == []
        assert books.get("runs", tenant=tenant)["planned_total"] == 0


def test_of_many_some_are_told_and_how_many_there_are(path, monkeypatch):
    monkeypatch.setattr(say_runs, "MAX_PLANNED", 1)
    found = asked(path).get("runs")
    assert [p["run"] for p in found["planned"]] == ["giant"]
    assert found["planned_total"] == 2


def listed(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["flopmeter", "runs", "list", *words])
    try:
        main()
    except SystemExit as e:
        assert not e.code
    return capsys.readouterr().out


def test_the_command_lists_them(path, monkeypatch, capsys):
    monkeypatch.setenv("FLOPMETER_STORE", str(path))
    monkeypatch.setenv("COLUMNS", "80")
    text = listed(monkeypatch, capsys)
    assert max(map(len, text.splitlines())) <= 80
    before, _, planned = text.partition("Planned: nothing of it is metered, and no total has it")
    assert "giant" not in before
    assert "· not begun  1.60e25      2027-01-15  physics    4096 x B200" in planned
    assert str(PLAN) not in text
    document = json.loads(listed(monkeypatch, capsys, "--json"))
    assert [p["run"] for p in document["planned"]] == ["giant", "unsized"]
    assert not {"giant", "unsized"} & {r["run"] for r in document["runs"]}


def test_it_is_planned_until_it_begins(path):
    with reading(path) as reader:
        registry, begun = reader.registry(), reader.run_names()
    assert [p["run"] for p in planned_runs(registry, [*begun, "giant"])] == ["unsized"]
