"""What lists say where there is nothing in them: what to do next, by commands that there are."""

import shlex
import sys
from pathlib import Path

import click
import pytest

from flopmeter.cli.main import flopmeter as program
from flopmeter.cli.main import main
from flopmeter.collector import empty
from flopmeter.collector.store.sqlite import SqliteStore

LISTS = {
    ("runs", "list"): empty.RUNS,
    ("runs", "entries"): empty.ENTRIES,
    ("events", "list"): empty.EVENTS,
    ("events", "list", "--severity", "critical"): empty.NO_EVENT_MATCHES,
    ("deadlines", "list"): empty.DEADLINES,
    ("deadlines", "list", "--run", "x"): empty.NO_DEADLINE_MATCHES,
    ("fleet", "list"): empty.NODES,
    ("fleet", "inventory"): empty.GPUS,
    ("fleet", "tenants"): empty.TENANTS,
    ("attest", "list"): empty.ATTESTATIONS,
    ("collector", "token", "list"): empty.TOKENS,
    ("collector", "agents", "list"): empty.AGENTS,
    ("regimes", "status"): empty.JUDGED,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "books.sqlite"
    SqliteStore(path).close()
    return path


@pytest.mark.parametrize("words", LISTS, ids=" ".join)
def test_an_empty_list_says_what_to_do_next(monkeypatch, capsys, store, words) -> None:
    monkeypatch.setattr(sys, "argv", ["flopmeter", *words, "--store", str(store)])
    with pytest.raises(SystemExit) as done:
        main()
    out = capsys.readouterr()
    # Of laws that judge nothing the answer is no.
    assert (done.value.code, out.err) == (1 if words[0] == "regimes" else 0, "")
    assert LISTS[words] in out.out


EVERY = {name: text for name, text in vars(empty).items() if name.isupper() and isinstance(text, str)}


def test_every_text_is_tried_above() -> None:
    assert set(LISTS.values()) == set(EVERY.values())


@pytest.mark.parametrize("name", EVERY)
def test_it_fits_a_page_and_names_commands_that_there_are(name: str) -> None:
    what, *steps = EVERY[name].splitlines()
    assert steps
    assert max(map(len, [what, *steps])) <= 80
    for step in steps:
        first, *words = shlex.split(step.strip().split("  ")[0])
        assert first == "flopmeter"
        command: click.Command = program
        while words and not words[0].startswith("-"):
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, step
            command = found
        known = {"--help"} | {o for p in command.params for o in p.opts}
        assert {w for w in words if w.startswith("-")} <= known, step
